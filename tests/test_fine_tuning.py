"""Fine-tuning: what becomes of every variable, heads of other sizes, slim's two steps, what frozen layers cost."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from engine import checkpoints
from engine.distributed.cluster import SINGLE_PROCESS
from engine.training.setup import open_run
from support.errors import InputError
from tests.runs import STILL, assert_same_values, saved_values, small_config, weights_of


def write(folder: Path, values: dict[str, Any]) -> str:
    return checkpoints.save(str(folder), 1, {name: tf.constant(value) for name, value in values.items()}, 5)


# ------------------------------------------------------------------------ what becomes of every variable


def variables(**shapes: list[int]) -> dict[str, tf.Variable]:
    return {f'net/{name.replace("_", "/")}': tf.Variable(tf.ones(shape)) for name, shape in shapes.items()}


NET = {'conv_weights': [3, 3, 1, 4], 'conv_biases': [4], 'fc_weights': [4, 10], 'fc_biases': [10]}
STATE = {'net/conv/weights/Momentum': np.zeros([3, 3, 1, 4], np.float32), 'global_step': np.int64(7)}


def checkpoint_of(folder: Path, **shapes: list[int]) -> str:
    return write(folder, {**{name: np.zeros(v.shape, np.float32) for name, v in variables(**shapes).items()}, **STATE})


def test_the_table_says_what_becomes_of_every_variable(tmp_path, caplog):
    net = variables(stem_weights=[2], old_weights=[2], **NET)
    shapes = {**NET, 'old_weights': [2], 'gone_weights': [6, 6], 'fc_weights': [4, 1001], 'fc_biases': [1001]}
    prefix = checkpoint_of(tmp_path, **shapes)
    caplog.set_level('INFO', logger='absl')
    checkpoints.warm_start(prefix, net, ['net/ol', 'net/x'], ignore_missing=True)
    title, *rows = caplog.messages[0].splitlines()
    assert title == f'fine-tuning from {prefix}: 1 missing, 1 excluded, 2 restored, 2 shape differs, 1 unused'
    assert [re.split(' {2,}', row.strip()) for row in rows] == [
        ['variable', 'in the net', 'in the checkpoint', 'state', 'because of, or allowed by'],
        ['net/stem/weights', '2', 'missing', 'missing', '--ignore_missing_vars'],
        ['net/old/weights', '2', '2', 'excluded', '--checkpoint_exclude_scopes=net/ol'],
        ['net/conv/weights', '3x3x1x4', '3x3x1x4', 'restored'],
        ['net/conv/biases', '4', '4', 'restored'],
        ['net/fc/weights', '4x10', '4x1001', 'shape differs', 'other classes: it keeps its initial value'],
        ['net/fc/biases', '10', '1001', 'shape differs', 'other classes: it keeps its initial value'],
        ['net/gone/weights', 'missing', '6x6', 'unused'],
        ['training state: global_step, Momentum', 'unused', 'weights alone are taken'],
    ]
    assert caplog.messages[1:] == [
        f'net/stem/weights is not in {prefix} and keeps its initial value',
        f'net/fc/weights is 4x10 in the net and 4x1001 in {prefix}: it keeps its initial value',
        f'net/fc/biases is 10 in the net and 1001 in {prefix}: it keeps its initial value',
    ]
    restored = {name for name, variable in net.items() if not variable.numpy().any()}
    assert restored == {'net/conv/weights', 'net/conv/biases'}


def test_training_state_is_one_line(trained, train_digits, tmp_path, caplog):
    caplog.set_level('INFO', logger='absl')
    train_digits(tmp_path, checkpoint_path=trained.checkpoint_path, **STILL)
    (line,) = [line for line in caplog.text.splitlines() if 'training state' in line]
    assert 'training state: 8 ExponentialMovingAverage, 8 Momentum, global_step, images_seen' in line
    assert 'LeNet/conv1/weights/Momentum' not in caplog.text


@pytest.mark.parametrize(
    ('shapes', 'flags'),
    [
        (
            {'conv_weights': [5, 5, 1, 4]},
            'leave out what has another shape with --checkpoint_exclude_scopes=net/conv/w',
        ),
        ({'fc_weights': [8, 10]}, 'leave out what has another shape with --checkpoint_exclude_scopes=net/fc/weights'),
        # Other classes, but of other features too: no head of another size.
        ({'fc_weights': [8, 7], 'fc_biases': [7]}, '--checkpoint_exclude_scopes=net/fc/weights,net/fc/biases'),
        ({'conv_biases': None}, 'To go on, let what is missing keep its initial value with --ignore_missing_vars'),
        ({'conv_biases': None, 'conv_weights': [1]}, '=net/conv/weights, and let what is missing keep its initial'),
    ],
)
def test_what_does_not_fit_is_answered_with_the_flag_that_allows_it(tmp_path, shapes, flags):
    kept = {name: shape for name, shape in {**NET, **shapes}.items() if shape is not None}
    prefix = checkpoint_of(tmp_path, **kept)
    net = variables(**NET)
    with pytest.raises(InputError, match=f'does not fit the net; what differs:\n(.*\n)*.*{re.escape(flags)}'):
        checkpoints.warm_start(prefix, net, [], ignore_missing=False)
    if None not in shapes.values():  # what has another shape is never taken for missing
        with pytest.raises(InputError, match='does not fit the net'):
            checkpoints.warm_start(prefix, net, [], ignore_missing=True)
    assert all(variable.numpy().all() for variable in net.values())
    named = [name for name, shape in shapes.items() if shape is not None]
    scopes = [f'net/{name.replace("_", "/")}' for name in named]
    checkpoints.warm_start(prefix, net, scopes, ignore_missing=None in shapes.values())


@pytest.mark.parametrize(('classes', 'labels_offset', 'fits'), [(1001, 1, 0), (1000, 0, 1), (7, 0, None)])
def test_a_head_that_another_labels_offset_would_fit(tmp_path, caplog, classes, labels_offset, fits):
    prefix = checkpoint_of(tmp_path, **{**NET, 'fc_weights': [4, classes], 'fc_biases': [classes]})
    ours = 1001 - labels_offset
    net = variables(**{**NET, 'fc_weights': [4, ours], 'fc_biases': [ours]})
    checkpoints.warm_start(prefix, net, [], ignore_missing=False, labels_offset=labels_offset)
    message = f'with --labels_offset={fits} instead of {labels_offset} its last layer would fit'
    assert (message in caplog.text) == (fits is not None)
    assert ('would fit' in caplog.text) == (fits is not None)


# ------------------------------------------------------------------------ in training


def test_a_prefix_of_all_names_is_left_away(trained, train_digits, tmp_path):
    values = weights_of(trained.checkpoint_path)
    prefix = write(tmp_path / 'tower', {f'tower_0/{name}': value for name, value in values.items()})
    with pytest.raises(
        InputError, match='its names begin with tower_0/: give --checkpoint_scope=tower_0; what differs'
    ):
        train_digits(tmp_path / 'run', checkpoint_path=prefix, **STILL)
    tuned = train_digits(tmp_path / 'run', checkpoint_path=prefix, checkpoint_scope='tower_0', **STILL)
    for name, value in weights_of(tuned.checkpoint_path).items():
        np.testing.assert_array_equal(value, values[name], err_msg=name)


def test_slims_two_steps(trained, train_digits, tmp_path):
    """The new head with the rest frozen, then everything from there."""
    head = ('LeNet/fc4',)
    first = train_digits(
        tmp_path / 'head',
        checkpoint_path=trained.checkpoint_path,
        checkpoint_exclude_scopes=head,
        trainable_scopes=head,
        max_number_of_steps=3,
    )
    start, middle = weights_of(trained.checkpoint_path), weights_of(first.checkpoint_path)
    assert {name for name in start if not np.array_equal(start[name], middle[name])} == {
        'LeNet/fc4/weights',
        'LeNet/fc4/biases',
    }
    second = train_digits(tmp_path / 'all', checkpoint_path=str(tmp_path / 'head'), **STILL)
    np.testing.assert_equal(weights_of(second.checkpoint_path), middle)
    third = weights_of(
        train_digits(tmp_path / 'on', checkpoint_path=str(tmp_path / 'head'), max_number_of_steps=2).checkpoint_path
    )
    assert not [name for name in middle if np.array_equal(third[name], middle[name])]


# ------------------------------------------------------------------------ what frozen layers cost


@pytest.mark.parametrize(
    ('optimizer', 'slots'), [('sgd', 0), ('momentum', 1), ('rmsprop', 2), ('adam', 2), ('adadelta', 2)]
)
def test_frozen_layers_have_no_slots(digits_dir, optimizer, slots):
    config = small_config(digits_dir, '', optimizer=optimizer, trainable_scopes=('LeNet/fc4',))
    state = open_run(config, SINGLE_PROCESS).state
    assert set(state.trainable) == {'LeNet/fc4/weights', 'LeNet/fc4/biases'}
    kept = {name for name in state.optimizer.slots if '/' in name}
    assert len(kept) == 2 * slots
    assert all(name.startswith('LeNet/fc4/') for name in kept)
    numbers = sum(int(np.prod(slot.shape)) for name, slot in state.optimizer.slots.items() if '/' in name)
    assert numbers == slots * (256 * 10 + 10)


@pytest.fixture
def backward(monkeypatch):
    """Collects, each time that a gradient is built, of how many variables it is, and the operations that compute it."""
    built: list[tuple[int, Counter[str]]] = []
    gradient = tf.GradientTape.gradient

    def note(tape, target, sources, *arguments, **options):
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        result = gradient(tape, target, sources, *arguments, **options)
        built.append((len(sources), Counter(operation.type for operation in graph.get_operations()[before:])))
        return result

    monkeypatch.setattr(tf.GradientTape, 'gradient', note)
    return built


@pytest.mark.quick('scopes2-4-0')
@pytest.mark.parametrize(
    ('scopes', 'number', 'convolutions'),
    [
        ((), 8, 2),
        (('LeNet/fc4',), 2, 0),
        (('LeNet/fc3', 'LeNet/fc4'), 4, 0),
        (('LeNet/conv2',), 2, 1),  # nothing goes back below conv2
    ],
)
def test_frozen_layers_have_no_gradients(train_digits, backward, tmp_path, scopes, number, convolutions):
    """Lenet pools after each of its two convolutions."""
    train_digits(tmp_path, max_number_of_steps=1, trainable_scopes=scopes)
    assert backward
    for sources, operations in backward:
        assert sources == number
        assert (operations['Conv2DBackpropFilter'], operations['MaxPoolGrad']) == (convolutions, convolutions)


# ------------------------------------------------------------------------ batch normalisation of frozen layers

NORMALIZED = {
    'model_name': 'alexnet_bn',
    'train_image_size': 67,
    'depth_multiplier': 1 / 16,
    'batch_size': 8,
    'trainable_scopes': ('alexnet_bn/bn2', 'alexnet_bn/fc8'),
    'moving_average_decay': 0.5,
}
STATISTICS = {f'alexnet_bn/{layer}/moving_{kind}' for layer in ('bn1', 'bn2') for kind in ('mean', 'variance')}


@pytest.mark.full
@pytest.mark.parametrize('freeze', [False, True])
def test_statistics_of_frozen_layers_move_as_in_slim_unless_they_are_frozen_too(train_digits, tmp_path, caplog, freeze):
    start = saved_values(
        train_digits(tmp_path / 'start', max_number_of_steps=1, learning_rate=0.0, **NORMALIZED).checkpoint_path
    )
    with caplog.at_level('INFO', logger='absl'):
        trained = train_digits(tmp_path / 'run', max_number_of_steps=2, freeze_batch_norm=freeze, checkpoint_path=str(
            tmp_path / 'start'), **NORMALIZED)  # fmt: skip
    end = weights_of(trained.checkpoint_path)
    moved = {name for name, value in end.items() if not np.array_equal(value, start[name])}
    kept = {name for name in STATISTICS if '/bn1/' in name} if freeze else set()
    assert moved & STATISTICS == STATISTICS - kept
    assert {name.split('/')[1] for name in moved - STATISTICS} == {'bn2', 'fc8'}
    said = 'batch normalisation outside --trainable_scopes keeps updating its moving statistics, as in slim'
    assert (said in caplog.text) != freeze


def test_frozen_batch_normalisation_uses_its_moving_statistics(digits_dir):
    config = small_config(digits_dir, '', dropout_keep_prob=1.0, freeze_batch_norm=True, **{
        **NORMALIZED, 'trainable_scopes': ('alexnet_bn/fc8',)})  # fmt: skip
    state = open_run(config, SINGLE_PROCESS).state
    assert state.moving_statistics == []
    images = tf.random.stateless_uniform([4, 67, 67, 3], [0, 1])
    np.testing.assert_array_equal(state.model(images, training=True), state.model(images, training=False))


@pytest.mark.full
def test_frozen_batch_normalisation_with_replicas_and_a_resume(train_digits, tmp_path):
    options = {**NORMALIZED, 'freeze_batch_norm': True, 'sync_batch_norm': True, 'num_clones': 2}
    whole = train_digits(tmp_path / 'whole', max_number_of_steps=4, **options)
    train_digits(tmp_path / 'parts', max_number_of_steps=2, **options)
    parts = train_digits(tmp_path / 'parts', max_number_of_steps=4, **options)
    assert_same_values(parts.checkpoint_path, whole.checkpoint_path)
    with pytest.raises(InputError, match=r'freeze_batch_norm +True +False'):
        train_digits(tmp_path / 'parts', max_number_of_steps=5, **{**options, 'freeze_batch_norm': False})
