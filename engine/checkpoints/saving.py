"""Writing checkpoints, whole or not at all, and beside training."""

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

    The files get their names only when they are complete, the index last, so that whatever has an index is whole.

    Args:
        max_to_keep: How many checkpoints are kept, the latest; 0 keeps all.
        keep_every_n_hours: Of those that would be deleted, one is kept for ever for each period of this length.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; checkpoints that were there are unharmed.
    """
    prefix = os.path.join(train_dir, f'{files.PREFIX}-{step}')
    part = os.path.join(train_dir, f'{files.PART}{step}')
    names = sorted(variables)
    tensors = [tf.convert_to_tensor(variables[name]) for name in names]
    try:
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[''] * len(names), tensors=tensors)
        for suffix in files.SUFFIXES:
            flush_to_disk(part + suffix)
        files.delete([f'{prefix}.index'])  # of the same step: it must not stand beside other data
        for suffix in files.SUFFIXES:
            tf.io.gfile.rename(part + suffix, prefix + suffix, overwrite=True)
        flush_to_disk(train_dir)
        rotation = files.read_rotation(train_dir).adding(prefix, time.time())
        files.write_rotation(train_dir, rotation)
        left, surplus = rotation.without_surplus(max_to_keep, keep_every_n_hours)
        for old in surplus:
            files.delete(old + suffix for suffix in reversed(files.SUFFIXES))
        if left != rotation:  # not before they are gone: what is older than the list, and not in it, is kept for ever
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
    """Writes the checkpoints of a run beside training, one at a time.

        with Saver(train_dir, max_to_keep=5) as saver:
            saver.save(100, variables)        # takes the values as they are, and returns
            saver.saved()                     # what was written since; raises what went wrong
            saver.wait()

    The values need not be copied: a tensor read from a variable keeps them, and TensorFlow copies a variable before it
    changes it while such a tensor is there. So a save costs as much memory as the variables take, until it is written.
    """

    def __init__(self, train_dir: str, max_to_keep: int, keep_every_n_hours: float | None = None):
        self._dir, self._max_to_keep, self._keep_every = train_dir, max_to_keep, keep_every_n_hours
        self._thread = concurrent.futures.ThreadPoolExecutor(1, 'saver')
        self._pending: concurrent.futures.Future[str] | None = None

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()  # what is being written is finished, whatever ended training

    def save(self, step: int, variables: Variables, check: Callable[[Mapping[str, tf.Tensor]], None]) -> None:
        """Begins to write a checkpoint; call `saved` or `wait` first, so that nothing is pending.

        Args:
            check: Called with the values before they are written; raises if they must not be.
        """
        assert self._pending is None
        values = {name: tf.convert_to_tensor(value) for name, value in variables.items()}

        def write() -> str:
            check(values)
            return save(self._dir, step, values, self._max_to_keep, self._keep_every)

        self._pending = self._thread.submit(write)

    def saved(self) -> str | None:
        """Returns the prefix of a checkpoint that has been written since the last call, or None.

        Raises:
            InputError: see `save`; or what `check` raised.
        """
        return self.wait() if self._pending is not None and self._pending.done() else None

    def wait(self) -> str | None:
        """Waits until nothing is pending; returns and raises as `saved`."""
        pending, self._pending = self._pending, None
        return pending.result() if pending is not None else None
