"""Replicas, and batches in parts: however many there are, they compute what one device does with the whole batch."""

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from engine.distributed import distribution
from engine.optim import losses
from engine.training import setup
from engine.training.state import TrainState
from engine.training.step import RunSteps
from support.errors import InputError
from tests.runs import SMALL_RUN, checkpoint_files, saved_values

Values: TypeAlias = dict[str, np.ndarray]

# An ulp of float32 is 1.2e-7 of a value. Halves of a batch are summed in another order, of which ten steps make four
# ulps. LARS divides by norms of gradients, and LAMB by the size of each, which makes much of the noise of those near 0.
NOISE = 1e-6
NOISE_OF = {'lars': 4e-6, 'lamb': 2e-5}
# Biases before batch normalisation have gradients that all but cancel; compiled by XLA, one device differs as much.
NOISE_OF_BATCH_NORM = 3e-4


@contextlib.contextmanager
def recorded_states() -> Iterator[list[TrainState]]:
    """Collects the states of the runs that are made inside."""
    make_state, states = setup.make_state, []

    def make(*arguments: Any) -> TrainState:
        states.append(make_state(*arguments))
        return states[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(setup, 'make_state', make)
        yield states


def copies(state: TrainState) -> dict[str, list[np.ndarray]]:
    """Returns the values of each of two replicas, by name."""
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu', num_clones=2))
    return {
        name: [copy.numpy() for copy in strategy.experimental_local_results(variable)]
        for name, variable in state.saved_variables().items()
    }


def assert_alike(state: TrainState) -> None:
    """Checks that both replicas have the same bits."""
    for name, (first, second) in copies(state).items():
        np.testing.assert_array_equal(second, first, err_msg=name)


@pytest.fixture(scope='module')
def run(tmp_path_factory, train_digits) -> Callable[..., Values]:
    """Returns a function that makes each run once, without dropout by default, and returns all that it saves."""

    @functools.cache
    def once(**options: Any) -> Values:
        with recorded_states() as states:
            result = train_digits(tmp_path_factory.mktemp('run'), **options)
        if options['num_clones'] == 2:
            assert_alike(states[0])
        return saved_values(result.checkpoint_path)

    defaults = {**SMALL_RUN, 'batch_size': 32, 'num_clones': 1, 'dropout_keep_prob': 1.0, 'gradient_dtype': 'float32'}
    return lambda **options: once(**dict(sorted({**defaults, **options}.items())))


def assert_near(values: Values, expected: Values, tolerance: float = NOISE) -> None:
    """Checks all values, relative to the largest one of each variable."""
    assert set(values) == set(expected)
    for name, value in values.items():
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=tolerance * largest, err_msg=name)


def norm(values: Values) -> float:
    return float(np.sqrt(sum(np.sum(np.square(value, dtype=np.float64)) for value in values.values())))


def minus(values: Values, others: Values) -> Values:
    return {name: value - others[name] for name, value in values.items()}


def weights_of(values: Values) -> Values:
    return {name: value for name, value in values.items() if name.endswith(('/weights', '/biases'))}


def gradients_of(values: Values) -> Values:
    """Returns the gradients of the one step of a run with momentum: what its slots hold."""
    assert values['global_step'] == 1
    return {name: value for name, value in values.items() if name.endswith('/Momentum')}


# ------------------------------------------------------------------------ as one

LEARNING_RATES = {'sgd': 0.1, 'momentum': 0.03, 'rmsprop': 0.01, 'adam': 0.05, 'lars': 10.0, 'lamb': 0.03}
AUGMENTED = {'preprocessing_name': 'inception', 'train_image_size': 16, 'dropout_keep_prob': 0.5}
EVERYTHING = {
    **AUGMENTED,
    'weight_decay': 0.01,
    'label_smoothing': 0.1,
    'clip_gradient_norm': 0.5,
    'moving_average_decay': 0.9,
}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {'optimizer': name, 'learning_rate': rate} for name, rate in LEARNING_RATES.items()},
    'weight decay': {'weight_decay': 0.01},
    'label smoothing': {'label_smoothing': 0.1},
    'clipping': {'clip_gradient_norm': 0.1},
    'averages': {'moving_average_decay': 0.9},
    'dropout': {'dropout_keep_prob': 0.5},
    'everything': EVERYTHING,
}
TEN_STEPS = {'max_number_of_steps': 10}


@pytest.mark.quick('everything')
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_two_replicas_are_one(run, options):
    one, two = (run(**TEN_STEPS, **options, **devices) for devices in ({}, {'num_clones': 2}))
    assert_near(two, one, NOISE_OF.get(options.get('optimizer', ''), NOISE))


@pytest.mark.quick('2-devices0')
@pytest.mark.parametrize(
    ('parts', 'devices'), [(2, {}), (4, {}), (32, {}), (2, {'num_clones': 2}), (2, {'num_clones': 2, 'xla': 'on'})]
)
def test_parts_are_the_whole(run, parts, devices):
    in_parts = {'batch_size': 32 // parts, 'gradient_accumulation_steps': parts, **devices}
    assert_near(run(**TEN_STEPS, **EVERYTHING, **in_parts), run(**TEN_STEPS, **EVERYTHING))


@pytest.mark.full
def test_a_run_goes_on_with_more_replicas_and_smaller_parts(run, train_digits, tmp_path):
    options = {'optimizer': 'adam', 'learning_rate': 0.05, 'dropout_keep_prob': 1.0}
    train_digits(tmp_path, max_number_of_steps=10, **options)
    more = {'num_clones': 2, 'batch_size': 16, 'gradient_accumulation_steps': 2}
    result = train_digits(tmp_path, max_number_of_steps=20, **options, **more)
    assert_near(saved_values(result.checkpoint_path), run(max_number_of_steps=20, **options))


# ------------------------------------------------------------------------ what is reduced


@pytest.mark.full
@pytest.mark.parametrize(
    'divided',
    [{'num_clones': 2}, {'batch_size': 16, 'gradient_accumulation_steps': 2}],
    ids=['replicas', 'parts'],
)
def test_the_sum_of_the_gradients_is_clipped(run, divided):
    whole, first = (gradients_of(run(max_number_of_steps=1, batch_size=size)) for size in (32, 16))
    first = {name: value / 2 for name, value in first.items()}  # a share of the mean over the whole batch
    second = minus(whole, first)
    limit = norm(whole) / 3

    def clipped(values: Values) -> Values:
        assert norm(values) > limit
        return {name: value * (limit / norm(values)) for name, value in values.items()}

    actual = gradients_of(run(max_number_of_steps=1, clip_gradient_norm=limit, **divided))
    assert_near(actual, clipped(whole))
    one_by_one = {name: value + clipped(second)[name] for name, value in clipped(first).items()}
    assert norm(minus(actual, one_by_one)) > 0.1 * limit


@pytest.mark.full
def test_bfloat16_rounds_what_travels(run):
    whole = gradients_of(run(max_number_of_steps=1))
    rounded = gradients_of(run(max_number_of_steps=1, num_clones=2, gradient_dtype='bfloat16'))
    assert 2**-12 < norm(minus(rounded, whole)) / norm(whole) < 2**-8  # half an ulp is 2**-9 of a value
    values, expected = (
        weights_of(run(**TEN_STEPS, num_clones=2, gradient_dtype=dtype)) for dtype in ('bfloat16', 'float32')
    )
    assert 0 < norm(minus(values, expected)) / norm(expected) < 1e-2


@pytest.mark.full
def test_nothing_is_rounded_where_nothing_travels(run):
    assert_near(run(**TEN_STEPS, gradient_dtype='bfloat16'), run(**TEN_STEPS), 0.0)


@pytest.mark.full
def test_cpus_know_one_way_to_sum(run):
    assert_near(run(**TEN_STEPS, num_clones=2, all_reduce='ring'), run(**TEN_STEPS, num_clones=2), 0.0)


# ------------------------------------------------------------------------ batch normalisation

# Nothing is drawn on the device, so that a part of a batch can be trained alone.
NORMALISED = {
    'model_name': 'alexnet_bn',
    'train_image_size': 67,
    'depth_multiplier': 1 / 16,
    'preprocessing_name': 'inception',
    'random_flip': False,
    'color_distortion': 'off',
}


@pytest.mark.full
def test_synchronised_replicas_are_one(run):
    one, two = (
        run(max_number_of_steps=3, sync_batch_norm=True, num_clones=num_clones, **NORMALISED) for num_clones in (1, 2)
    )
    assert_near(two, one, NOISE_OF_BATCH_NORM)


def statistics_of(values: Values) -> Values:
    return {name: value for name, value in values.items() if '/moving_' in name}


@pytest.fixture(scope='module')
def means_over_parts(tmp_path_factory, train_digits) -> dict[int, Values]:
    """Returns the moving statistics expected after a step, by the number of parts that are normalised separately."""
    starts = {'moving_mean': 0.0, 'moving_variance': 1.0}

    def means(parts: int) -> Values:
        train_dir = tmp_path_factory.mktemp('parts')
        still = {'learning_rate': 0.0, 'save_interval_steps': 1, **NORMALISED}
        train_digits(train_dir, max_number_of_steps=parts, batch_size=32 // parts, **still)
        kept = [statistics_of(saved_values(f'{train_dir}/model.ckpt-{step + 1}')) for step in range(parts)]
        start = {name: np.full_like(value, starts[name.rpartition('/')[2]]) for name, value in kept[0].items()}
        changes = [  # 0.01 times what the part adds to the mean
            {name: (value - 0.99 * before[name]) / parts for name, value in after.items()}
            for before, after in zip([start, *kept], kept, strict=False)
        ]
        return {name: 0.99 * value + sum(change[name] for change in changes) for name, value in start.items()}

    return {parts: means(parts) for parts in (2, 4)}


@pytest.mark.full
@pytest.mark.parametrize(('num_clones', 'steps'), [(2, 1), (1, 2), (2, 2)])
def test_moving_statistics_are_means_over_replicas_and_parts(run, means_over_parts, num_clones, steps):
    divided = {'num_clones': num_clones, 'gradient_accumulation_steps': steps, 'batch_size': 32 // steps}
    expected = means_over_parts[num_clones * steps]
    assert len(expected) == 4
    assert_near(statistics_of(run(max_number_of_steps=1, **NORMALISED, **divided)), expected)


# ------------------------------------------------------------------------ values that are not finite, in one of them


@tf.custom_gradient
def _without_gradient_in_the_second(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    return tf.identity(values), lambda gradient: _nan_in_the_second(gradient)


def _nan_in_the_second(values: tf.Tensor) -> tf.Tensor:
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.where(tf.equal(replica, 1), np.nan * values, values)


def spoil_loss(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[tf.Tensor], tf.Tensor]) -> None:
    cross_entropy = losses.softmax_cross_entropy
    monkeypatch.setattr(losses, 'softmax_cross_entropy', lambda *arguments: spoil(cross_entropy(*arguments)))


def spoil_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    make_steps = setup.Run.make_steps

    def make(run: setup.Run, end: float) -> RunSteps:
        _, second = run.strategy.experimental_local_results(run.state.variables['LeNet/fc4/weights'].value)
        second.assign(np.nan * second)
        return make_steps(run, end)

    monkeypatch.setattr(setup.Run, 'make_steps', make)


SPOILED = {
    'loss': (lambda patch: spoil_loss(patch, _nan_in_the_second), r'the loss \(nan\) is not finite at step 3; '),
    'weights': (spoil_weights, r'the loss \(nan\) is not finite at step 3; '),
    'gradient': (
        lambda patch: spoil_loss(patch, _without_gradient_in_the_second),
        r'variable LeNet/\S+ is not finite at step 3; ',
    ),
}


@pytest.fixture(scope='module')
def two_steps(tmp_path_factory, train_digits) -> Path:
    """The folder of a run that has come to step 2."""
    train_dir = tmp_path_factory.mktemp('two_steps')
    train_digits(train_dir, max_number_of_steps=2, num_clones=2)
    return train_dir


@pytest.mark.quick('weights')
@pytest.mark.parametrize(('spoil', 'message'), SPOILED.values(), ids=SPOILED)
def test_what_is_not_finite_in_one_replica_stops_all_and_is_not_saved(
    two_steps, train_digits, tmp_path, monkeypatch, spoil, message
):
    train_dir = shutil.copytree(two_steps, tmp_path / 'run')
    before = checkpoint_files(train_dir)
    spoil(monkeypatch)
    with recorded_states() as states, pytest.raises(InputError, match=message) as error:
        train_digits(train_dir, max_number_of_steps=3, num_clones=2)
    assert f'the last good checkpoint is {train_dir}/model.ckpt-2.' in str(error.value)
    assert checkpoint_files(train_dir) == before
    for name, values in copies(states[0]).items():
        for value in values:
            assert np.isnan(value).any(), name


@pytest.mark.full
def test_float16_skips_a_step_in_all_replicas(train_digits, tmp_path: Path, monkeypatch):
    options = {'num_clones': 2, 'mixed_precision': 'float16', 'moving_average_decay': 0.9}
    before = saved_values(train_digits(tmp_path, max_number_of_steps=2, **options).checkpoint_path)
    with monkeypatch.context() as patched, recorded_states() as states:
        spoil_loss(patched, _without_gradient_in_the_second)
        after = saved_values(train_digits(tmp_path, max_number_of_steps=5, **options).checkpoint_path)
    assert_alike(states[0])
    changed = {name: after[name].item() for name, value in before.items() if not np.array_equal(after[name], value)}
    assert changed == {'global_step': 5, 'images_seen': 160, 'loss_scale': 2.0**12, 'loss_scale_steps': 0.0}
    assert [before[name].item() for name in ('loss_scale', 'loss_scale_steps')] == [2.0**15, 2.0]
