"""The profiler's trace of some steps, for `--profile_steps`.

actions = [*make_actions(run, batches, evaluate, progress, saver), *make_profile(run, progress)]
"""

import math

import tensorflow as tf
from absl import logging

from configs.training import steps_to_profile
from engine.training.actions import Action, Interval, LeftToChief, Moment
from engine.training.setup import Run
from engine.training.state import Position
from support.errors import InputError, first_line
from support.progress import Progress


class EachStep(Interval):
    """Is due after each step from `first - 1` to `last`, so that steps `first` to `last` run one at a time."""

    def __init__(self, first: int, last: int):
        super().__init__()
        self.first, self.last = first, last

    def next_step(self, step: int) -> float:
        """Returns the first step after `step` at which it is due; infinity after the last."""
        following = max(step + 1, self.first - 1)
        return following if following <= self.last else math.inf


class Profile(Action):
    """Traces steps into `plugins/profile` of a run's folder, where TensorBoard's profiler looks for them."""

    interval: EachStep

    def __init__(self, interval: EachStep, folder: str, progress: Progress):
        self.interval, self._folder, self._progress = interval, folder, progress
        self._end = 0.0  # the last step of training
        self._first: int | None = None  # of the steps in the trace that is being recorded
        self._step: tf.profiler.experimental.Trace | None = None

    def begin(self, position: Position, last_step: float) -> None:
        """Starts the trace if its first step is the next one, or lies before the step at which the run resumes.

        Raises:
            InputError: this process has another profiler.
        """
        super().begin(position, last_step)
        self.close()  # an error, from which the run recovers, may have come between its steps
        self._end = last_step
        first, last = self.interval.first, self.interval.last
        if last <= position.step or first > last_step:
            logging.warning(
                '--profile_steps=%d:%d traces nothing: training goes from step %d to %.0f',
                *(first, last, position.step, last_step),
            )
        elif first <= position.step + 1:
            self._trace(position.step + 1)

    def act(self, moment: Moment) -> None:
        if moment.step >= min(self.interval.last, self._end):
            self.finish()
        elif moment.step >= self.interval.first - 1:
            self._trace(moment.step + 1)

    def _trace(self, step: int) -> None:
        """Begins to record a step, which ends at the next call or at `finish`."""
        self._end_step()
        if self._first is None:
            try:
                tf.profiler.experimental.start(self._folder)
            except tf.errors.OpError as error:
                raise InputError(f'--profile_steps: the profiler does not start: {first_line(error)}') from error
            self._first = step
        # The trace viewer shows it as an event of this name and number; `_r` marks a root.
        self._step = tf.profiler.experimental.Trace('train', step_num=step, _r=1)
        self._step.__enter__()

    def _end_step(self) -> None:
        if self._step is not None:
            self._step.__exit__(None, None, None)
            self._step = None

    def finish(self) -> None:
        """Writes the trace, if there is one; a failure is only logged."""
        self._end_step()
        if self._first is None:
            return
        first, self._first = self._first, None
        try:
            tf.profiler.experimental.stop()
        except (OSError, tf.errors.OpError) as error:
            logging.warning('--profile_steps: the trace is not written: %s', first_line(error))
            return
        self._progress.say(f'traced from step {first} on; see it with: tensorboard --logdir={self._folder}')

    def close(self) -> None:
        """Ends the trace without writing it."""
        self._end_step()
        if self._first is not None:
            self._first = None
            tf.profiler.experimental.stop(save=False)


def make_profile(run: Run, progress: Progress) -> list[Action]:
    """Returns the action of `--profile_steps`, if given; it must be the last, as a step begins after all others."""
    steps = steps_to_profile(run.config.log.profile_steps)
    if steps is None:
        return []
    interval = EachStep(*steps)
    if not run.cluster.is_chief:
        return [LeftToChief(interval)]
    return [Profile(interval, run.config.checkpoint.train_dir, progress)]
