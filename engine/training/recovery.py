"""Recovery from non-finite values by going back to a checkpoint: `--recover_from_nonfinite`.

recover = Recovery(3, saver, train_dir, restore=...)
position = recover(error, position.recoveries)      # the last good checkpoint's, past the batches since; or raises
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from engine import checkpoints
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.training.state import Position
from engine.training.step import StepReport
from support.errors import InputError


class NonFiniteError(Exception):
    """The loss or a variable is not finite.

    Attributes:
        what: The loss or variable, as text.
        after: The position after the step at which it was detected.
    """

    def __init__(self, what: str, after: Position):
        super().__init__(f'{what} is not finite at step {after.step}')
        self.what, self.after = what, after


def check_finite(report: StepReport, before: Position, batch_size: int) -> None:
    """Checks that the loss of every step is finite.

    Raises:
        NonFiniteError: names the first step whose loss is not.
    """
    # Gradients are not checked, as that would take another pass over them in each step. A non-finite gradient shows in
    # the next loss, and its effect is never saved, because every variable is checked before saving.
    finite = np.isfinite(report.cross_entropy)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    raise NonFiniteError(f'the loss ({report.cross_entropy[bad]})', before.after(bad + 1, batch_size))


@contextlib.contextmanager
def agreeing_on_finite(cluster: Cluster) -> Iterator[None]:
    """Raises on all workers the NonFiniteError of the first worker that has one; only the chief checks checkpoints.

    After a point that may raise, the block must not communicate with other workers.
    """
    own: NonFiniteError | None = None
    try:
        yield
    except NonFiniteError as error:
        own = error
    errors = cluster.gather(own and {'what': own.what, 'after': dataclasses.asdict(own.after)})
    first = next((error for error in errors if error), None)
    if first:
        raise NonFiniteError(first['what'], Position(**first['after'])) from own


class Recovery:
    """Goes back to an earlier checkpoint, at most a given number of times per run.

    All batches since the checkpoint are skipped, as it is not known which one caused the failure: the loss shows it
    only after the weights are damaged. All later numbers depend only on the new position. So a run that resumes after
    a recovery, or is killed during it, ends with the same weights, provided that checkpoints are saved by steps.
    """

    def __init__(
        self,
        limit: int,
        saver: checkpoints.Saver,
        train_dir: str,
        restore: Callable[[], Position | None],
        cluster: Cluster = SINGLE_PROCESS,
    ):
        """Stores the parts.

        Args:
            limit: Number of recoveries allowed per run.
            saver: The run's saver, which must finish before a recovery.
            restore: Restores the last good checkpoint on all workers; returns its position, or None if there is none.
        """
        self._limit, self._saver, self._train_dir, self._restore = limit, saver, train_dir, restore
        self._cluster = cluster

    def __call__(self, error: NonFiniteError, recoveries: int) -> Position:
        """Restores a checkpoint; returns the position to continue from, given the number of earlier recoveries.

        Raises:
            InputError: the limit is reached, or there is no finite checkpoint.
        """
        error = self._earliest(error)
        if recoveries >= self._limit:
            latest = self._cluster.on_chief(lambda: checkpoints.latest_checkpoint(self._train_dir))
            raise InputError(
                f'{error}; the last good checkpoint is {latest or "none"}. A '
                'lower --learning_rate, --warmup_epochs or --clip_gradient_norm may keep it finite; '
                '--recover_from_nonfinite=N returns to it and skips the batches since then, at most N times (so far '
                f'{recoveries})'
            ) from error
        restored = self._restore()
        if restored is None:  # a run that may recover saves before its first step; this failed
            raise InputError(
                f'{error} at the start of the run: the weights of --checkpoint_path are not finite'
            ) from error
        skipped = error.after.stream - restored.stream
        logging.warning(
            '%s: returning to step %d and skipping the %d images since then (recovery %d of %d)',
            error, restored.step, skipped, recoveries + 1, self._limit,
        )  # fmt: skip
        return dataclasses.replace(
            restored, images_skipped=restored.images_skipped + skipped, recoveries=recoveries + 1
        )

    def _earliest(self, error: NonFiniteError) -> NonFiniteError:
        """Returns the pending checkpoint's NonFiniteError, if it has one: which error appears first is random."""
        try:
            with agreeing_on_finite(self._cluster):
                self._saver.wait()
        except NonFiniteError as of_checkpoint:
            return of_checkpoint
        return error
