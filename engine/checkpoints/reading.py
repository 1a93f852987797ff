"""Reads checkpoints of every supported format.

checkpoint = Checkpoint('/tmp/tfmodel/model.ckpt-1000')
checkpoint.step, checkpoint.shapes, checkpoint.read('alexnet_v2/conv1/weights')
"""

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.checkpoints.files import SUFFIXES, Format, checkpoint_step, recognise
from engine.checkpoints.keras_files import KerasReader
from engine.checkpoints.names import STEP_KEY, is_counter
from support.errors import InputError, first_line

# TensorFlow's, HDF5's and zip's errors, in this order; a truncated file may raise any of them.
_DAMAGE: tuple[type[Exception], ...] = (
    *(tf.errors.OpError, ValueError, RuntimeError, LookupError),
    *(OSError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, EOFError),
)
_PASSING = (tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError, tf.errors.UnavailableError, MemoryError)
# h5py and NumPy raise these for types that only HDF5 can describe, such as numbers of 3 bytes.
_DAMAGE_OF_KERAS_FILES: tuple[type[Exception], ...] = (*_DAMAGE, TypeError, ArithmeticError)


class DamagedCheckpointError(InputError):
    """A checkpoint cannot be read: it is missing, truncated, or not a checkpoint."""


class Checkpoint:
    """An open checkpoint of any format: a table of name -> tensor.

    Attributes:
        prefix: The prefix of TensorFlow's files, or the path of a `.keras` or `.weights.h5` file.
        shapes: The shape of each variable by name.
        metadata: The description that `export/` wrote into a `.keras` or `.weights.h5` file, else empty.
    """

    def __init__(self, prefix: str, scope: str | None = None):
        """Opens a checkpoint for reading.

        Args:
            prefix: The prefix of TensorFlow's files, or the path of a `.keras` or `.weights.h5` file.
            scope: Prefix to remove from all names, as in `--checkpoint_scope`; counters have none.

        Raises:
            DamagedCheckpointError: the checkpoint is missing, truncated, or not a checkpoint.
            InputError: no name in the checkpoint begins with the scope.
        """
        self.prefix = prefix
        self._damage, self._reader, found = _open(prefix)
        self.metadata: dict[str, Any] = self._reader.metadata if isinstance(self._reader, KerasReader) else {}
        start = f'{scope.rstrip("/")}/' if scope else ''
        if start and not any(name.startswith(start) for name in found):
            starts = sorted({name.partition('/')[0] for name in found if '/' in name})
            raise InputError(
                f'--checkpoint_scope={scope}: no name in {prefix} starts so; they start with {", ".join(starts[:10])}'
            )
        self._names = {name.removeprefix(start): name for name in found if name.startswith(start) or is_counter(name)}
        self.shapes = {name: found[full_name] for name, full_name in self._names.items()}

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor.

        Raises:
            DamagedCheckpointError: the checkpoint is damaged.
        """
        try:
            return self._reader.get_tensor(self._names[name])
        except self._damage as error:
            raise _failure(self.prefix, f'truncated or damaged: {name} cannot be read', error) from error

    def read_int(self, name: str, default: int) -> int:
        """Reads an integer such as `global_step`; returns the default if the checkpoint lacks it.

        Raises:
            DamagedCheckpointError: the checkpoint is damaged, or the value is not an integer.
        """
        if name not in self.shapes:
            return default
        value = self.read(name)
        if value.shape or not np.issubdtype(value.dtype, np.integer):
            found = f'{value.dtype} of shape {list(value.shape)}'
            raise DamagedCheckpointError(f'{self.prefix}: {name} is {found}, not an integer')
        return int(value)

    @property
    def step(self) -> int:
        """The training step, from the content, else from the name; -1 if neither has it."""
        return self.read_int(STEP_KEY, checkpoint_step(self.prefix))


def _open(prefix: str) -> tuple[tuple[type[Exception], ...], Any, dict[str, tuple[int, ...]]]:
    """Opens a checkpoint; returns the exceptions that mean damage, the reader, and all variables' shapes by name."""
    damage = _DAMAGE
    try:
        is_of_keras = recognise(prefix) in (Format.KERAS, Format.WEIGHTS_H5)
        damage = _DAMAGE_OF_KERAS_FILES if is_of_keras else _DAMAGE
        reader = KerasReader(prefix) if is_of_keras else tf.train.load_checkpoint(prefix)
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    except damage as error:
        raise _failure(prefix, 'not a checkpoint that can be read', error) from error
    return damage, reader, shapes


def _failure(prefix: str, problem: str, error: Exception) -> InputError:
    """Returns the error for a failed read; missing permission and passing failures do not count as damage."""
    paths = [path for path in (prefix, *(prefix + suffix for suffix in SUFFIXES)) if os.path.exists(path)]
    forbidden = [path for path in paths if not os.access(path, os.R_OK)]
    if forbidden:
        return InputError(f'{forbidden[0]}: cannot be read: permission denied')
    data = re.search(r'(\S+\.data-\d+-of-\d+); No such file', str(error))
    if data is not None:
        name = os.path.basename(data[1])
        return DamagedCheckpointError(f'{prefix}: {problem}: its file {name} is missing; copy it beside the .index')
    if isinstance(error, _PASSING):
        return InputError(f'{prefix}: cannot be read now: {first_line(error)}')
    return DamagedCheckpointError(f'{prefix}: {problem}: {first_line(error)}')


def compare(prefix: str, expected: Mapping[str, np.ndarray]) -> str:
    """Reads a written checkpoint back and compares it bit by bit; returns a line with the number of equal tensors.

    Args:
        prefix: The checkpoint.
        expected: All tensors of the checkpoint by name.

    Raises:
        InputError: a tensor differs, is missing, or is not expected.
    """
    failure = 'the output does not read back as written: {}; nothing was kept'
    checkpoint = Checkpoint(prefix)
    other = checkpoint.shapes.keys() ^ expected.keys()
    if other:
        raise InputError(failure.format(f'it holds other variables: {", ".join(sorted(other))}'))
    for name, value in expected.items():
        found = checkpoint.read(name)
        if found.dtype != value.dtype or found.shape != value.shape or found.tobytes() != value.tobytes():
            raise InputError(failure.format(f'{name} differs'))
    numbers = sum(value.size for value in expected.values())
    return f'compared {len(expected)} tensors, {numbers} numbers: equal'
