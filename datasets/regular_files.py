"""The small files of data sets, read whole: never a pipe or a device, which may have no end, and never a huge one.

text = read_file('/data/records/labels.txt').decode()
check_file_system('dataset_dir', 'gs://bucket/records')
"""

import errno
import io
import os
import stat
from typing import BinaryIO

from support.errors import InputError

MAX_BYTES = 2**26  # ImageNet's dataset.json has 0.2 MB, slim's CSV of its boxes 40


def read_file(path: str, max_bytes: int = MAX_BYTES) -> bytes:
    """Returns the content of a file, on this machine or where TensorFlow finds it.

    Raises:
        InputError: no regular file, or one of more than `max_bytes`.
        OSError or tf.errors.OpError: it cannot be read.
    """
    if '://' not in path:
        with open_file(path, max_bytes) as file:
            return file.read(max_bytes + 1)  # no more, should it grow meanwhile
    import tensorflow as tf  # whoever reads local files alone does without

    _check_size(path, tf.io.gfile.stat(path).length, max_bytes)
    with tf.io.gfile.GFile(path, 'rb') as file:
        return file.read()


def open_file(path: str, max_bytes: int = MAX_BYTES) -> BinaryIO:
    """Opens a regular file of this machine, for reading.

    Raises:
        InputError: it is none, or has more than `max_bytes`.
        OSError: it cannot be opened.
    """
    # A pipe that nobody writes to would keep us waiting.
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
    """Refuses what is there, but is no file: it would be waited for when it is opened.

    Raises:
        InputError: a pipe, a device or a folder.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f'{path}: is a folder, a pipe or a device; must be a regular file; remove it')


def _check_size(path: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise InputError(
            f'{path}: has {size:,} bytes, and files of this kind have at most {max_bytes:,}; is it the right one?'
        )


def check_file_system(flag: str, path: str | None) -> None:
    """Refuses a path like `foo://x` of a kind that TensorFlow knows no file system for.

    Raises:
        InputError: with those that there are.
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
    """Refuses a path like `gs://x` where only folders of this machine will do.

    Raises:
        InputError: it is one.
    """
    if '://' in path:
        raise InputError(f'--{flag}={path}: must be a folder on this machine, without ://')
