"""Checkpoints: slim's names, TensorFlow's files, and what becomes of them when something goes wrong."""

import contextlib
import os
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from datasets import text_files
from engine import checkpoints, evaluation
from engine.distributed.cluster import SINGLE_PROCESS
from engine.optim.optimizers import OPTIMIZERS
from engine.training.setup import open_run
from engine.training.state import restore_run
from support.errors import InputError, first_line
from tests.runs import DAMAGES, DIGITS_NET, eval_config, files, saved_values, small_config

# ------------------------------------------------------------------------ what is saved

SLOTS = {
    'adadelta': ('Adadelta', 'Adadelta_1'),
    'adagrad': ('Adagrad',),
    'adam': ('Adam', 'Adam_1'),
    'ftrl': ('Ftrl', 'Ftrl_1'),
    'lamb': ('LAMB', 'LAMB_1'),
    'lars': ('LARS',),
    'momentum': ('Momentum',),
    'rmsprop': ('RMSProp', 'RMSProp_1'),
    'sgd': (),
}
POWERS = {name: {'beta1_power', 'beta2_power'} for name in ('adam', 'lamb')}
LENET = [f'LeNet/{layer}/{kind}' for layer in ('conv1', 'conv2', 'fc3', 'fc4') for kind in ('weights', 'biases')]


def test_every_optimizer_has_its_slots_here():
    assert set(SLOTS) == set(OPTIMIZERS)


@pytest.mark.parametrize('averaged', [False, True])
@pytest.mark.parametrize('optimizer', SLOTS)
def test_names_are_slims(digits_dir, optimizer, averaged):
    config = small_config(digits_dir, '', optimizer=optimizer, moving_average_decay=0.9 if averaged else None)
    state = open_run(config, SINGLE_PROCESS).state
    kinds = ['', *(f'/{slot}' for slot in SLOTS[optimizer]), *(['/ExponentialMovingAverage'] if averaged else [])]
    expected = {name + kind for name in LENET for kind in kinds} | POWERS.get(optimizer, set())
    assert set(state.saved_variables()) == expected
    assert {name for name in expected if not checkpoints.is_training_state(name)} == set(LENET)


def test_a_saved_run_holds_these_and_two_counters(trained):
    values = saved_values(trained.checkpoint_path)
    kinds = ('', '/Momentum', '/ExponentialMovingAverage')
    assert set(values) == {name + kind for name in LENET for kind in kinds} | {'global_step', 'images_seen'}
    assert {name: value.dtype for name, value in values.items() if value.dtype != np.float32} == {
        'global_step': np.int64,
        'images_seen': np.int64,
    }
    assert [int(values[name]) for name in ('global_step', 'images_seen')] == [300, 300 * 32]


SLIM_RUN = {
    'dataset_name': 'cifar10',
    'model_name': 'cifarnet',
    'train_image_size': None,
    'depth_multiplier': 1.0,
    'batch_size': 64,
    'learning_rate': 0.01,
    'learning_rate_decay_type': 'fixed',
    'moving_average_decay': 0.99,
}


def test_a_run_of_slims_goes_on_here(shared_path, train_digits, tmp_path):
    """All that slim saved finds its place, and only what slim does not have is added."""
    slims = shared_path('goldens/checkpoints/cifarnet_cifar10')
    train_dir = tmp_path / 'run'
    train_dir.mkdir()
    for path in slims.iterdir():
        shutil.copyfile(path, train_dir / path.name)
    options = {**SLIM_RUN, 'dataset_dir': str(shared_path('data/cifar10'))}
    result = train_digits(train_dir, max_number_of_steps=3602, **options)
    assert result.step == 3602
    before, after = (saved_values(str(train_dir / f'model.ckpt-{step}')) for step in (3600, 3602))
    assert set(after) == {*before, 'images_seen'}
    assert after['images_seen'] == 3602 * 64
    for name, value in before.items():
        assert (after[name].shape, after[name].dtype) == (value.shape, value.dtype), name
        change = np.abs(after[name] - value).max()
        assert change > 0, name
        if name.endswith('weights'):
            assert change < 0.05, name


# What TensorFlow 1 calls them, with the arguments that it asks for.
TENSORFLOW_1 = {
    'adadelta': lambda v1: v1.AdadeltaOptimizer(0.01),
    'adagrad': lambda v1: v1.AdagradOptimizer(0.01),
    'adam': lambda v1: v1.AdamOptimizer(0.01),
    'ftrl': lambda v1: v1.FtrlOptimizer(0.01),
    'momentum': lambda v1: v1.MomentumOptimizer(0.01, 0.9),
    'rmsprop': lambda v1: v1.RMSPropOptimizer(0.01, momentum=0.9),
    'sgd': lambda v1: v1.GradientDescentOptimizer(0.01),
}


@pytest.fixture
def run_of_slims(trained, tmp_path):
    """Returns a function that trains a step with an optimizer of TensorFlow 1, and saves it as slim does."""
    weights = {name: value for name, value in saved_values(trained.checkpoint_path).items() if name in LENET}

    def train(optimizer: str) -> Path:
        v1 = tf.compat.v1.train
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            step = v1.create_global_step()
            variables = [tf.compat.v1.get_variable(name, initializer=value) for name, value in weights.items()]
            gradients = [(tf.fill(variable.shape, 0.5), variable) for variable in variables]
            updated = TENSORFLOW_1[optimizer](v1).apply_gradients(gradients, step)
            with tf.control_dependencies([updated]):
                averaged = v1.ExponentialMovingAverage(0.9, step).apply(variables)
            session.run(tf.compat.v1.global_variables_initializer())
            session.run(averaged)
            v1.Saver().save(session, str(tmp_path / 'slims' / 'model.ckpt'), step)
        return tmp_path / 'slims'

    return train


def state_of(digits_dir: Path, train_dir: Path, **options):
    """Returns the state of a run before it resumes."""
    return open_run(small_config(digits_dir, train_dir, **options), SINGLE_PROCESS).state


@pytest.mark.quick('rmsprop', 'momentum')
@pytest.mark.parametrize('optimizer', TENSORFLOW_1)
def test_every_optimizer_of_tensorflow_1_goes_on(run_of_slims, digits_dir, optimizer):
    assert set(TENSORFLOW_1) == set(OPTIMIZERS) - {'lars', 'lamb'}
    train_dir = run_of_slims(optimizer)
    state = state_of(digits_dir, train_dir, optimizer=optimizer, moving_average_decay=0.9)
    restore_run(checkpoints.Checkpoint(str(train_dir / 'model.ckpt-1')), state, labels_offset=0)
    values = saved_values(str(train_dir / 'model.ckpt-1'))
    assert values.pop('global_step') == 1
    restored = state.saved_variables()
    assert set(restored) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(restored[name].numpy(), value, err_msg=name)


@pytest.mark.parametrize(
    ('before', 'options', 'message'),
    [
        ('momentum', {'optimizer': 'rmsprop'}, 'it has the slots of --optimizer=momentum, not of rmsprop; resume with'),
        ('adam', {'optimizer': 'momentum'}, 'it has the slots of --optimizer=adam, not of momentum; resume with'),
        ('sgd', {'optimizer': 'adam'}, 'it lacks the slots of --optimizer=adam; resume with --optimizer=sgd, which'),
    ],
)
def test_a_run_does_not_go_on_with_another_optimizer(run_of_slims, digits_dir, before, options, message):
    train_dir = run_of_slims(before)
    prefix = str(train_dir / 'model.ckpt-1')
    state = state_of(digits_dir, train_dir, **options)
    with pytest.raises(InputError, match=re.escape(f'{prefix} cannot be resumed: {message}')) as error:
        restore_run(checkpoints.Checkpoint(prefix), state, labels_offset=0)
    assert str(error.value).endswith(
        f', or start a new run from its weights in another --train_dir: --checkpoint_path={prefix}'
    )
    assert len(str(error.value).splitlines()) == 1


def test_a_run_whose_scopes_were_fewer_does_not_go_on(train_digits, digits_dir, tmp_path):
    latest = train_digits(tmp_path, max_number_of_steps=1, trainable_scopes=('LeNet/fc4',)).checkpoint_path
    state = state_of(digits_dir, tmp_path)
    with pytest.raises(InputError, match='it lacks slots of --optimizer=momentum: 6 Momentum; give the --trainable_s'):
        restore_run(checkpoints.Checkpoint(latest), state, labels_offset=0)


def test_averages_that_a_run_has_not_kept(run_of_slims, train_digits, digits_dir, tmp_path):
    latest = train_digits(tmp_path / 'run', max_number_of_steps=1).checkpoint_path
    state = state_of(digits_dir, tmp_path / 'run', moving_average_decay=0.9)
    with pytest.raises(InputError, match='has no moving averages, which --moving_average_decay asks for: leave it out'):
        restore_run(checkpoints.Checkpoint(latest), state, labels_offset=0)


@pytest.mark.parametrize(
    ('options', 'left'),
    [
        ({'optimizer': 'sgd'}, '8 ExponentialMovingAverage, 8 Momentum'),
        ({'optimizer': 'momentum'}, '8 ExponentialMovingAverage'),
        ({'optimizer': 'momentum', 'moving_average_decay': 0.5}, None),
    ],
)
def test_what_a_run_does_not_go_on_with_is_named(run_of_slims, digits_dir, caplog, options, left):
    train_dir = run_of_slims('momentum')
    state = state_of(digits_dir, train_dir, **options)
    restore_run(checkpoints.Checkpoint(str(train_dir / 'model.ckpt-1')), state, labels_offset=0)
    message = f'has more than this run goes on with, and later checkpoints will not: {left}. That is for another'
    assert (message in caplog.text) == (left is not None)
    assert ('has more than' in caplog.text) == (left is not None)


# ------------------------------------------------------------------------ files

SUFFIXES = {'.index', '.data-00000-of-00001'}


def save(folder: Path | str, step: int, keep: int = 5, size: int = 3) -> str:
    values = {'net/weights': tf.fill([size], tf.constant(step, tf.float32)), 'global_step': np.int64(step)}
    return checkpoints.save(str(folder), step, values, keep)


def steps_of(folder: Path | str) -> list[int]:
    return [checkpoints.checkpoint_step(prefix) for prefix in checkpoints.list_checkpoints(str(folder))]


@pytest.mark.parametrize(
    ('steps', 'keep', 'kept', 'latest'),
    [
        ([1], 5, [1], 1),
        ([1, 2, 3, 4, 5, 6, 7], 5, [3, 4, 5, 6, 7], 7),
        ([8, 9, 10, 11], 2, [10, 11], 11),
        ([1, 2, 3], 1, [3], 3),
        ([1, 2, 3, 4, 5, 6, 7], 0, [1, 2, 3, 4, 5, 6, 7], 7),
        ([5, 5], 1, [5], 5),
        ([10, 20, 15], 2, [15, 20], 15),  # someone went back to an earlier one
        ([10, 20, 5], 1, [5], 5),
    ],
)
def test_rotation(tmp_path, steps, keep, kept, latest):
    for step in steps:
        assert save(tmp_path, step, keep) == str(tmp_path / f'model.ckpt-{step}')
    assert steps_of(tmp_path) == kept
    assert {path.name for path in tmp_path.iterdir()} == {
        'checkpoint',
        *(f'model.ckpt-{step}{suffix}' for step in kept for suffix in SUFFIXES),
    }
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / f'model.ckpt-{latest}')
    state = tf.train.get_checkpoint_state(str(tmp_path))
    assert {Path(path).name for path in state.all_model_checkpoint_paths} == {f'model.ckpt-{step}' for step in kept}


def test_checkpoint_file_is_relative(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    names = [line for line in (tmp_path / 'checkpoint').read_text().splitlines() if 'time' not in line]
    assert names == [
        'model_checkpoint_path: "model.ckpt-2"',
        'all_model_checkpoint_paths: "model.ckpt-1"',
        'all_model_checkpoint_paths: "model.ckpt-2"',
    ]


def restored(prefix: str, size: int = 3) -> float:
    """Restores what `save` has written; returns the step that its values stand for."""
    variable = tf.Variable(tf.zeros([size]))
    checkpoints.restore(checkpoints.Checkpoint(prefix), {'net/weights': variable})
    values = set(variable.numpy())
    assert len(values) == 1
    return values.pop()


def test_a_run_may_be_moved(tmp_path):
    save(tmp_path / 'here', 1)
    shutil.move(tmp_path / 'here', tmp_path / 'there')
    latest = checkpoints.latest_checkpoint(str(tmp_path / 'there'))
    assert latest == tf.train.latest_checkpoint(str(tmp_path / 'there')) == str(tmp_path / 'there' / 'model.ckpt-1')
    assert restored(latest) == 1


@pytest.mark.parametrize(
    ('text', 'latest'),
    [
        (None, 100),
        ('', 100),
        ('model_checkpoint_path: ""\n', 100),
        ('not a checkpoint file', 100),
        ('model_checkpoint_path: "model.ckpt-99"\n', 100),
        ('model_checkpoint_path: "model.ckpt-3"\n', 3),
    ],
    ids=['missing', 'empty', 'no path', 'garbage', 'deleted', 'an earlier one'],
)
def test_without_a_usable_checkpoint_file_the_last_step_is_the_latest(tmp_path, text, latest, capfd, caplog):
    for step in (3, 20, 100):
        save(tmp_path, step)
    (tmp_path / 'checkpoint').unlink()
    if text is not None:
        (tmp_path / 'checkpoint').write_text(text)
    capfd.readouterr(), caplog.clear()
    assert checkpoints.latest_checkpoint(str(tmp_path)) == str(tmp_path / f'model.ckpt-{latest}')
    assert (caplog.text, *capfd.readouterr()) == ('', '', '')


def test_a_copied_run_does_not_lead_back_to_the_original(tmp_path):
    for folder in ('original', 'copy'):
        for step in (3, 20):
            save(tmp_path / folder, step)
    # As slim writes it.
    text = f'model_checkpoint_path: "{tmp_path}/original/model.ckpt-3"\n'
    (tmp_path / 'copy' / 'checkpoint').write_text(text)
    assert checkpoints.latest_checkpoint(str(tmp_path / 'copy')) == str(tmp_path / 'copy' / 'model.ckpt-3')


@pytest.mark.parametrize('name', ['run*', 'run]', 'a b', 'größe', 'run?'])
def test_folders_of_any_name(tmp_path, name):
    folder = tmp_path / name
    for step in (1, 2, 3):
        save(folder, step, keep=2)
    assert steps_of(folder) == [2, 3]
    latest = checkpoints.latest_checkpoint(str(folder))
    assert latest == str(folder / 'model.ckpt-3')
    assert restored(latest) == 3


@pytest.mark.parametrize(
    'name', ['', '/', *(f'/model.ckpt-7{end}' for end in ('', '.index', '.data-00000-of-00001', '.meta'))]
)
def test_a_checkpoint_is_found_by_any_of_its_names_and_its_folder(tmp_path, name):
    prefix = save(tmp_path, 7)
    assert checkpoints.find_checkpoint(f'{tmp_path}{name}') == prefix


@pytest.mark.parametrize('name', ['inception_v3.ckpt', 'model.ckpt-5', 'weights.h5'])
def test_a_checkpoint_of_one_file_is_read(tmp_path, name):
    """As TensorFlow wrote them before 2017, and slim's published nets come; the content says so, not the name."""
    path = str(tmp_path / name)
    tf.raw_ops.Save(filename=path, tensor_names=['net/weights'], data=[tf.fill([3], 5.0)])
    assert checkpoints.find_checkpoint(path) == path
    assert checkpoints.recognise(path) is checkpoints.Format.TENSORFLOW_V1
    assert restored(path) == 5


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('empty', 'no checkpoint in this folder'),
        ('full/model.ckpt-8', r'no such checkpoint; \S+/full holds model.ckpt-7'),
        ('empty/model.ckpt-8', 'no such checkpoint; .* holds none'),
        ('nowhere', r'no such checkpoint'),
        ('nowhere/model.ckpt-1', r'no such file; its folder \S+/nowhere does not exist'),
    ],
)
def test_a_checkpoint_that_is_not_there(tmp_path, path, message):
    (tmp_path / 'empty').mkdir()
    save(tmp_path / 'full', 7)
    with pytest.raises(InputError, match=f'--checkpoint_path={tmp_path / path}: {message}'):
        checkpoints.find_checkpoint(str(tmp_path / path))


@pytest.mark.parametrize(
    ('prefix', 'step'), [('a/model.ckpt-12', 12), ('model.ckpt', -1), ('a-3/inception_v3.ckpt', -1)]
)
def test_step_in_a_name(prefix, step):
    assert checkpoints.checkpoint_step(prefix) == step


# ------------------------------------------------------------------------ checkpoints that are damaged, or others


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_named_and_changes_nothing(tmp_path, damage):
    prefix = save(tmp_path, 7, size=1000)
    DAMAGES[damage](prefix)
    variable = tf.Variable(tf.zeros([1000]))
    with pytest.raises(checkpoints.DamagedCheckpointError) as error:
        checkpoints.restore(checkpoints.Checkpoint(prefix), {'net/weights': variable})
    message = str(error.value)
    assert message.startswith(f'{prefix}: ')
    assert re.search('truncated or damaged|not a checkpoint that can be read', message)
    assert len(message.splitlines()) == 1
    assert not variable.numpy().any()


@pytest.mark.parametrize('damage', ['data cut', 'index cut'])
def test_nothing_goes_on_from_a_damaged_checkpoint(trained, train_digits, tmp_path, caplog, damage):
    train_dir = Path(shutil.copytree(Path(trained.checkpoint_path).parent, tmp_path / 'run'))
    DAMAGES[damage](f'{train_dir}/model.ckpt-300')
    before = files(train_dir)
    with pytest.raises(InputError, match='none of its 1 checkpoints can be read'):
        train_digits(train_dir, max_number_of_steps=400, moving_average_decay=0.9)
    assert re.search(r'model\.ckpt-300: (truncated|not a checkpoint that can be read)', caplog.text)
    with pytest.raises(InputError, match=r'model\.ckpt-300: (truncated|not a checkpoint that can be read)'):
        evaluation.evaluate(eval_config(train_dir, eval_dir=str(tmp_path / 'eval')))
    assert files(train_dir) == before


def test_a_checkpoint_of_another_net_is_answered_with_a_table(tmp_path):
    prefix = checkpoints.save(
        str(tmp_path),
        1,
        {
            'net/weights': tf.zeros([5, 5, 3, 8]),
            'net/scalar': tf.zeros([]),
            'net/extra': tf.zeros([2]),
            'net/weights/Momentum': tf.zeros([5, 5, 3, 8]),
            'global_step': tf.constant(1, tf.int64),
        },
        5,
    )
    wanted = {
        'net/weights': tf.Variable(tf.ones([5, 5, 1, 8])),
        'net/scalar': tf.Variable(tf.ones([])),
        'net/biases': tf.Variable(tf.ones([8])),
    }
    with pytest.raises(InputError) as error:
        checkpoints.restore(checkpoints.Checkpoint(prefix), wanted)
    assert str(error.value) == (
        f'{prefix} is not of this net or run; what differs:\n'
        '  variable     in the net  in the checkpoint\n'
        '  net/weights  5x5x1x8     5x5x3x8\n'
        '  net/biases   8           missing\n'
        '  net/extra    missing     2'
    )
    assert all(variable.numpy().all() for variable in wanted.values())


@pytest.mark.parametrize('dtype', [tf.float64, tf.float16, tf.bfloat16, tf.int32])
def test_numbers_of_another_kind_are_converted(tmp_path, dtype):
    prefix = checkpoints.save(str(tmp_path), 1, {'net/weights': tf.cast(tf.constant([1, 2, 3]), dtype)}, 5)
    for restore in (
        lambda variable: checkpoints.restore(checkpoints.Checkpoint(prefix), {'net/weights': variable}),
        lambda variable: checkpoints.warm_start(prefix, {'net/weights': variable}, [], ignore_missing=False),
    ):
        variable = tf.Variable(tf.zeros([3]))
        restore(variable)
        assert list(variable.numpy()) == [1, 2, 3]


def test_words_are_no_weights(tmp_path):
    prefix = checkpoints.save(str(tmp_path), 1, {'net/weights': tf.constant(['a', 'b', 'c'])}, 5)
    with pytest.raises(InputError, match=f'{prefix}: net/weights holds object, not numbers'):
        checkpoints.restore(checkpoints.Checkpoint(prefix), {'net/weights': tf.Variable(tf.zeros([3]))})


def test_unused_names_are_allowed(tmp_path):
    prefix = checkpoints.save(str(tmp_path), 1, {'a': tf.ones([2]), 'b': tf.ones([2])}, 5)
    variable = tf.Variable([0.0, 0.0])
    checkpoints.restore(checkpoints.Checkpoint(prefix), {'a': variable}, unused=['b', 'c'])
    assert variable.numpy().all()
    with pytest.raises(InputError, match=r'  b +missing +2'):
        checkpoints.restore(checkpoints.Checkpoint(prefix), {'a': variable})


# ------------------------------------------------------------------------ the number of classes


@pytest.fixture
def of_classes(trained, tmp_path):
    """Returns a function that writes the trained net, cut to some classes, as slim leaves it: without model.json."""

    def write(classes: int) -> str:
        values = saved_values(trained.checkpoint_path)
        heads = [name for name in values if name.startswith('LeNet/fc4/')]
        cut_values = {name: value[..., :classes] if name in heads else value for name, value in values.items()}
        return checkpoints.save(str(tmp_path / 'slims'), 300, {**cut_values, 'global_step': np.int64(300)}, 5)

    return write


@pytest.mark.parametrize('averaged', [False, True])
@pytest.mark.parametrize(
    ('classes', 'labels_offset', 'message'),
    [
        (10, 1, 'has 9; its labels less --labels_offset=1 count here: give --labels_offset=0'),
        (9, 0, 'has 10: give --labels_offset=1'),
        (5, 0, 'has 10: choose another data set, or another --labels_offset'),
    ],
)
def test_labels_offset_is_suggested(of_classes, digits_dir, classes, labels_offset, message, averaged):
    prefix = of_classes(classes)
    options = {'labels_offset': labels_offset, 'moving_average_decay': 0.9 if averaged else None}
    config = eval_config(prefix, dataset_dir=str(digits_dir), **DIGITS_NET, **options)
    with pytest.raises(InputError, match=f'{prefix} has {classes} classes, but digits in {digits_dir} {message}$'):
        evaluation.evaluate(config)


@pytest.mark.parametrize(('classes', 'suggested'), [(9, 1), (5, None)])
def test_labels_offset_is_suggested_when_a_run_goes_on(of_classes, digits_dir, classes, suggested):
    prefix = of_classes(classes)
    state = state_of(digits_dir, Path(prefix).parent, moving_average_decay=0.9)
    message = 'choose the data set' if suggested is None else f'give --labels_offset={suggested}'
    with pytest.raises(
        InputError, match=f'has {classes} classes, and the data set 10 with --labels_offset=0: {message}'
    ):
        restore_run(checkpoints.Checkpoint(prefix), state, labels_offset=0)


# ------------------------------------------------------------------------ saves that fail


def fail(*_, **__):
    raise tf.errors.ResourceExhaustedError(None, None, 'No space left on device')


def failing_after(calls: int, function):
    """Returns the function, which fails after `calls` calls."""
    left = [calls]

    def call(*arguments, **options):
        left[0] -= 1
        return function(*arguments, **options) if left[0] >= 0 else fail()

    return call


@contextlib.contextmanager
def full_disk(monkeypatch, place: str):
    with monkeypatch.context() as patch:
        if place == 'SaveV2':
            patch.setattr(tf.raw_ops, 'SaveV2', fail)
        elif place == 'GFile':
            patch.setattr(tf.io.gfile, 'GFile', fail)
        elif place == 'replace':
            patch.setattr(os, 'replace', fail)
        else:
            patch.setattr(tf.io.gfile, 'rename', failing_after(int(place.removeprefix('rename')), tf.io.gfile.rename))
        yield


@pytest.mark.parametrize('keep', [1, 5])
@pytest.mark.parametrize('place', ['SaveV2', 'rename0', 'rename1', 'replace', 'GFile'])
def test_a_save_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch, place, keep):
    good = save(tmp_path, 1)
    before = files(tmp_path)
    message = f'cannot save {tmp_path}/model.ckpt-2: No space left on device; the last good checkpoint is {good}. Make'
    with full_disk(monkeypatch, place), pytest.raises(InputError, match=re.escape(message)):
        save(tmp_path, 2, keep)
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before
    whole = {f'model.ckpt-2{suffix}' for suffix in SUFFIXES}
    assert set(after) - set(before) in (set(), whole)
    assert checkpoints.latest_checkpoint(str(tmp_path)) == good
    assert restored(good) == 1
    assert restored(save(tmp_path, 2, keep)) == 2  # once there is room


def test_the_first_save_that_fails(tmp_path, monkeypatch):
    with full_disk(monkeypatch, 'SaveV2'), pytest.raises(InputError, match='the last good checkpoint is none'):
        save(tmp_path, 1)
    assert files(tmp_path) == {}


@pytest.mark.parametrize('place', ['replace', 'GFile'])
def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch, place):
    path = tmp_path / 'results.json'
    text_files.write_text(str(path), 'before')
    with full_disk(monkeypatch, place), pytest.raises(tf.errors.ResourceExhaustedError):
        text_files.write_text(str(path), 'after')
    assert {name: content for name, (_, content) in files(tmp_path).items()} == {'results.json': b'before'}


@pytest.mark.parametrize(
    ('error', 'line'),
    [
        (OSError(28, 'No space left on device'), '[Errno 28] No space left on device'),
        (ValueError(''), 'ValueError'),
        (tf.errors.NotFoundError(None, None, '{{node a}} no such file\nmore [Op:B]'), 'no such file'),
        (tf.errors.DataLossError(None, None, 'cut short [Op:RestoreV2] name: '), 'cut short'),
    ],
)
def test_first_line_of_an_error(error, line):
    assert first_line(error) == line


def test_text_is_written_through_links_and_into_pipes(tmp_path):
    target, link, pipe = tmp_path / 'target.json', tmp_path / 'link.json', tmp_path / 'pipe'
    link.symlink_to(target)
    text_files.write_text(str(link), 'text')
    assert link.is_symlink()
    assert target.read_text() == 'text'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    text_files.write_text(str(pipe), 'text')
    assert os.read(reader, 10) == b'text'
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
