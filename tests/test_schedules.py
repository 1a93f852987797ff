"""The learning rate schedules against slim's own numbers and against NumPy."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from configs.training import ScheduleOptions
from engine.optim.schedules import SCHEDULES, make_schedule, scaled
from support.errors import InputError

SLIMS = {'fixed', 'exponential', 'polynomial'}
OURS = {'cosine', 'piecewise'}  # these have NumPy rows below
STEPS = np.arange(0, 120, 3)


def rates(schedule, steps, dtype=tf.int64) -> np.ndarray:
    traced = tf.function(schedule, input_signature=[tf.TensorSpec((), dtype)])
    values = [traced(tf.cast(int(step), dtype)) for step in steps]
    assert {(value.dtype, value.shape.rank) for value in values} == {(tf.float32, 0)}
    return np.array(values)


def options_of(flags: dict) -> ScheduleOptions:
    names = {field.name for field in dataclasses.fields(ScheduleOptions)}
    return ScheduleOptions(**{name: value for name, value in flags.items() if name in names})


@pytest.fixture(scope='module')
def golden(shared_path):
    return np.load(shared_path('goldens/learning_rates.npz'))


def recorded(golden, index: int):
    """Returns the flags, the steps and slim's rates of one configuration."""
    flags = json.loads(str(golden['configs'][index]))
    return flags, golden[f'steps_{index:02}'], golden[f'lr_{index:02}']


def steps_per_epoch(flags: dict) -> float:
    # Slim's batch size is per aggregated replica, ours is the global one.
    return flags['num_samples'] / (flags['batch_size'] * flags['replicas_to_aggregate'])


def test_every_schedule_is_checked(golden):
    assert {json.loads(str(config))['learning_rate_decay_type'] for config in golden['configs']} == SLIMS
    assert set(SCHEDULES) == SLIMS | OURS


@pytest.mark.parametrize('dtype', [tf.int64, tf.float32])
@pytest.mark.parametrize('index', range(21))
def test_rates_are_those_of_slim(golden, index, dtype):
    assert len(golden['configs']) == 21
    flags, steps, expected = recorded(golden, index)
    actual = rates(make_schedule(options_of(flags), steps_per_epoch(flags), None), steps, dtype)
    if golden['decay_steps'][index] == 0 and flags['learning_rate_decay_type'] != 'fixed':
        assert not np.isfinite(expected[0])  # slim divides by zero
        assert np.isfinite(actual).all()
        np.testing.assert_allclose(actual[0], flags['learning_rate'], rtol=1e-6)
        assert (np.diff(actual) <= 0).all()
    else:
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize('warmup_epochs', [0.0, 2.5])
def test_cosine_follows_numpy(warmup_epochs):
    options = ScheduleOptions('cosine', 0.1, end_learning_rate=0.01, warmup_epochs=warmup_epochs)
    actual = rates(make_schedule(options, 8.5, 100), STEPS)
    warmup_steps = 8.5 * warmup_epochs
    progress = np.clip((STEPS - warmup_steps) / (100 - warmup_steps), 0, 1)
    expected = 0.01 + (0.1 - 0.01) * (1 + np.cos(np.pi * progress)) / 2
    if warmup_epochs:
        expected = np.minimum(0.1 * STEPS / warmup_steps, expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert actual[-1] == np.float32(0.01)


@pytest.mark.parametrize('warmup_epochs', [0.0, 2.5])
@pytest.mark.parametrize('power', [0.5, 1.0, 2.0])
def test_polynomial_follows_numpy(power, warmup_epochs):
    options = ScheduleOptions(
        'polynomial', 10.0, end_learning_rate=0.1, num_epochs_per_decay=10.0, polynomial_power=power,
        warmup_epochs=warmup_epochs,
    )  # fmt: skip
    expected = 0.1 + (10.0 - 0.1) * (1 - np.minimum(STEPS, 85) / 85) ** power
    if warmup_epochs:
        expected = np.minimum(10.0 * STEPS / (8.5 * warmup_epochs), expected)
    np.testing.assert_allclose(rates(make_schedule(options, 8.5, None), STEPS), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ('how', 'base', 'examples', 'factor'),
    [
        ('none', 256, 8192, 1.0),
        ('linear', 256, 256, 1.0),
        ('linear', 256, 8192, 32.0),
        ('linear', 512, 64, 0.125),
        ('sqrt', 256, 1024, 2.0),
        ('sqrt', 128, 256, 2**0.5),
    ],
)
def test_rates_scale_with_the_examples_of_a_step(how, base, examples, factor):
    options = ScheduleOptions(
        'polynomial', 0.02, end_learning_rate=0.001, scale_learning_rate=how, scale_learning_rate_from=base
    )
    expected = dataclasses.replace(
        options, learning_rate=0.02 * factor, end_learning_rate=0.001 * factor, scale_learning_rate='none'
    )
    assert scaled(options, examples) == expected
    assert scaled(scaled(options, examples), examples) == expected
    actual = rates(make_schedule(scaled(options, examples), 8.5, 100), STEPS)
    np.testing.assert_allclose(actual, factor * rates(make_schedule(options, 8.5, 100), STEPS), rtol=1e-5)


def test_cosine_shorter_than_its_warmup_stays_finite():
    options = ScheduleOptions('cosine', 0.1, warmup_epochs=5.0)
    assert np.isfinite(rates(make_schedule(options, 10.0, 20), range(60))).all()


def test_piecewise_multiplies_after_each_boundary():
    options = ScheduleOptions(
        'piecewise', 0.4, learning_rate_decay_factor=0.1, learning_rate_boundaries=(3.0, 6.0, 8.5)
    )
    schedule = make_schedule(options, 10.0, None)
    steps = [0, 29, 30, 59, 60, 84, 85, 1000]
    expected = [0.4, 0.4, 0.04, 0.04, 0.004, 0.004, 0.0004, 0.0004]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-6)


def test_warmup_is_below_piecewise_too():
    options = ScheduleOptions('piecewise', 0.4, learning_rate_boundaries=(1.0,), warmup_epochs=2.0)
    actual = rates(make_schedule(options, 10.0, None), [0, 5, 15, 19, 20, 30])
    np.testing.assert_allclose(actual, [0, 0.1, 0.3, 0.376, 0.376, 0.376], rtol=1e-6)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('cosine', '--learning_rate_decay_type=cosine .* --max_number_of_steps or --num_epochs'),
        ('piecewise', '--learning_rate_decay_type=piecewise needs --learning_rate_boundaries'),
        ('exponental', r"unknown learning_rate_decay_type 'exponental' \(did you mean 'exponential'\?\)"),
    ],
)
def test_bad_schedules_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        make_schedule(ScheduleOptions(name), 10.0, None)
