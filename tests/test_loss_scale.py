"""The loss scale of float16: its rule against Python, and runs under it."""

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from engine.distributed import distribution
from engine.optim import loss_scale
from engine.optim.loss_scale import LARGEST_SCALE, LossScale
from engine.optim.optimizers import resource_handle
from tests.runs import assert_same_values, saved_values, summaries

# ------------------------------------------------------------------------ the rule

STEPS_TO_GROW = 5
OVERFLOWS = [
    ([np.inf, 1.0, 1.0], [1.0, 1.0]),
    ([1.0, 1.0, 1.0], [-np.inf, 1.0]),
    ([1.0, np.nan, 1.0], [1.0, 1.0]),
    ([1.0, np.inf, 1.0], [1.0, -np.inf]),
    ([3e38, 3e38, 1.0], [1.0, 1.0]),  # each is finite, and their sum is not: one more step is skipped
]


def gradients_of_steps() -> Iterator[tuple[tuple[list[float], list[float]], bool]]:
    """Yields the scaled gradients of 300 steps, and whether they are finite: now and then, 40 times not, only so."""
    random = np.random.RandomState(0)
    for finite in [*(random.uniform(size=100) < 0.8), *[False] * 40, *[True] * (30 * STEPS_TO_GROW + 10)]:
        values = random.normal(size=5).tolist()
        yield ((values[:3], values[3:]) if finite else OVERFLOWS[random.randint(len(OVERFLOWS))]), bool(finite)


def scales_and_steps(finite: list[bool]) -> Iterator[tuple[float, int]]:
    """Yields the scale, and the steps since it changed, after each step."""
    scale, steps = 2.0**15, 0
    for is_finite in finite:
        if not is_finite:
            scale, steps = max(scale / 2, 1.0), 0
        elif steps + 1 == STEPS_TO_GROW:
            scale, steps = min(scale * 2, 2.0**24), 0
        else:
            steps += 1
        yield scale, steps


@pytest.mark.parametrize('replicas', [1, 2])
def test_the_rule(monkeypatch, replicas):
    monkeypatch.setattr(loss_scale, 'STEPS_TO_GROW', float(STEPS_TO_GROW))
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu', num_clones=replicas))
    with strategy.scope():
        scale = LossScale()
        sums = [tf.Variable(tf.zeros([size])) for size in (3, 2)]

    def update(gradients: list[tf.Tensor]) -> None:
        for variable, gradient in zip(sums, gradients, strict=True):
            tf.raw_ops.AssignAddVariableOp(resource=resource_handle(variable), value=gradient)

    @tf.function(autograph=False)
    def step(gradients: list[tf.Tensor]) -> tf.Tensor:
        def replica() -> tf.Tensor:
            used = scale.value()
            scale.apply(gradients, update)
            return used

        return strategy.experimental_local_results(strategy.run(replica))[0]

    steps = list(gradients_of_steps())
    expected = list(scales_and_steps([is_finite for _, is_finite in steps]))
    assert {1.0, LARGEST_SCALE} <= {value for value, _ in expected}
    total, used = [np.zeros(size, np.float32) for size in (3, 2)], 2.0**15
    for (gradients, is_finite), (next_scale, count) in zip(steps, expected, strict=True):
        arrays = [np.array(gradient, np.float32) for gradient in gradients]
        assert step([tf.constant(array) for array in arrays]) == used
        if is_finite:  # the scales are powers of 2: dividing by them rounds nothing
            total = [one + array / np.float32(used) for one, array in zip(total, arrays, strict=True)]
        values = [*scale.variables.values(), *sums]
        for value, wanted in zip(values, [next_scale, count, *total], strict=True):
            for copy in strategy.experimental_local_results(value):
                np.testing.assert_array_equal(copy, wanted)
        used = next_scale


# ------------------------------------------------------------------------ runs

FLOAT16 = {'mixed_precision': 'float16'}


@pytest.fixture
def quick_growth(monkeypatch):
    """Doubles the scale after four steps."""
    monkeypatch.setattr(loss_scale, 'STEPS_TO_GROW', 4.0)


@pytest.mark.full
def test_a_run_in_two_parts_is_the_run_in_one(train_digits, tmp_path, quick_growth):
    whole = train_digits(tmp_path / 'whole', max_number_of_steps=10, **FLOAT16)
    train_digits(tmp_path / 'parts', max_number_of_steps=7, **FLOAT16)
    parts = train_digits(tmp_path / 'parts', max_number_of_steps=10, **FLOAT16)
    assert_same_values(parts.checkpoint_path, whole.checkpoint_path)
    values = saved_values(parts.checkpoint_path)
    assert [values[name].item() for name in ('loss_scale', 'loss_scale_steps')] == [2.0**17, 2.0]
    assert {values[name].dtype for name in values if name.startswith('LeNet')} == {np.dtype(np.float32)}


@pytest.mark.full
def test_precision_may_change_between_parts(train_digits, tmp_path, quick_growth, caplog):
    kept = {}
    for step, precision in ((2, 'float32'), (4, 'float16'), (6, 'float32'), (8, 'float16')):
        result = train_digits(tmp_path, max_number_of_steps=step, mixed_precision=precision)
        values = saved_values(result.checkpoint_path)
        kept[step] = [values[name].item() for name in ('loss_scale', 'loss_scale_steps') if name in values]
    assert kept == {2: [], 4: [2.0**15, 2.0], 6: [], 8: [2.0**15, 2.0]}
    assert 'will not: loss_scale, loss_scale_steps. That is for another --optimizer, --mixed_precision' in caplog.text


def test_the_scale_is_shown(train_digits, tmp_path, caplog):
    with caplog.at_level('INFO', logger='absl'):
        train_digits(tmp_path, max_number_of_steps=2, log_every_n_steps=1, save_summaries_steps=1, **FLOAT16)
    lines = [line for line in caplog.messages if line.startswith('global step ')]
    assert len(lines) == 2
    assert all(', loss scale 32768' in line for line in lines)
    assert summaries(tmp_path)['loss_scale'] == {1: 2.0**15, 2: 2.0**15}
