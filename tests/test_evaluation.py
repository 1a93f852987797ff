"""Evaluation: every example once, slim's numbers, what is printed and written, and what is refused."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from datasets import dataset_factory, input_pipeline, tfrecord
from engine import checkpoints, evaluation
from engine.classifiers.model_spec import ModelSpec
from engine.evaluation import results
from nets.variables import slim_variables
from support.errors import InputError
from tests.runs import DIGITS_NET, eval_config, files, saved_values, summaries

# ------------------------------------------------------------------------ slim's numbers


@pytest.fixture(scope='module')
def evaluate_slims(shared_path, tmp_path_factory):
    """Returns a function that evaluates slim's checkpoint of cifarnet on the 10,000 test images."""
    options = {
        'checkpoint_path': shared_path('goldens/checkpoints/cifarnet_cifar10'),
        'model_name': 'cifarnet',
        'dataset_name': 'cifar10',
        'dataset_dir': str(shared_path('data/cifar10')),
        'recall_at': (3, 4, 5),
        'eval_dir': str(tmp_path_factory.mktemp('eval')),
    }
    return lambda **more: evaluation.evaluate(eval_config(**options, **more))


@pytest.mark.full
@pytest.mark.parametrize(
    ('options', 'accuracy', 'recalls'),
    [
        ({}, 0.6168, [0.8676, 0.9197, 0.9484]),
        ({'moving_average_decay': 0.99}, 0.6405, [0.8863, 0.9357, 0.9613]),
    ],
    ids=['weights', 'averages'],
)
def test_a_checkpoint_of_slims_gives_slims_numbers(evaluate_slims, options, accuracy, recalls):
    results = evaluate_slims(**options)
    assert results['num_examples'] == 10000
    assert results['step'] == 3600
    assert results['accuracy'] == accuracy
    assert [results[f'recall_at_{k}'] for k in (3, 4, 5)] == recalls


# ------------------------------------------------------------------------ every example once


@pytest.fixture(scope='module')
def logits_and_labels(trained, digits_dir) -> tuple[np.ndarray, np.ndarray]:
    """The logits of the trained net for the 360 test images, computed in one batch, and the labels."""
    folder = str(Path(trained.checkpoint_path).parent)
    spec = ModelSpec.load(folder)
    assert spec is not None
    model, preprocessing = spec.make_model(), spec.make_preprocessing()
    values = saved_values(trained.checkpoint_path)
    for name, variable in slim_variables(model).items():
        variable.assign(values[name])
    dataset = dataset_factory.get_dataset('digits', str(digits_dir), 'test')
    (batch,) = input_pipeline.evaluation_batches(dataset, preprocessing, 360)
    return model(preprocessing.device_eval(batch['image'])).numpy(), batch['label'].numpy()


def shares(logits: np.ndarray, labels: np.ndarray, *ks: int) -> list[float]:
    """Returns the share of examples whose label is among the k largest logits, for each k."""
    ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    return [int((ranks < k).sum()) / len(labels) for k in ks]


def loss_of(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean cross-entropy."""
    logits = logits.astype(np.float64)
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]))


def test_the_run_has_learnt(logits_and_labels):
    assert shares(*logits_and_labels, 1)[0] > 0.95


@pytest.mark.quick('7-options1', '1000-options3')
@pytest.mark.parametrize(
    ('batch_size', 'options'),
    [(1, {}), (7, {}), (100, {}), (1000, {}), (7, {'num_clones': 2}), (64, {'xla': 'on'})],
)
def test_results_do_not_depend_on_the_batch_size(trained, logits_and_labels, tmp_path, batch_size, options):
    config = eval_config(
        trained.checkpoint_path, batch_size=batch_size, recall_at=(1, 2, 5), eval_dir=str(tmp_path), **options
    )
    results = evaluation.evaluate(config)
    assert results['num_examples'] == 360
    expected = shares(*logits_and_labels, 1, 1, 2, 5)
    assert [results[name] for name in ('accuracy', 'recall_at_1', 'recall_at_2', 'recall_at_5')] == expected
    assert results['loss'] == pytest.approx(loss_of(*logits_and_labels), rel=1e-5)


def test_some_batches_only(trained, logits_and_labels, tmp_path, capsys):
    results = evaluation.evaluate(
        eval_config(trained.checkpoint_path, batch_size=50, max_num_batches=3, eval_dir=str(tmp_path))
    )
    assert results['num_examples'] == 150
    logits, labels = logits_and_labels
    assert results['accuracy'] == shares(logits[:150], labels[:150], 1)[0]
    assert 'evaluated 150 of 360\n' in capsys.readouterr().out


@pytest.mark.full
def test_arithmetic_may_be_bfloat16(trained, logits_and_labels, tmp_path):
    config = eval_config(trained.checkpoint_path, mixed_precision='bfloat16', eval_dir=str(tmp_path))
    assert evaluation.evaluate(config)['accuracy'] == pytest.approx(shares(*logits_and_labels, 1)[0], abs=0.02)


def test_evaluation_while_training_is_that_of_its_checkpoint(train_digits, tmp_path):
    """With moving averages it measures them."""
    options = {'moving_average_decay': 0.9, 'recall_at': (2, 3, 4), 'eval_every_steps': 10}
    trained = train_digits(tmp_path / 'run', max_number_of_steps=20, **options)
    assert trained.results is not None
    averages, weights = (
        evaluation.evaluate(
            eval_config(tmp_path / 'run', moving_average_decay=decay, recall_at=(2, 3, 4), eval_dir=str(tmp_path))
        )
        for decay in (0.9, None)
    )
    names = ('step', 'num_examples', 'accuracy', 'recall_at_2', 'recall_at_3', 'recall_at_4', 'loss')
    assert [trained.results[name] for name in names] == [averages[name] for name in names]
    assert [weights[name] for name in names] != [averages[name] for name in names]


@pytest.mark.quick('train[[]:80%]-train[[]80%:]-*')
@pytest.mark.parametrize(
    ('trained_on', 'evaluated_on', 'expected'),
    [
        ('train[:80%]', 'train[80%:]', 'train[80%:]'),
        ('train[:80%]', 'test[:100]', 'test[:100]'),
        ('train[:80%]', None, 'test'),
        ('train', 'train[80%:]', 'test'),  # what was trained on is not measured without being asked for
    ],
)
def test_the_split_of_a_run_is_remembered(train_digits, tmp_path, caplog, trained_on, evaluated_on, expected):
    options = {'dataset_split_name': trained_on, 'eval_split_name': evaluated_on, 'max_number_of_steps': 1}
    train_digits(tmp_path, eval_every_steps=1, **options)
    caplog.clear()
    for path in (tmp_path, tmp_path / 'best'):
        measured = evaluation.evaluate(eval_config(path))
        (compared,) = evaluation.compare(eval_config('', compare=(str(path),)))
        assert measured['dataset_split_name'] == expected
        assert compared['num_examples'] == measured['num_examples']
    warned = [record.getMessage() for record in caplog.records if 'shares examples' in record.getMessage()]
    assert bool(warned) == (trained_on == 'train')
    asked = evaluation.evaluate(eval_config(tmp_path, dataset_split_name='train[90%:]'))
    assert asked['dataset_split_name'] == 'train[90%:]'


# ------------------------------------------------------------------------ what is printed and written


def test_everything_that_an_evaluation_leaves_behind(trained, digits_dir, logits_and_labels, tmp_path, capsys):
    path, eval_dir = tmp_path / 'results.json', tmp_path / 'eval'
    config = eval_config(
        Path(trained.checkpoint_path).parent, recall_at=(2, 3), results_path=str(path), eval_dir=str(eval_dir)
    )
    results = evaluation.evaluate(config)
    accuracy, recall_2, recall_3 = shares(*logits_and_labels, 1, 2, 3)
    written = json.loads(path.read_text())
    assert written == results
    assert written.pop('images_per_second') > 0
    expected = {
        'num_examples': 360,
        'accuracy': accuracy,
        'recall_at_2': recall_2,
        'recall_at_3': recall_3,
        'loss': pytest.approx(loss_of(*logits_and_labels), rel=1e-6),
        'step': 300,
        'checkpoint_path': trained.checkpoint_path,
        'kind': 'checkpoint',
        'model_name': 'lenet',
        'dataset_name': 'digits',
        'dataset_split_name': 'test',
        'moving_averages': False,
        'temperature': 1.0,
    }
    assert {name: written[name] for name in expected} == expected  # statistics: test_statistics.py
    lines, table = capsys.readouterr().out.split('evaluated 360 of 360\n')
    assert 'f1_macro' in table
    assert lines == (
        f'eval/Accuracy[{accuracy:.8g}]\n'
        f'eval/Recall_2[{recall_2:.8g}]\n'
        f'eval/Recall_3[{recall_3:.8g}]\n'
        f'eval/Loss[{results["loss"]:.8g}]\n'
    )
    found = summaries(eval_dir)
    scalars = {'accuracy': accuracy, 'recall_at_2': recall_2, 'recall_at_3': recall_3, 'num_examples': 360, 'step': 300}
    scalars['losses/cross_entropy'] = float(results['loss'])
    of_statistics = ('mean_class_accuracy', 'precision_macro', 'recall_macro', 'f1_macro', 'ece')
    scalars |= {tag: results[tag] for tag in of_statistics}
    assert set(found) == {*scalars, 'checkpoint_path'}
    for tag, value in scalars.items():
        assert list(found[tag]) == [300]
        assert found[tag][300] == np.float32(value)
    assert found['checkpoint_path'][300].item().decode() == trained.checkpoint_path


@pytest.mark.full
def test_a_loss_that_is_not_finite_is_none_in_json(without_model_file, digits_dir, tmp_path):
    (prefix,) = checkpoints.list_checkpoints(str(without_model_file))[-1:]
    values = saved_values(prefix)
    values['LeNet/fc4/biases'] = np.where(np.arange(10) < 1, np.float32(np.inf), 0).astype(np.float32)
    (tmp_path / 'run').mkdir()
    checkpoints.save(str(tmp_path / 'run'), 1, values, max_to_keep=1)
    path = tmp_path / 'results.json'
    results = evaluation.evaluate(
        eval_config(tmp_path / 'run', dataset_dir=str(digits_dir), results_path=str(path), **DIGITS_NET)
    )
    assert not np.isfinite(results['loss'])
    assert json.loads(path.read_text(), parse_constant=pytest.fail)['loss'] is None


def test_a_run_from_elsewhere_does_not_say_where_data_are_written(trained, digits_dir, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    train_dir = Path(shutil.copytree(Path(trained.checkpoint_path).parent, tmp_path / 'run'))
    elsewhere, model_file = tmp_path / 'elsewhere', train_dir / 'model.json'
    elsewhere.mkdir()
    model_file.write_text(model_file.read_text().replace(str(digits_dir), str(elsewhere)))
    assert evaluation.evaluate(eval_config(train_dir))['num_examples'] == 360
    assert not list(elsewhere.iterdir())
    assert [path.name for path in (tmp_path / 'cache' / 'tf_slim_image_classification').iterdir()] == ['digits']


@pytest.mark.parametrize(
    ('name', 'present', 'is_taken'),
    [
        ('digits', [], False),
        ('digits', ['labels.txt', 'digits_train.tfrecord', 'digits_test.tfrecord'], True),
        ('tfds:mnist', [], False),
        ('tfds:mnist:3.0.1', ['mnist'], True),
        ('cifar10', [], True),  # which is never written
    ],
)
def test_where_data_of_a_run_are_read(trained, tmp_path, name, present, is_taken):
    for part in present:
        (tmp_path / part).touch() if '.' in part else (tmp_path / part).mkdir()
    spec = ModelSpec.load(os.path.dirname(trained.checkpoint_path))
    assert spec is not None
    found = dataclasses.replace(spec, dataset_name=name, dataset_dir=str(tmp_path)).folder_of_data()
    assert found == (str(tmp_path) if is_taken else None)


def test_event_files_lie_beside_the_checkpoint(trained, tmp_path):
    train_dir = Path(shutil.copytree(Path(trained.checkpoint_path).parent, tmp_path / 'run'))
    evaluation.evaluate(eval_config(train_dir, dataset_split_name='train', max_num_batches=1))
    assert 'accuracy' in summaries(train_dir / 'eval_train')


@pytest.mark.quick('recall_at0-*')
@pytest.mark.parametrize(
    ('recall_at', 'measured'), [((3, 5), (3, 5)), ((5, 20), (5, 10)), ((10, 11, 12), (10,)), ((1001,), (10,))]
)
def test_k_above_the_classes_is_clipped(trained, tmp_path, caplog, recall_at, measured):
    config = eval_config(trained.checkpoint_path, recall_at=recall_at, max_num_batches=1, eval_dir=str(tmp_path))
    results = evaluation.evaluate(config)
    assert [name for name in results if name.startswith('recall_at_')] == [f'recall_at_{k}' for k in measured]
    message = f'Recall@k is measured at k = {",".join(map(str, measured))}: there are 10 classes'
    assert (message in caplog.text) == (measured != recall_at)


@pytest.mark.parametrize('option', ['results_path', 'eval_dir'])
def test_outputs_that_cannot_be_written(trained, tmp_path, option):
    (tmp_path / 'file').write_text('')
    outputs = {'eval_dir': str(tmp_path / 'eval'), option: str(tmp_path / 'file' / 'below')}
    with pytest.raises(InputError, match=f'--{option}={tmp_path}/file/below: '):
        evaluation.evaluate(eval_config(trained.checkpoint_path, max_num_batches=1, **outputs))
    assert (tmp_path / 'file').read_text() == ''


# ------------------------------------------------------------------------ what is evaluated


@pytest.fixture
def without_model_file(trained, tmp_path) -> Path:
    """The trained checkpoint in a folder without model.json, as slim leaves it."""
    folder = tmp_path / 'slims'
    shutil.copytree(Path(trained.checkpoint_path).parent, folder)
    (folder / 'model.json').unlink()
    return folder


def test_flags_stand_in_for_model_file(trained, without_model_file, digits_dir, logits_and_labels, tmp_path):
    config = eval_config(without_model_file, dataset_dir=str(digits_dir), eval_dir=str(tmp_path), **DIGITS_NET)
    assert evaluation.evaluate(config)['accuracy'] == shares(*logits_and_labels, 1)[0]


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({}, 'no model.json in .* that would name its net: give --model_name=lenet'),
        (
            {'model_name': 'lenet', 'image_size': 8, 'depth_multiplier': 0.25},
            '--dataset_dir is missing: the folder of the TFRecords of imagenet',
        ),
        ({'dataset_name': 'digits', 'model_name': 'lenet'}, r'is not of this net or run; what differs:\n'),
        ({**DIGITS_NET, 'depth_multiplier': 1.0}, r'LeNet/conv1/weights +5x5x1x32 +5x5x1x8'),
    ],
)
def test_wrong_flags_without_model_file(without_model_file, digits_dir, flags, message):
    before = files(without_model_file)
    if 'dataset_name' in flags:
        flags = {**flags, 'dataset_dir': str(digits_dir)}
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(eval_config(without_model_file, **flags))
    assert files(without_model_file) == before
    assert not [path for path in without_model_file.iterdir() if path.is_dir()]


def test_flags_that_agree_with_model_file(trained, logits_and_labels, tmp_path):
    agreeing = {**DIGITS_NET, 'preprocessing_name': 'lenet', 'labels_offset': 0, 'use_grayscale': False}
    config = eval_config(trained.checkpoint_path, eval_dir=str(tmp_path), **agreeing)
    assert evaluation.evaluate(config)['accuracy'] == shares(*logits_and_labels, 1)[0]


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'model_name': 'alexnet_v2'}, r'--model_name=alexnet_v2 \(lenet\)'),
        ({'labels_offset': 1}, r'--labels_offset=1 \(0\)'),
        ({'use_grayscale': True}, r'--use_grayscale=True \(False\)'),
        ({'eval_image_size': 12, 'depth_multiplier': 1.0}, r'--image_size=12 \(8\), --depth_multiplier=1.0 \(0.25\)'),
    ],
)
def test_flags_that_contradict_model_file(trained, tmp_path, flags, message):
    with pytest.raises(
        InputError, match=f'flags contradict how the net was trained .*{message}; leave them out, or give --force'
    ):
        evaluation.evaluate(eval_config(trained.checkpoint_path, eval_dir=str(tmp_path / 'eval'), **flags))
    assert not (tmp_path / 'eval').exists()


@pytest.mark.full
def test_force_lets_flags_contradict(train_digits, tmp_path):
    """Net and checkpoint still fit, since vgg resizes to the same size."""
    train_digits(tmp_path / 'run', max_number_of_steps=5, preprocessing_name='inception', train_image_size=12)
    options = {'preprocessing_name': 'vgg', 'eval_dir': str(tmp_path / 'eval')}
    with pytest.raises(InputError, match=r'--preprocessing_name=vgg \(inception\); .*--force'):
        evaluation.evaluate(eval_config(tmp_path / 'run', **options))
    results = evaluation.evaluate(eval_config(tmp_path / 'run', force=True, **options))
    assert results['num_examples'] == 360


@pytest.mark.full
def test_averages_that_were_not_kept(train_digits, tmp_path):
    train_digits(tmp_path / 'run', max_number_of_steps=1)
    with pytest.raises(InputError, match=r'LeNet/conv1/weights/ExponentialMovingAverage +5x5x1x8 +missing'):
        evaluation.evaluate(eval_config(tmp_path / 'run', moving_average_decay=0.9))
    config = eval_config(tmp_path / 'run', moving_average_decay=0.0, eval_dir=str(tmp_path))  # slim's "none"
    assert evaluation.evaluate(config)['moving_averages'] is False


@pytest.mark.quick('4')
@pytest.mark.parametrize('batch_size', [1, 4, 100])
def test_a_record_that_cannot_be_used_is_named(trained, tmp_path, batch_size):
    """Nothing is printed or written of the records before it."""
    pixels = tf.io.encode_png(tf.zeros([8, 8, 1], tf.uint8)).numpy()
    images = [pixels] * 6 + [pixels[:30]] + [pixels] * 3
    examples = [tfrecord.image_example(image, 'png', 8, 8, 0) for image in images]
    for split in ('train', 'test'):
        tfrecord.write_records(str(tmp_path / f'digits_{split}.tfrecord'), examples)
    (tmp_path / 'labels.txt').write_text(''.join(f'{digit}:{digit}\n' for digit in range(10)))
    options = {'dataset_dir': str(tmp_path), 'eval_dir': str(tmp_path / 'eval'), 'batch_size': batch_size}
    with pytest.raises(InputError, match=r'digits_test\.tfrecord, record 6: its image '):
        evaluation.evaluate(eval_config(trained.checkpoint_path, **options))
    assert not (tmp_path / 'eval').exists()


# ------------------------------------------------------------------------ waiting for checkpoints


@pytest.fixture
def arriving(trained, tmp_path, monkeypatch):
    """Returns a folder with one checkpoint; after each evaluation another one comes, as long as there are any."""
    source, folder = Path(trained.checkpoint_path).parent, tmp_path / 'run'
    folder.mkdir()
    shutil.copyfile(source / 'model.json', folder / 'model.json')
    values = {name: tf.constant(value) for name, value in saved_values(trained.checkpoint_path).items()}
    coming = [100, 200, 300]
    report = results.report

    def arrive():
        if coming:
            step = coming.pop(0)
            checkpoints.save(str(folder), step, {**values, 'global_step': np.int64(step)}, max_to_keep=5)

    def report_and_arrive(*arguments):
        report(*arguments)
        arrive()

    monkeypatch.setattr(results, 'report', report_and_arrive)
    arrive()
    return folder


@pytest.mark.quick('options1-steps1', 'options2-steps2')
@pytest.mark.parametrize(
    ('options', 'steps'),
    [
        ({}, [100]),
        ({'eval_interval_secs': 0.0, 'max_number_of_evaluations': 1}, [100]),
        ({'eval_interval_secs': 0.0, 'max_number_of_evaluations': 2}, [100, 200]),
        ({'eval_interval_secs': 0.0, 'eval_timeout_secs': 1.0}, [100, 200, 300]),
        ({'eval_interval_secs': 0.2, 'eval_timeout_secs': 1.0, 'max_number_of_evaluations': 9}, [100, 200, 300]),
    ],
)
def test_waiting_for_new_checkpoints(arriving, tmp_path, capsys, options, steps):
    path = tmp_path / 'results.json'
    config = eval_config(arriving, max_num_batches=1, results_path=str(path), **options)
    results = evaluation.evaluate(config)
    assert results['step'] == steps[-1]
    assert capsys.readouterr().out.count('evaluated 100 of 360') == len(steps)
    assert list(summaries(arriving / 'eval_test')['accuracy']) == steps
    assert json.loads(path.read_text()) == results


@pytest.mark.parametrize('folder', ['.', 'not_made_yet'])
def test_no_checkpoint_comes_in_time(tmp_path, folder):
    config = eval_config(tmp_path / folder, eval_interval_secs=0.0, eval_timeout_secs=0.1)
    with pytest.raises(InputError, match='no checkpoint appeared'):
        evaluation.evaluate(config)


def test_waiting_needs_a_folder(trained):
    config = eval_config(trained.checkpoint_path, eval_interval_secs=1.0)
    with pytest.raises(InputError, match='name their folder'):
        evaluation.evaluate(config)


def test_a_folder_whose_latest_is_damaged(train_digits, digits_dir, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=4, save_interval_steps=2)
    (tmp_path / 'model.ckpt-4.data-00000-of-00001').write_bytes(b'cut')
    results = evaluation.evaluate(eval_config(tmp_path, dataset_dir=str(digits_dir)))
    assert results['step'] == 2
    assert f'{tmp_path}/model.ckpt-4' in caplog.text
    assert 'trying the one before it' in caplog.text
    with pytest.raises(InputError, match=r'model\.ckpt-4'):  # the one that was asked for, and no other
        evaluation.evaluate(eval_config(tmp_path / 'model.ckpt-4', dataset_dir=str(digits_dir)))
    (tmp_path / 'model.ckpt-2.data-00000-of-00001').write_bytes(b'cut')
    with pytest.raises(InputError, match=r'model\.ckpt-2'):
        evaluation.evaluate(eval_config(tmp_path, dataset_dir=str(digits_dir)))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'image_size': '28'}, "image_size is '28', which is not int"),
        ({'use_grayscale': 'yes'}, "use_grayscale is 'yes', which is not bool"),
        ({'depth_multiplier': None}, 'depth_multiplier is None, which is not float'),
        ({'unknown': 1}, "unexpected keyword argument 'unknown'"),
    ],
)
def test_a_damaged_model_file(trained, tmp_path, change, message):
    values = json.loads((Path(trained.checkpoint_path).parent / 'model.json').read_text())
    (tmp_path / 'model.json').write_text(json.dumps({**values, **change}))
    with pytest.raises(InputError, match=f'model.json: damaged, or written by another version: .*{message}'):
        ModelSpec.load(str(tmp_path))


def test_a_data_set_of_other_label_names_contradicts(trained, shared_path):
    options = {'dataset_name': 'mnist', 'dataset_dir': str(shared_path('goldens/tfrecords/mnist'))}
    with pytest.raises(
        InputError, match=r"other classes than mnist in .*: number 0 is '0' there, 'zero' here; .*or give --force"
    ):
        evaluation.evaluate(eval_config(trained.checkpoint_path, **options))


def test_images_in_colour_for_a_net_of_gray_ones(trained, shared_path, tmp_path):
    """The classes are the same in number; with the flags they are turned to gray."""
    options = {'dataset_name': 'cifar10', 'dataset_dir': str(shared_path('data/cifar10')), 'eval_dir': str(tmp_path)}
    with pytest.raises(
        InputError, match=r'takes gray images, but cifar10 in .*: --use_grayscale and --force turns them'
    ):
        evaluation.evaluate(eval_config(trained.checkpoint_path, **options))
    grey = evaluation.evaluate(
        eval_config(trained.checkpoint_path, use_grayscale=True, force=True, max_num_batches=1, **options)
    )
    assert grey['num_examples'] == 100
