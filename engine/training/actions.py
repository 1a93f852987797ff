"""Actions between steps: log, save, write summaries; the evaluation is in `evaluation.py`.

actions = make_actions(run, batches, evaluate, progress, saver)

Each action's `interval` says when it is due. The loop knows nothing else about actions, so a new one needs only a class
here and a line in `make_actions`.
"""

import abc
import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from configs.training import LogOptions
from engine import checkpoints
from engine.evaluation.summaries import FLUSH_SECONDS, SummaryWriter
from engine.training.input import TrainInput
from engine.training.recovery import NonFiniteError
from engine.training.run_dir import compared_options
from engine.training.setup import Run
from engine.training.state import Position, TrainState
from engine.training.step import StepReport
from preprocessing.preprocessing_factory import Preprocessing
from support.progress import Progress


class Interval:
    """Is due every `steps` steps (may be fractional) and every `seconds` seconds; 0 is never.

    With `at_first` it is also due at the first call of `is_due`.

    save = Interval(steps=1000, seconds=600)
    step = min(save.next_step(step), ...)      # a call of several steps must not pass it
    if save.is_due(step): ...
    """

    def __init__(self, steps: float = 0, seconds: float = 0, at_first: bool = False):
        # Less than a step means every step; `next_step` would otherwise loop 1 / steps times.
        self._steps, self._seconds, self._at_first = max(steps, 1) if steps else 0, seconds, at_first
        self._last = time.monotonic()

    def next_step(self, step: int) -> float:
        """Returns the first step after `step` at which the interval is due; infinity if it counts only seconds."""
        if not self._steps:
            return math.inf
        times = math.floor(step / self._steps)
        while math.ceil(times * self._steps) <= step:
            times += 1
        return math.ceil(times * self._steps)

    def is_due(self, step: int) -> bool:
        """Returns whether the interval is due now; if so, restarts counting seconds."""
        by_steps = self.next_step(step - 1) == step
        by_time = self._seconds > 0 and time.monotonic() - self._last >= self._seconds
        at_first, self._at_first = self._at_first, False
        if by_steps or by_time:
            self._last = time.monotonic()
        return by_steps or by_time or at_first


@dataclasses.dataclass(frozen=True)
class Moment:
    """The state of progress after a call of several steps.

    Attributes:
        position: The position after these steps.
        report: The report of these steps.
        batch_size: Examples per step.
    """

    position: Position
    report: StepReport
    batch_size: int

    @property
    def step(self) -> int:
        return self.position.step

    @property
    def total_loss(self) -> float:
        """Cross-entropy and L2 loss of the last step, before its update, as slim logs it."""
        return float(self.report.cross_entropy[-1]) + self.report.regularization

    @property
    def accuracy(self) -> float:
        """Training accuracy of these steps, in [0, 1]."""
        return float(np.mean(self.report.accuracy, dtype=np.float64))

    @property
    def seconds_per_step(self) -> float:
        return self.report.seconds / len(self.report.cross_entropy)

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.seconds_per_step

    @property
    def wait_share(self) -> float:
        """Share of the time, in [0, 1], in which the step waited for the input pipeline."""
        return self.report.waited / self.report.seconds

    @property
    def communication_share(self) -> float:
        """Share of the time, in [0, 1], in which a replica waited for the sum of gradients; 0 with one replica."""
        return self.report.communicated / self.report.seconds


class Action(abc.ABC):
    """Work that is due at some steps, after the last step, and possibly when training stops early.

    Attributes:
        interval: When the action is due.
        at_stop: Whether it is also due when a signal or `ends_training` stops training.
        on_request: Whether SIGUSR1 triggers it.
        ends_training: Set by the action to end training.
    """

    interval: Interval
    at_stop: bool = False
    on_request: bool = False
    ends_training: bool = False
    _last_step: int | None = None

    def begin(self, position: Position, last_step: float) -> None:
        """Called before the first step, and after a recovery to an earlier checkpoint."""
        self._last_step = None

    def watch(self) -> None:  # noqa: B027  # most have nothing to do
        """Called after every call of several steps; raises errors of background work."""

    def finish(self) -> None:  # noqa: B027
        """Called once, after the last step; waits for background work."""

    def close(self) -> None:  # noqa: B027
        """Called at the very end, after an error too; releases what `begin` or `act` has taken."""

    def rescue(self, position: Position) -> None:  # noqa: B027
        """Called when an error ends training; saves the progress up to a position."""

    def run(self, moment: Moment) -> None:
        """Performs the action, unless it was already performed at this step."""
        if self._last_step != moment.step:
            self._last_step = moment.step
            self.act(moment)

    @abc.abstractmethod
    def act(self, moment: Moment) -> None:
        """Performs the action."""


class Log(Action):
    """Logs step, loss, learning rate, accuracy, images/s and share of time waiting for data, or updates the bar."""

    def __init__(self, options: LogOptions, progress: Progress):
        self.interval = log_interval(options)
        self._progress, self._is_compiled = progress, False

    def begin(self, position: Position, last_step: float) -> None:
        super().begin(position, last_step)
        if not self._is_compiled and position.step < last_step:
            self._progress.say('compiling the first step, which may take a minute')

    def act(self, moment: Moment) -> None:
        if not self._is_compiled:
            self._is_compiled = True
            self._progress.say(f'the first step took {moment.report.seconds:.1f} s, compilation included')
            self._progress.count_from(moment.step)
        loss, rate = moment.total_loss, moment.report.learning_rate
        speed, waiting = moment.images_per_second, moment.wait_share
        extras = ''.join(f', {text}' for text in _extras(moment))
        self._progress.report(
            moment.step,
            f'global step {moment.step}: loss = {loss:.4f} ({moment.seconds_per_step:.3f} sec/step), '
            f'learning rate {rate:.4g}, accuracy {moment.accuracy:.4f}, {speed:.1f} images/s, '
            f'waiting for data {waiting:.0%}{extras}',
            brief=f'loss {loss:.4f}, acc {moment.accuracy:.3f}, lr {rate:.3g}, {speed:.0f} img/s, wait {waiting:.0%}',
        )


def log_interval(options: LogOptions) -> Interval:
    """Returns the interval of log lines: the first step, then every `--log_every_n_steps`."""
    return Interval(steps=options.log_every_n_steps, at_first=True)


def _extras(moment: Moment) -> Iterator[str]:
    """Yields the values that only some runs log: communication share and loss scale."""
    if moment.report.communicated:
        yield f'reducing gradients {moment.communication_share:.0%}'
    if moment.report.loss_scale is not None:
        yield f'loss scale {moment.report.loss_scale:g}'


class LeftToChief(Action):
    """Replaces an action of the chief on the other workers, so that all lists of actions have the same length."""

    def __init__(self, interval: Interval, on_request: bool = False):
        self.interval, self.on_request = interval, on_request

    def act(self, moment: Moment) -> None:
        pass


class Save(Action):
    """Writes a checkpoint in the background, after checking that the weights are finite."""

    at_stop = True
    on_request = True

    def __init__(
        self, interval: Interval, saver: checkpoints.Saver, state: TrainState, progress: Progress, at_start: bool
    ):
        self.interval = interval
        self._saver, self._state, self._progress, self._at_start = saver, state, progress, at_start
        self._saved_step: int | None = None

    def begin(self, position: Position, last_step: float) -> None:
        super().begin(position, last_step)
        self._saved_step = position.step  # or nothing is trained yet
        if self._at_start:
            self._save(position)
        self._at_start = False

    def act(self, moment: Moment) -> None:
        self._save(moment.position)

    def rescue(self, position: Position) -> None:
        """Saves a checkpoint, unless it is saved already or not finite."""
        with contextlib.suppress(NonFiniteError):
            if position.step != self._saved_step:
                self._save(position)
            self.finish()

    def _save(self, position: Position) -> None:
        self._say(self._saver.wait())
        self._saved_step = position.step
        variables = {**self._state.saved_variables(), **position.counters()}
        self._saver.save(position.step, variables, lambda values: check_variables(values, position))

    def watch(self) -> None:
        self._say(self._saver.saved())

    def finish(self) -> None:
        self._say(self._saver.wait())

    def _say(self, saved: str | None) -> None:
        if saved is not None:
            self._progress.say(f'saved {saved}')


def check_variables(values: Mapping[str, tf.Tensor], position: Position) -> None:
    """Checks variables before saving, because the loss may not yet show that one is not finite.

    Raises:
        NonFiniteError: a variable is not finite; the error names it.
    """
    for name, value in values.items():
        if value.dtype.is_floating and not np.isfinite(tf.reduce_sum(value).numpy()):
            raise NonFiniteError(f'variable {name}', position)


class Scalars(Action):
    """Writes scalars for TensorBoard with each log line, after the run's options."""

    def __init__(self, interval: Interval, writer: SummaryWriter, options: Mapping[str, bool | int | float | str]):
        self.interval, self._writer, self._options = interval, writer, options

    def begin(self, position: Position, last_step: float) -> None:
        super().begin(position, last_step)
        self._writer.begin_at(position.step + 1)
        self._writer.hparams(position.step, self._options)

    def act(self, moment: Moment) -> None:
        report = moment.report
        extras = {} if report.loss_scale is None else {'loss_scale': report.loss_scale}
        if report.communicated:
            extras['communication_share'] = moment.communication_share
        self._writer.scalars(
            moment.step,
            {
                **extras,
                'losses/total_loss': moment.total_loss,
                'losses/cross_entropy': float(report.cross_entropy[-1]),
                'losses/regularization_loss': report.regularization,
                'accuracy': moment.accuracy,
                'learning_rate': report.learning_rate,
                'images_per_second': moment.images_per_second,
                'data_wait_share': moment.wait_share,
            },
        )
        self._writer.flush(FLUSH_SECONDS)

    def watch(self) -> None:
        self._writer.flush(FLUSH_SECONDS)

    def finish(self) -> None:
        self._writer.flush()


class Summarize(Action):
    """Writes scalars at its own interval and, if enabled, histograms and images."""

    def __init__(
        self,
        interval: Interval,
        options: LogOptions,
        state: TrainState,
        preprocessing: Preprocessing,
        next_images: Callable[[int], tf.Tensor],
        writer: SummaryWriter,
        scalars: Scalars,
    ):
        self.interval = interval
        self._options, self._state, self._preprocessing = options, state, preprocessing
        self._next_images, self._writer, self._scalars = next_images, writer, scalars

    def act(self, moment: Moment) -> None:
        self._scalars.run(moment)
        if self._options.summarize_images or self._options.summarize_histograms:
            images = self._next_images(moment.position.stream)
            if self._options.summarize_images:
                colours = self._preprocessing.reorder_channels(images)
                self._writer.images(moment.step, colours, self._preprocessing.value_range)
            if self._options.summarize_histograms:
                self._writer.histograms(moment.step, self._state.model, self._state.variables, images)

    def finish(self) -> None:
        self._writer.flush()


def make_actions(
    run: Run, batches: TrainInput, evaluate: Action | None, progress: Progress, saver: checkpoints.Saver
) -> list[Action]:
    """Returns the actions of a run, in the order in which they are performed.

    All workers have lists of the same length, because the chief tells the others by index which actions are due.
    """
    log, options, is_chief = run.config.log, run.config.checkpoint, run.cluster.is_chief
    save_interval = Interval(steps=options.save_interval_steps, seconds=options.save_interval_secs)
    actions: list[Action] = [Log(log, progress)]
    if is_chief:
        is_new = checkpoints.latest_checkpoint(options.train_dir) is None
        at_start = is_new and options.recover_from_nonfinite > 0
        actions.append(Save(save_interval, saver, run.state, progress, at_start))
    else:
        actions.append(LeftToChief(save_interval, Save.on_request))
    if evaluate is not None:
        actions.append(evaluate)
    if log.save_summaries_secs or log.save_summaries_steps:
        interval = Interval(steps=log.save_summaries_steps, seconds=log.save_summaries_secs)
        if is_chief:
            writer = SummaryWriter(options.train_dir)
            scalars = Scalars(log_interval(log), writer, compared_options(run.config))
            summarize = Summarize(interval, log, run.state, run.preprocessing, batches.next_images, writer, scalars)
            actions += [scalars, summarize]
        else:
            actions += [LeftToChief(log_interval(log)), LeftToChief(interval)]
    return actions
