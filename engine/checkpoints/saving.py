"""Writes checkpoints atomically, also in the background of training."""

import concurrent.futures
import os
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from engine.checkpoints import files
from support.atomic import flush_to_disk
from support.errors import InputError, first_line

Variables = Mapping[str, tf.Variable | tf.Tensor | np.generic]


def save(
    train_dir: str,
    step: int,
    variables: Variables,
    max_to_keep: int,
    keep_every_n_hours: float | None = None,
) -> str:
    """Writes `model.ckpt-<step>` and makes it the latest; returns its prefix.

    The files get their names only when complete, the index last, so a checkpoint with an index is complete.

    Args:
        max_to_keep: Number of latest checkpoints to keep; 0 keeps all.
        keep_every_n_hours: One of the checkpoints due for deletion is kept permanently per period of this length.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; existing checkpoints are unharmed.
    """
    prefix = os.path.join(train_dir, f'{files.PREFIX}-{step}')
    part = os.path.join(train_dir, f'{files.PART}{step}')
    names = sorted(variables)
    tensors = [tf.convert_to_tensor(variables[name]) for name in names]
    try:
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[''] * len(names), tensors=tensors)
        for suffix in files.SUFFIXES:
            flush_to_disk(part + suffix)
        files.delete([f'{prefix}.index'])  # of the same step: an old index must not accompany new data
        for suffix in files.SUFFIXES:
            tf.io.gfile.rename(part + suffix, prefix + suffix, overwrite=True)
        flush_to_disk(train_dir)
        rotation = files.read_rotation(train_dir).adding(prefix, time.time())
        files.write_rotation(train_dir, rotation)
        left, surplus = rotation.without_surplus(max_to_keep, keep_every_n_hours)
        for old in surplus:
            files.delete(old + suffix for suffix in reversed(files.SUFFIXES))
        if left != rotation:  # only after deleting: an older checkpoint that is not listed is kept for ever
            files.write_rotation(train_dir, left)
    except (tf.errors.OpError, OSError) as error:
        files.delete(files.files_starting(train_dir, f'{os.path.basename(part)}.'))
        if not tf.io.gfile.exists(f'{prefix}.index'):
            files.delete([prefix + files.SUFFIXES[0]])
        kept = files.latest_checkpoint(train_dir)
        raise InputError(
            f'cannot save {prefix}: {first_line(error)}; the last good checkpoint is {kept or "none"}. Make room, or '
            'fix the cause, and start again'
        ) from error
    return prefix


class Saver:
    """Writes the checkpoints of a run in a background thread, one at a time.

        with Saver(train_dir, max_to_keep=5) as saver:
            saver.save(100, variables)        # takes the current values and returns at once
            saver.saved()                     # the prefix if it has been written; raises its error
            saver.wait()

    No explicit copy is needed: a tensor read from a variable keeps the values, because TensorFlow copies a variable
    before changing it while a tensor refers to it. Until it is written, a save takes the memory of the variables again.
    """

    def __init__(self, train_dir: str, max_to_keep: int, keep_every_n_hours: float | None = None):
        self._dir, self._max_to_keep, self._keep_every = train_dir, max_to_keep, keep_every_n_hours
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'saver')
        self._pending: concurrent.futures.Future[str] | None = None

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()  # finishes a pending write, even after an error in training

    def save(self, step: int, variables: Variables, check: Callable[[Mapping[str, tf.Tensor]], None]) -> None:
        """Starts writing a checkpoint; no write may be pending: call `saved` or `wait` first.

        Args:
            check: Called with the values before they are written; raises if they must not be written.
        """
        assert self._pending is None
        values = {name: tf.convert_to_tensor(value) for name, value in variables.items()}

        def write() -> str:
            check(values)
            return save(self._dir, step, values, self._max_to_keep, self._keep_every)

        self._pending = self._thread.submit(write)

    def saved(self) -> str | None:
        """Returns the prefix of a checkpoint written since the last call, or None.

        Raises:
            InputError: see `save`; or the error raised by `check`.
        """
        return self.wait() if self._pending is not None and self._pending.done() else None

    def wait(self) -> str | None:
        """Waits for the pending write; returns and raises like `saved`."""
        pending, self._pending = self._pending, None
        return pending.result() if pending is not None else None
