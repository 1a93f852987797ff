"""Tables of numbers kept beside data, loaded whole or not at all.

    with atomic_file(path) as part, open(part, 'wb') as file:
        save_arrays(file, {'offsets': offsets})
    arrays = load_arrays(path)              # {'offsets': ...}, views of the file's bytes

The file is an uncompressed .npz that NumPy reads too, with one more array: a checksum of all others. The zip's own
checksum does not show that this module wrote the file. No array can be larger than the file.
"""

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from datasets.regular_files import open_file
from support.errors import InputError

_CHECKSUM = 'checksum_of_arrays'
_MAX_BYTES = 2**36  # an index of 64 bits for each of 8 billion records
_KINDS = 'biufU'


class DamagedTable(ValueError):
    """The file was not written by `save_arrays`, or has changed since then."""


def save_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of numbers or strings.

    Raises:
        OSError: The disk is full or fails.
    """
    kept = {name: np.asarray(array, order='C') for name, array in arrays.items()}
    np.savez(file, **kept, **{_CHECKSUM: np.uint32(_checksum(kept))})  # type: ignore[arg-type]


def load_arrays(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays back, read-only.

    Raises:
        OSError: The file is missing or cannot be read.
        DamagedTable: The file was not written by `save_arrays`, or has changed.
    """
    try:
        with open_file(path, _MAX_BYTES) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            arrays = {
                info.filename.removesuffix('.npy'): _read_array(archive, info, size) for info in archive.infolist()
            }
    except InputError as error:
        raise DamagedTable(str(error)) from error
    # zipfile raises more than it documents: struct.error, NotImplementedError, RuntimeError, ...
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, SyntaxError, EOFError, MemoryError,
            zipfile.BadZipFile, zlib.error, struct.error) as error:  # fmt: skip
        raise DamagedTable(f'{path}: {error}') from error
    checksum = arrays.pop(_CHECKSUM, None)
    if checksum is None or checksum.shape != () or int(checksum) != _checksum(arrays):
        raise DamagedTable(f'{path}: its checksum does not match')
    return arrays


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> np.ndarray:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.file_size > most:
        raise ValueError('compressed, or larger than its file')
    content = archive.read(info)  # zipfile compares the CRC-32
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f'version {version}')
    shape, fortran, dtype = npy.read_array_header_1_0(stream)
    count, num_bytes = math.prod(shape), len(content) - stream.tell()
    is_other = dtype.kind not in _KINDS or (fortran and len(shape) > 1)
    if is_other or count * dtype.itemsize != num_bytes:
        raise ValueError('its size is not that of its array')
    return np.frombuffer(content, dtype, count, stream.tell()).reshape(shape)


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    checksum = 0
    for name, array in sorted(arrays.items()):
        checksum = zlib.crc32(f'{name} {array.dtype.str} {array.shape}'.encode(), checksum)
        checksum = zlib.crc32(array.tobytes(), checksum)
    return checksum
