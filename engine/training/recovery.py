"""Going back when a value is not finite any more: `--recover_from_nonfinite`.

recover = Recovery(3, saver, train_dir, restore=...)
position = recover(error, position.recoveries)      # from the last good checkpoint, past the batches since; or raises
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
        what: Which.
        after: Where training was after the step in which it showed.
    """

    def __init__(self, what: str, after: Position):
        super().__init__(f'{what} is not finite at step {after.step}')
        self.what, self.after = what, after


def check_finite(report: StepReport, before: Position, batch_size: int) -> None:
    """Stops training whose loss is not finite.

    Raises:
        NonFiniteError: naming the step.
    """
    # Gradients are not checked: that is one more pass over them in each step. A non-finite one shows in the next loss,
    # and is never saved, because every variable is checked before saving.
    finite = np.isfinite(report.cross_entropy)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    raise NonFiniteError(f'the loss ({report.cross_entropy[bad]})', before.after(bad + 1, batch_size))


@contextlib.contextmanager
def agreeing_on_finite(cluster: Cluster) -> Iterator[None]:
    """Lets all workers raise the NonFiniteError of the first that does; the chief alone sees it in a checkpoint.

    What is inside must not speak with other workers after it may have raised.
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
    """Returns to an earlier checkpoint, at most a given number of times in a run.

    All batches since the checkpoint are skipped, as it is not known which of them did the harm: the loss shows it only
    after the weights have been spoiled. Every later number follows from the new position, so that a run that resumes
    after a recovery, or is killed in it, still ends with the same weights, as far as checkpoints come by steps.
    """

    def __init__(
        self,
        limit: int,
        saver: checkpoints.Saver,
        train_dir: str,
        restore: Callable[[], Position | None],
        cluster: Cluster = SINGLE_PROCESS,
    ):
        """Makes it.

        Args:
            limit: How often it may happen in a run.
            saver: It is waited for first.
            restore: Restores the last good one, in all workers, and returns its position; None if there is none.
        """
        self._limit, self._saver, self._train_dir, self._restore = limit, saver, train_dir, restore
        self._cluster = cluster

    def __call__(self, error: NonFiniteError, recoveries: int) -> Position:
        """Returns the position from which training continues, given how many recoveries there were before.

        Raises:
            InputError: it has happened too often.
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
        if restored is None:  # a run that may recover saves before its first step, and that has failed
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
        """Returns the failure of the checkpoint that is being written, if it fails: which is seen first is chance."""
        try:
            with agreeing_on_finite(self._cluster):
                self._saver.wait()
        except NonFiniteError as of_checkpoint:
            return of_checkpoint
        return error
