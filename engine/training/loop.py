"""The training loop: steps, and the actions due between them, the same on all workers.

step = Loop(run, run_steps, batches, actions, signals, last_step).train(position)
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from datasets import input_pipeline
from engine.distributed import distribution
from engine.training.actions import Action, Moment
from engine.training.input import TrainInput
from engine.training.recovery import agreeing_on_finite, check_finite
from engine.training.setup import Run
from engine.training.signals import TrainingSignals
from engine.training.state import Position
from engine.training.step import RunSteps

_SECONDS_A_CALL = 2.0


@dataclasses.dataclass(frozen=True)
class Loop:
    """Runs steps and the actions due between them, until `last_step` (may be infinity) or a signal."""

    run: Run
    run_steps: RunSteps
    batches: TrainInput
    actions: Sequence[Action]
    signals: TrainingSignals
    last_step: float

    def train(self, position: Position) -> int:
        """Trains from a position to the end; returns the last step.

        Raises:
            NonFiniteError: the loss or a variable is no longer finite.
            InputError: an error that the user can fix. Before a bad example ends training, a checkpoint is saved.
        """
        cluster, batch_size = self.run.cluster, self.run.config.data.examples_per_step
        iterator = self.batches.make_iterator(position.stream)
        for action in self.actions:
            with agreeing_on_finite(cluster):
                action.begin(position, self.last_step)
        most, moment = 1, None  # the first call compiles
        while position.step < self.last_step and not self._is_stopped():
            # Not past the next due action, and not longer than a signal may wait.
            due = (action.interval.next_step(position.step) for action in self.actions)
            num_steps = int(min(self.last_step, position.step + most, *due)) - position.step
            before, position = position, position.after(num_steps, batch_size)
            with (
                self._saving_at_bad_example(before, makes_steps=True),
                distribution.naming_lost_workers(cluster),
                self.batches.naming_failures(range(before.stream, position.stream)),
            ):
                report = self.run_steps(iterator, before, num_steps)
            with agreeing_on_finite(cluster):
                check_finite(report, before, batch_size)
                for action in self.actions:
                    action.watch()
            moment = Moment(position, report, batch_size)
            if self.batches.bad_images is not None:
                with self._saving_at_bad_example(position):
                    self.batches.bad_images.report(position.stream)
            most = cluster.share(max(int(_SECONDS_A_CALL / moment.seconds_per_step), 1))
            for action in self._due(position.step):
                with self._saving_at_bad_example(position), agreeing_on_finite(cluster):
                    action.run(moment)
        for action in self.actions:
            with agreeing_on_finite(cluster):
                if moment is not None and action.at_stop:
                    action.run(moment)
                action.finish()
        return position.step

    @contextlib.contextmanager
    def _saving_at_bad_example(self, position: Position, makes_steps: bool = False) -> Iterator[None]:
        """Saves a checkpoint if a bad example ends training; not with several workers, as the others do not save.

        Args:
            position: The current position.
            makes_steps: Whether the block makes steps. They are made in order, each when its batch has arrived.
        """
        taken = int(distribution.batches_taken())
        try:
            yield
        except input_pipeline.BadExampleError as error:
            made = int(distribution.batches_taken()) - taken if makes_steps else 0
            reached = position.after(made, self.run.config.data.examples_per_step)
            for action in self.actions if self.run.cluster.count == 1 else ():
                action.rescue(reached)
            if not makes_steps or not reached.step or self.batches.bad_images is not None:
                raise
            raise input_pipeline.BadExampleError(f'{error}; to skip such images, give --on_bad_image=skip') from error

    def _is_stopped(self) -> bool:
        """Returns whether training stops early: a signal to one worker stops all."""
        received = [number for number in self.run.cluster.gather(self.signals.received) if number is not None]
        if received:
            self.signals.stop_as(received[0])
        return bool(received) or any(action.ends_training for action in self.actions)

    def _due(self, step: int) -> list[Action]:
        """Returns the actions that are due by steps, by the chief's clock, or because a worker received SIGUSR1."""
        cluster = self.run.cluster
        by_interval = cluster.share([action.interval.is_due(step) for action in self.actions])
        requested = cluster.any(self.signals.take_save_request())
        is_last = step == self.last_step
        return [
            action
            for action, is_due in zip(self.actions, by_interval, strict=True)
            if is_due or is_last or (requested and action.on_request)
        ]
