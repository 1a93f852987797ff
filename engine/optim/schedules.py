"""The learning rate as a function of the step.

    schedule = make_schedule(scaled(options, examples_per_step=32), steps_per_epoch=40036.5, total_steps=None)
    learning_rate = schedule(step)       # float32 scalar; step is the number of steps made before this one

All compute in float32, like slim's `_configure_learning_rate`: after thousands of decays a float64 schedule would
differ from slim's in the fourth digit.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from configs.early import needs_boundaries, needs_length
from configs.training import ScheduleOptions
from support.errors import unknown_name

Schedule = Callable[[tf.Tensor], tf.Tensor]


def make_schedule(options: ScheduleOptions, steps_per_epoch: float, total_steps: int | None) -> Schedule:
    """Returns the schedule named by `options.learning_rate_decay_type`, with its warm-up.

    During the first `warmup_epochs` the rate is at most `learning_rate * step / warm-up steps`: 0 at step 0, as in
    slim. The schedules start at step 0; only cosine starts when the warm-up ends, and so reaches its peak.

    Args:
        steps_per_epoch: Training examples divided by the global batch size; may be fractional.
        total_steps: Length of the training, or None if it has no end.

    Raises:
        InputError: the name is unknown, cosine lacks a length, or piecewise lacks boundaries.
    """
    name = options.learning_rate_decay_type
    if name not in SCHEDULES:
        raise unknown_name('learning_rate_decay_type', name, SCHEDULES)
    return _with_warmup(SCHEDULES[name](options, steps_per_epoch, total_steps), options, steps_per_epoch)


def scaled(options: ScheduleOptions, examples_per_step: int) -> ScheduleOptions:
    """Applies `scale_learning_rate` to the rates; returns options without further scaling.

    Linear is the rule of Goyal et al. 2017, arXiv:1706.02677; sqrt the rule of Krizhevsky 2014, arXiv:1404.5997.

    Args:
        examples_per_step: Examples per update, over all devices.
    """
    ratio = examples_per_step / options.scale_learning_rate_from
    factor = {'none': 1.0, 'linear': ratio, 'sqrt': math.sqrt(ratio)}[options.scale_learning_rate]
    return dataclasses.replace(
        options,
        learning_rate=options.learning_rate * factor,
        end_learning_rate=options.end_learning_rate * factor,
        scale_learning_rate='none',
    )


def _with_warmup(schedule: Schedule, options: ScheduleOptions, steps_per_epoch: float) -> Schedule:
    warmup_steps = steps_per_epoch * options.warmup_epochs
    if not warmup_steps:
        return schedule

    def warmed_up(step: tf.Tensor) -> tf.Tensor:
        return tf.minimum(options.learning_rate * tf.cast(step, tf.float32) / warmup_steps, schedule(step))

    return warmed_up


def _fixed(options: ScheduleOptions, *_: object) -> Schedule:
    return lambda step: tf.constant(options.learning_rate, tf.float32)


def _exponential(options: ScheduleOptions, steps_per_epoch: float, _: object) -> Schedule:
    decay_steps = _decay_steps(options, steps_per_epoch)

    def exponential(step: tf.Tensor) -> tf.Tensor:
        return _decayed(options, tf.cast(step, tf.int64) // decay_steps)

    return exponential


def _polynomial(options: ScheduleOptions, steps_per_epoch: float, _: object) -> Schedule:
    decay_steps = _decay_steps(options, steps_per_epoch)
    start, end = options.learning_rate, options.end_learning_rate

    def polynomial(step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(tf.cast(step, tf.float32), decay_steps) / decay_steps
        return (start - end) * tf.pow(1.0 - progress, options.polynomial_power) + end

    return polynomial


def _cosine(options: ScheduleOptions, steps_per_epoch: float, total_steps: int | None) -> Schedule:
    if total_steps is None:
        raise needs_length()
    warmup_steps = steps_per_epoch * options.warmup_epochs
    decay_steps = max(total_steps - warmup_steps, 1.0)
    start, end = options.learning_rate, options.end_learning_rate

    def cosine(step: tf.Tensor) -> tf.Tensor:
        progress = tf.clip_by_value((tf.cast(step, tf.float32) - warmup_steps) / decay_steps, 0.0, 1.0)
        return (start - end) * 0.5 * (1.0 + tf.cos(math.pi * progress)) + end

    return cosine


def _piecewise(options: ScheduleOptions, steps_per_epoch: float, _: object) -> Schedule:
    if not options.learning_rate_boundaries:
        raise needs_boundaries()
    boundaries = [int(steps_per_epoch * epochs) for epochs in options.learning_rate_boundaries]

    def piecewise(step: tf.Tensor) -> tf.Tensor:
        passed = tf.cast(step, tf.int64) >= tf.constant(boundaries, tf.int64)
        return _decayed(options, tf.math.count_nonzero(passed))

    return piecewise


def _decay_steps(options: ScheduleOptions, steps_per_epoch: float) -> int:
    # In slim, a short epoch causes a division by zero and a rate of NaN.
    return max(int(steps_per_epoch * options.num_epochs_per_decay), 1)


def _decayed(options: ScheduleOptions, times: tf.Tensor) -> tf.Tensor:
    factor = tf.constant(options.learning_rate_decay_factor, tf.float32)
    return options.learning_rate * tf.pow(factor, tf.cast(times, tf.float32))


SCHEDULES: dict[str, Callable[[ScheduleOptions, float, int | None], Schedule]] = {
    'fixed': _fixed,
    'exponential': _exponential,
    'polynomial': _polynomial,
    'cosine': _cosine,
    'piecewise': _piecewise,
}
