"""Reading checkpoints."""

from typing import Any

import numpy as np
import tensorflow as tf

from configs.errors import InputError, first_line

Reader = Any  # what `tf.train.load_checkpoint` returns; its class has no public name


class DamagedCheckpointError(InputError):
    """A checkpoint that cannot be read: missing, truncated, or none at all."""


def open_checkpoint(prefix: str) -> Reader:
    """Opens a checkpoint for reading.

    Raises:
        DamagedCheckpointError: it is missing, truncated, or no checkpoint.
    """
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise DamagedCheckpointError(f'{prefix}: not a checkpoint that can be read: {first_line(error)}') from error


def read(reader: Reader, prefix: str, name: str) -> np.ndarray:
    """Reads one tensor.

    Raises:
        DamagedCheckpointError: the checkpoint is damaged.
    """
    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise DamagedCheckpointError(
            f'{prefix}: truncated or damaged: {name} cannot be read: {first_line(error)}'
        ) from error


def read_int(prefix: str, name: str, default: int) -> int:
    """Reads an integer such as `global_step`, or returns the default where the checkpoint has none."""
    reader = open_checkpoint(prefix)
    return int(read(reader, prefix, name)) if reader.has_tensor(name) else default
