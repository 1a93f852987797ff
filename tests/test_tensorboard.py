"""Event files beyond scalars: the charts of evaluations, the options of runs, the profiler's trace."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.pr_curve import summary as pr_curve_plugin

from configs.options import make_config
from configs.training import LogOptions, TrainConfig
from engine.evaluation import evaluate
from engine.evaluation.curves import MOST_CURVES, PrecisionRecall
from engine.evaluation.drawings import draw_confusion, draw_gallery
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.report.content import Picture
from engine.training.run_dir import compared_options
from support.errors import InputError
from tests.runs import assert_same_values, eval_config, summaries

SHORT = {'max_number_of_steps': 12, 'save_summaries_steps': 100}
GALLERIES = ('most_confident_mistakes', 'least_confident_successes', 'likely_label_errors')


def scored(examples: int, classes: int, output: str) -> ScoredBatch:
    random = np.random.default_rng(classes)
    scores = random.normal(size=(examples, classes)).astype(np.float32) * 2
    if output == 'probabilities':
        scores = tf.nn.softmax(scores).numpy()
    return ScoredBatch(np.arange(examples), random.integers(0, classes, examples), (scores,), (output,))


@pytest.mark.parametrize('output', ['logits', 'probabilities'])
@pytest.mark.parametrize('classes', [2, 10, MOST_CURVES + 1])
def test_precision_recall_counts_are_those_of_tensorboard(classes: int, output: str) -> None:
    batch = scored(200, classes, output)
    curves = PrecisionRecall(classes)
    curves.observe(batch)
    every = np.broadcast_to(np.arange(classes), (200, classes))
    probabilities, is_label = batch.probabilities(0, every), every == batch.labels[:, np.newaxis]
    questions = zip(is_label.T, probabilities.T, strict=True) if classes <= MOST_CURVES else [(is_label, probabilities)]
    expected = []
    for labels, predictions in questions:
        (value,) = pr_curve_plugin.pb('a', labels.ravel(), predictions.ravel()).value
        expected.append(tf.make_ndarray(value.tensor)[:2])
    np.testing.assert_array_equal(curves.counts(), expected)


def test_examples_that_are_not_finite_have_no_part_in_curves() -> None:
    whole, batch = PrecisionRecall(3), scored(50, 3, 'logits')
    whole.observe(batch)
    scores = np.concatenate([batch.scores[0], np.full((2, 3), np.nan, np.float32)])
    with_others = ScoredBatch(np.arange(52), np.append(batch.labels, [0, 1]), (scores,), ('logits',))
    counted = PrecisionRecall(3)
    counted.observe(with_others)
    np.testing.assert_array_equal(counted.counts(), whole.counts())


def test_a_net_may_have_more_classes_than_the_data_set() -> None:
    curves, batch = PrecisionRecall(3), scored(50, 5, 'logits')
    curves.observe(batch)
    all_of_net = PrecisionRecall(5)
    all_of_net.observe(batch)
    np.testing.assert_array_equal(curves.counts(), all_of_net.counts()[:3])


@pytest.mark.parametrize('classes', [1, 2, 10, 40, 1001])
def test_confusion_is_drawn_at_bounded_size(classes: int) -> None:
    labels = np.arange(classes)
    predictions = (labels + (labels % 7 == 0)) % classes
    counts = scipy.sparse.coo_array((np.ones(classes, np.int64), (labels, predictions)), shape=(classes,) * 2).tocsr()
    image = draw_confusion(counts, [f'${i}^{{}} </script>\n犬' for i in range(classes)])
    assert image.dtype == np.uint8
    assert max(image.shape) <= 1600
    assert image.std() > 10


def test_confusion_without_examples_or_names() -> None:
    assert draw_confusion(scipy.sparse.csr_array((0, 0), dtype=np.int64), ['a', 'b']).std() > 0
    assert draw_confusion(scipy.sparse.csr_array(np.eye(3, dtype=np.int64)), []).std() > 0


def test_gallery_is_a_grid() -> None:
    picture = Picture('a', np.zeros((20, 40, 3), np.uint8), None, 1, 7, 0.25, 0.1)
    assert draw_gallery([picture], ['a', 'b']).shape == (194, 156, 3)
    assert draw_gallery([picture] * 8, []).shape == (2 * 194, 6 * 156, 3)


def test_evaluations_in_training_draw_their_charts(train_digits, tmp_path):
    train_digits(tmp_path, **SHORT, eval_every_steps=6, summarize_images=True)
    found = summaries(tmp_path / 'eval_test')
    drawn = {'confusion_matrix', *(f'galleries/{name}' for name in GALLERIES)}
    curves = {f'precision_recall/class_{i}/pr_curves' for i in range(10)}
    assert drawn | curves <= set(found)
    for tag in drawn | curves:
        assert list(found[tag]) == [6, 12], tag
    (width, height, png) = found['confusion_matrix'][12]
    assert tf.io.decode_png(png).shape == (int(height), int(width), 3)
    for i in range(10):
        right, wrong, *others, precision, recall = found[f'precision_recall/class_{i}/pr_curves'][12]
        assert right[0] + wrong[0] == 360
        assert recall[0] == 1
        np.testing.assert_allclose(precision, right / np.maximum(right + wrong, 1), rtol=1e-6)
        np.testing.assert_array_equal(others[1], right[0] - right)


def test_evaluation_draws_on_request(trained, tmp_path):
    for folder, options in (('plain', {}), ('drawn', {'summarize_images': True})):
        evaluate(eval_config(trained.checkpoint_path, eval_dir=str(tmp_path / folder), **options))
    plain, drawn = (summaries(tmp_path / name) for name in ('plain', 'drawn'))
    assert set(drawn) - set(plain) == {
        'confusion_matrix',
        *(f'galleries/{name}' for name in GALLERIES),
        *(f'precision_recall/class_{i}/pr_curves' for i in range(10)),
    }
    assert drawn['accuracy'] == plain['accuracy']
    assert set(drawn['confusion_matrix']) == {300}


# --------------------------------------------------------------------------------------------- options of runs


def options_of(folder: Path) -> list[dict[str, object]]:
    """Returns the options in a folder's event files, once for each start of the run."""
    found = []
    for path in sorted(folder.glob('events.out.tfevents.*')):
        for record in tf.data.TFRecordDataset(str(path)):
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value:
                if value.metadata.plugin_data.plugin_name == 'hparams':
                    content = plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)
                    hparams = content.session_start_info.hparams
                    found.append({name: getattr(each, each.WhichOneof('kind')) for name, each in hparams.items()})
    return found


def test_options_of_a_run_are_in_its_event_file(train_digits, tmp_path):
    train_digits(tmp_path, **{**SHORT, 'max_number_of_steps': 2}, random_flip=False)
    (options,) = options_of(tmp_path)
    assert options == {
        'model_name': 'lenet',
        'depth_multiplier': 0.25,
        'train_image_size': 8,
        'weight_decay': 4e-05,
        'dataset_name': 'digits',
        'batch_size': 32,
        'seed': 0,
        'random_flip': False,
        'optimizer': 'momentum',
        'learning_rate_decay_type': 'exponential',
        'learning_rate': 0.03,
        'max_number_of_steps': 2,
    }


def test_options_that_do_not_change_results_are_not_compared() -> None:
    config = make_config(
        TrainConfig,
        train_dir='/a',
        dataset_dir='/b',
        log_every_n_steps=7,
        devices='cpu',
        checkpoint_path='/c',
        learning_rate_boundaries=(1.0, 2.5),
    )
    compared = compared_options(config)
    assert not {'train_dir', 'dataset_dir', 'log_every_n_steps', 'devices'} & set(compared)
    assert compared['checkpoint_path'] == '/c'
    assert compared['learning_rate_boundaries'] == '1.0,2.5'


# ------------------------------------------------------------------------------------------------ the profiler


def traces(folder: Path) -> list[Path]:
    return sorted(folder.glob('plugins/profile/*/*.xplane.pb'))


@pytest.mark.parametrize(
    'text', ['', '10', '10:', ':20', '0:3', '5:4', 'a:b', '1:2:3', '-1:2', '１:２', '1' * 30 + ':2']
)
def test_steps_to_profile_are_a_range(text: str) -> None:
    with pytest.raises(InputError, match=f'^--profile_steps={text}: must be the first and the last step to trace'):
        LogOptions(profile_steps=text)


def test_steps_are_traced_once(train_digits, tmp_path, caplog):
    with caplog.at_level('INFO', logger='absl'):
        train_digits(tmp_path, max_number_of_steps=4, profile_steps='3:4')
        (trace,) = traces(tmp_path)
        assert b'train' in trace.read_bytes()
        assert 'traced from step 3' in caplog.text
        train_digits(tmp_path, max_number_of_steps=6, profile_steps='3:4')
    assert '--profile_steps=3:4 traces nothing: training goes from step 4 to 6' in caplog.text
    train_digits(tmp_path, num_epochs=8 * 32 / 1437, profile_steps='9:9')
    assert 'training goes from step 6 to 8' in caplog.text
    assert traces(tmp_path) == [trace]


@pytest.mark.full
@pytest.mark.parametrize('steps', ['1:1', '2:9', '1:100'])
def test_a_trace_changes_no_bit(train_digits, tmp_path, steps):
    """Nor does one that the end of training cuts short."""
    traced = train_digits(tmp_path / 'traced', max_number_of_steps=9, profile_steps=steps)
    alone = train_digits(tmp_path / 'alone', max_number_of_steps=9)
    assert_same_values(traced.checkpoint_path, alone.checkpoint_path)
    assert len(traces(tmp_path / 'traced')) == 1


@pytest.mark.full
def test_a_trace_that_cannot_be_written_does_not_end_training(train_digits, tmp_path, caplog):
    (tmp_path / 'plugins').write_text('a file')
    assert train_digits(tmp_path, max_number_of_steps=3, profile_steps='2:2').step == 3
    assert '--profile_steps: the trace is not written: ' in caplog.text


@pytest.mark.full
def test_another_profiler_is_one_line_and_an_error_leaves_none(train_digits, tmp_path):
    tf.profiler.experimental.start(str(tmp_path / 'mine'))
    with pytest.raises(InputError, match=r'^--profile_steps: the profiler does not start: A'):
        train_digits(tmp_path / 'run', max_number_of_steps=3, profile_steps='1:2')
    tf.profiler.experimental.stop(save=False)
    with pytest.raises(Exception, match='not finite'):
        train_digits(tmp_path / 'nan', max_number_of_steps=9, profile_steps='1:9', learning_rate=1e30)
    tf.profiler.experimental.start(str(tmp_path / 'mine'))  # would fail if one were left
    tf.profiler.experimental.stop(save=False)
