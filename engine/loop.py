"""The loop: steps, and what is due between them, in all workers alike.

step = Loop(config, dataset, preprocessing, run_steps, actions, signals, last_step, cluster).run(iterator, position)
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from configs.config import TrainConfig
from datasets import input_pipeline
from datasets.dataset_factory import Dataset
from engine import distribution
from engine.actions import Action, Moment, Save
from engine.bad_images import BadImages
from engine.cluster.cluster import ALONE, Cluster
from engine.position import Position
from engine.recovery import agreeing_on_finite, check_finite
from engine.signals import TrainingSignals
from engine.train_input import worker_of
from engine.train_step import RunSteps
from preprocessing.preprocessing_factory import Preprocessing

_SECONDS_A_CALL = 2.0


@dataclasses.dataclass(frozen=True)
class Loop:
    """Steps, and what is due between them."""

    config: TrainConfig
    dataset: Dataset
    preprocessing: Preprocessing
    run_steps: RunSteps
    actions: Sequence[Action]
    signals: TrainingSignals
    last_step: float
    cluster: Cluster = ALONE
    bad_images: BadImages | None = None

    def run(self, iterator: Any, position: Position) -> int:
        """Trains from a position, of which the iterator gives the batches, to the end; returns the last step.

        Raises:
            NonFiniteError: the loss, or a variable, is not finite any more.
            InputError: whatever the user can put right. What was trained before an example that is bad is saved.
        """
        for action in self.actions:
            with agreeing_on_finite(self.cluster):
                action.begin(position, self.last_step)
        most, moment = 1, None  # the first call compiles
        while position.step < self.last_step and not self._is_stopped():
            moment = self._advance(iterator, position, most)
            position = moment.position
            if self.bad_images is not None:
                with self._saving_at_bad_example(position):
                    self.bad_images.report(position.stream)
            most = self.cluster.share(max(int(_SECONDS_A_CALL / moment.seconds_per_step), 1))
            for action in self._due(position.step):
                with self._saving_at_bad_example(position), agreeing_on_finite(self.cluster):
                    action.run(moment)
        for action in self.actions:
            with agreeing_on_finite(self.cluster):
                if moment is not None and action.at_stop:
                    action.run(moment)
                action.finish()
        return position.step

    @contextlib.contextmanager
    def _saving_at_bad_example(self, position: Position, makes_steps: bool = False) -> Iterator[None]:
        """Saves what was trained if a bad example ends training; not with several workers, as the others do not save.

        Args:
            position: Where training is.
            makes_steps: Whether steps are made inside. They are made in order, each as soon as its batch has come.
        """
        taken = int(distribution.batches_taken())
        try:
            yield
        except input_pipeline.BadExampleError as error:
            made = int(distribution.batches_taken()) - taken if makes_steps else 0
            reached = position.after(made, self.config.data.examples_per_step)
            for action in self.actions if self.cluster.count == 1 else ():
                if isinstance(action, Save):
                    action.save_at_end(reached)
            if not makes_steps or not reached.step or self.bad_images is not None:
                raise
            raise input_pipeline.BadExampleError(f'{error}; to skip such images, give --on_bad_image=skip') from error

    def _is_stopped(self) -> bool:
        """Returns whether training ends before its last step: a signal to one worker ends all."""
        received = [number for number in self.cluster.gather(self.signals.received) if number is not None]
        if received:
            self.signals.received = received[0]
        return bool(received) or any(action.ends_training for action in self.actions)

    def _due(self, step: int) -> list[Action]:
        """Returns the actions that are due: by steps, by the chief's clock, or because a worker got a signal."""
        by_interval = self.cluster.share([action.interval.is_due(step) for action in self.actions])
        requested = self.cluster.any(self.signals.take_save_request())
        is_last = step == self.last_step
        return [
            action
            for action, is_due in zip(self.actions, by_interval, strict=True)
            if is_due or is_last or (requested and action.on_request)
        ]

    def _advance(self, iterator: Any, before: Position, most: int) -> Moment:
        """Makes several steps: not beyond what is due next, nor so many that a signal is kept waiting."""
        due = (action.interval.next_step(before.step) for action in self.actions)
        num_steps = int(min(self.last_step, before.step + most, *due)) - before.step
        batch_size, seed = self.config.data.examples_per_step, self.config.data.seed
        after = before.after(num_steps, batch_size)
        positions = range(before.stream, after.stream)
        worker, skips = worker_of(self.config, self.cluster), self.bad_images is not None
        with (
            self._saving_at_bad_example(before, makes_steps=True),
            distribution.naming_lost_workers(self.cluster),
            input_pipeline.naming_failures(self.dataset, self.preprocessing, positions, seed, worker, skips),
        ):
            report = self.run_steps(iterator, before, num_steps)
        with agreeing_on_finite(self.cluster):
            check_finite(report, before, batch_size)
            for action in self.actions:
                action.watch()
        return Moment(after, report, batch_size)
