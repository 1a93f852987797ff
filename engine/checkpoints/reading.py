"""Reading checkpoints, whichever format they have."""

import os
import re
import zipfile
import zlib
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from engine.checkpoints.files import SUFFIXES, Format, recognise
from engine.checkpoints.keras_files import KerasReader
from engine.checkpoints.names import is_counter
from support.errors import InputError, first_line

# TensorFlow's, HDF5's and zip's, in this order; a file cut short may show as any of them.
_DAMAGE: tuple[type[Exception], ...] = (
    *(tf.errors.OpError, ValueError, RuntimeError, LookupError),
    *(OSError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, EOFError),
)
_PASSING = (tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError, tf.errors.UnavailableError, MemoryError)
# h5py and NumPy raise these for what HDF5 can describe and they cannot, such as numbers of 3 bytes.
_DAMAGE_OF_KERAS_FILES: tuple[type[Exception], ...] = (*_DAMAGE, TypeError, ArithmeticError)


class Reader(Protocol):
    """An open checkpoint: a table of name -> tensor, of which `tf.train.load_checkpoint` returns one too."""

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Returns the shape of each variable by name."""

    def has_tensor(self, name: str) -> bool:
        """Returns whether there is such a variable."""

    def get_tensor(self, name: str) -> np.ndarray:
        """Reads a variable."""


class ScopedReader:
    """A checkpoint, seen without a prefix that its names have and the net's do not. Counters have no prefix."""

    def __init__(self, reader: Reader, scope: str) -> None:
        """Takes an open checkpoint and the prefix, without the slash behind it."""
        self.reader, self._start = reader, f'{scope}/'

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Returns the shape of each variable by name."""
        shapes = self.reader.get_variable_to_shape_map()
        return {
            name.removeprefix(self._start): shape
            for name, shape in shapes.items()
            if name.startswith(self._start) or is_counter(name)
        }

    def has_tensor(self, name: str) -> bool:
        """Returns whether there is such a variable."""
        return self.reader.has_tensor(self._long(name))

    def get_tensor(self, name: str) -> np.ndarray:
        """Reads a variable."""
        return self.reader.get_tensor(self._long(name))

    def _long(self, name: str) -> str:
        return name if is_counter(name) else self._start + name


class DamagedCheckpointError(InputError):
    """A checkpoint that cannot be read: missing, truncated, or none at all."""


def open_checkpoint(prefix: str, scope: str | None = None) -> Reader:
    """Opens a checkpoint for reading: TensorFlow's, by its prefix, or a `.keras` or `.weights.h5` file.

    With a scope, `--checkpoint_scope`, which all names in it begin with, they are known without it.

    Raises:
        DamagedCheckpointError: it is missing, truncated, or no checkpoint.
        InputError: no name in it begins with the scope.
    """
    reader = _open(prefix)
    scope = (scope or '').rstrip('/')
    if not scope:
        return reader
    names = reader.get_variable_to_shape_map()
    if not any(name.startswith(f'{scope}/') for name in names):
        starts = sorted({name.partition('/')[0] for name in names if '/' in name})
        raise InputError(
            f'--checkpoint_scope={scope}: no name in {prefix} begins so; they begin with {", ".join(starts[:10])}'
        )
    return ScopedReader(reader, scope)


def _open(prefix: str) -> Reader:
    damage = _DAMAGE
    try:
        if recognise(prefix) in (Format.KERAS, Format.WEIGHTS_H5):
            damage = _DAMAGE_OF_KERAS_FILES
            return KerasReader(prefix)
        return tf.train.load_checkpoint(prefix)
    except damage as error:
        raise _failure(prefix, 'not a checkpoint that can be read', error) from error


def read(reader: Reader, prefix: str, name: str) -> np.ndarray:
    """Reads one tensor.

    Raises:
        DamagedCheckpointError: the checkpoint is damaged.
    """
    opened = reader.reader if isinstance(reader, ScopedReader) else reader
    damage = _DAMAGE_OF_KERAS_FILES if isinstance(opened, KerasReader) else _DAMAGE
    try:
        return reader.get_tensor(name)
    except damage as error:
        raise _failure(prefix, f'truncated or damaged: {name} cannot be read', error) from error


def _failure(prefix: str, problem: str, error: Exception) -> InputError:
    """Returns the error to raise; a file that may not be read, or not now, is not damaged."""
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


def read_int(prefix: str, name: str, default: int) -> int:
    """Reads an integer such as `global_step`, or returns the default where the checkpoint has none.

    Raises:
        DamagedCheckpointError: the checkpoint cannot be read, or has something else by this name.
    """
    reader = open_checkpoint(prefix)
    if not reader.has_tensor(name):
        return default
    value = read(reader, prefix, name)
    if value.shape or not np.issubdtype(value.dtype, np.integer):
        raise DamagedCheckpointError(f'{prefix}: {name} is {value.dtype} of shape {list(value.shape)}, not an integer')
    return int(value)


def read_metadata(prefix: str) -> dict[str, Any]:
    """Returns the description that `export/` wrote into a `.keras` or `.weights.h5` file, or an empty one."""
    reader = open_checkpoint(prefix)
    return reader.metadata if isinstance(reader, KerasReader) else {}
