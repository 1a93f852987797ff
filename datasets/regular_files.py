"""Reads small files of data sets whole: never a pipe or device, which may not end, nor a huge file.

text = read_file('/data/records/labels.txt').decode()
check_file_system('dataset_dir', 'gs://bucket/records')
"""

import errno
import io
import os
import stat
from typing import BinaryIO

from support.errors import InputError

MAX_BYTES = 2**26  # ImageNet's dataset.json has 0.2 MB, slim's CSV of its boxes 40 MB


def read_file(path: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Returns the content of a file, local or on a file system of TensorFlow.

    Raises:
        InputError: It is not a regular file, or has more than `max_bytes`.
        OSError or tf.errors.OpError: It cannot be read.
    """
    if '://' not in path:
        with open_file(path, max_bytes) as file:
            return file.read(max_bytes + 1)  # no more, even if it grows meanwhile
    import tensorflow as tf  # local files are read without TensorFlow

    _check_size(path, tf.io.gfile.stat(path).length, max_bytes)
    with tf.io.gfile.GFile(path, 'rb') as file:
        return file.read()


def open_file(path: str, max_bytes: int = MAX_BYTES) -> BinaryIO:
    """Opens a regular local file for reading.

    Raises:
        InputError: It is not a regular file, or has more than `max_bytes`.
        OSError: It cannot be opened.
    """
    # Opening a pipe without a writer would block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f'{path}: is a pipe or a device; must be a regular file')
        _check_size(path, status.st_size, max_bytes)
        return io.BufferedReader(io.FileIO(descriptor, 'rb'))
    except BaseException:
        os.close(descriptor)
        raise


def refuse_irregular(path: str) -> None:
    """Raises InputError if a path exists but is no regular file, as opening it could block.

    Raises:
        InputError: It is a pipe, a device or a folder.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f'{path}: is a folder, a pipe or a device; must be a regular file; remove it')


def _check_size(path: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputError(
            f'{path}: has {size:,} bytes, and files of this kind have at most {max_bytes:,}; is it the right one?'
        )


def check_file_system(flag: str, path: str | None) -> None:
    """Raises InputError for a path like `foo://x` if TensorFlow has no file system for it.

    Raises:
        InputError: The message lists the available file systems.
    """
    scheme, separator, _ = (path or '').partition('://')
    if not separator:
        return
    import tensorflow as tf

    known = sorted({name for name in tf.io.gfile.get_registered_schemes() if name})
    if scheme not in known:
        raise InputError(
            f'--{flag}={path}: TensorFlow has no file system {scheme}:// here, only '
            f'{", ".join(f"{name}://" for name in known)} and local paths'
        )


def check_local(flag: str, path: str) -> None:
    """Raises InputError for a path like `gs://x`, where only local folders work.

    Raises:
        InputError: The path has a `://`.
    """
    if '://' in path:
        raise InputError(f'--{flag}={path}: must be a folder on this machine, without ://')
