"""Atomic writing: a path holds a complete file or folder at all times, even if the writer is killed.

with atomic_file('/tmp/tfmodel/data.json') as part:                  # a file of a run or of a data set
    write(part)
with atomic_path('/tmp/alexnet.keras', 'output_path') as part:       # an export or import: a file or a folder
    write(part)

An export is first written to a folder beside it, `.part-alexnet.keras`, which the process keeps locked. An unlocked
folder was left by a killed process: the next write to the same path restores the old file from it and deletes it.
"""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator

from absl import logging

from support.errors import InputError, first_line, io_errors

PREFIX = '.part-'
_OLD = 'old'  # in the part folder: the previous file or folder, while it is being replaced
_NEW = 'new'
_ATTEMPTS = 100
# Errors of renameat2(2) that mean that the system is too old or the file system cannot exchange.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


@contextlib.contextmanager
def atomic_file(path: str, shared: bool = False) -> Iterator[str]:
    """Yields a temporary path that replaces `path` on success and is deleted on an error.

    Args:
        path: A local path (a symbolic link stays, its target is replaced) or a remote one that TensorFlow supports.
        shared: Whether several processes may write `path` at once, each under its own temporary name.

    Raises:
        OSError or tf.errors.OpError: `path` cannot be written; an existing file is unharmed.
    """
    gfile = sys.modules['tensorflow'].io.gfile if '://' in path else None
    folder, name = os.path.split(os.path.realpath(path) if gfile is None else path)
    part = os.path.join(folder, f'.{name}.{os.getpid()}.part' if shared else f'{PREFIX}{name}')
    try:
        yield part
        if gfile is None:
            os.replace(part, os.path.join(folder, name))
        else:
            gfile.rename(part, path, overwrite=True)
    finally:
        if gfile is None:
            with contextlib.suppress(OSError):  # the error before it is reported
                os.remove(part)
        elif gfile.exists(part):
            gfile.remove(part)


def flush_to_disk(path: str) -> None:
    """Flushes a file or folder to disk: otherwise a rename may survive a power cut although the content does not."""
    if '://' in path:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not os.path.isdir(path):  # some file systems cannot flush folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_path(path: str, flag: str) -> Iterator[str]:
    """Yields a temporary path of the same name; it replaces `path` on success and is deleted on an error.

    If the process is killed, `path` holds either the old content or all of the new; on file systems that cannot
    exchange two folders, the next call restores the old.

    Args:
        path: A file or a folder.
        flag: The flag that named it, for messages.

    Raises:
        InputError: `path` cannot be written, or another process is writing it; the old content is unharmed.
    """
    place = os.path.abspath(path)
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with _claimed(place, flag) as beside:
            part = os.path.join(beside, _NEW, os.path.basename(place))
            os.mkdir(os.path.dirname(part))
            yield part
            _put_in_place(part, place, os.path.join(beside, _OLD))
    except io_errors() as error:
        raise InputError(f'--{flag}={path}: {first_line(error)}') from error


def recover(path: str, flag: str) -> None:
    """Cleans up after a killed writer of `path`, if there was one; call this before reading `path`.

    Raises:
        InputError: another process is writing `path`, or a foreign file has the name of the part folder.
    """
    place = os.path.abspath(path)
    beside = _beside(place)
    if os.path.islink(beside) or (os.path.lexists(beside) and not os.path.isdir(beside)):
        raise InputError(
            f'--{flag}={path}: {beside} is in the way: the output is written there first; move or delete it'
        )
    if os.path.isdir(beside):
        try:
            with _claimed(place, flag):
                pass
        except OSError as error:
            raise InputError(f'--{flag}={path}: {first_line(error)}') from error


def check_name(path: str, flag: str, longest: str = '') -> None:
    """Raises InputError if a file name, or the name of a folder to create for it, is too long for the file system.

    Args:
        path: The file or folder to write.
        flag: The flag that named it.
        longest: The longest suffix added to the name, for a temporary file or a file beside it.

    Raises:
        InputError: a name is too long; the message gives its length and the limit in bytes.
    """
    folder, name = os.path.split(os.path.abspath(path))
    present = folder
    while not os.path.lexists(present) and os.path.dirname(present) != present:
        present = os.path.dirname(present)
    limit = os.pathconf(present, 'PC_NAME_MAX') if os.path.isdir(present) else 255
    added = len(PREFIX) + len(longest)
    folders = [part for part in os.path.relpath(folder, present).split(os.sep) if part not in ('.', '')]
    for part, most in [*((part, limit) for part in folders), (name, limit - added)]:
        size = len(os.fsencode(part))
        if size > most:
            raise InputError(
                f'--{flag}={path}: the name {part[:16]}... has {size} bytes; at most {most} can be written'
            )


def _beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), PREFIX + os.path.basename(path))


@contextlib.contextmanager
def _claimed(path: str, flag: str) -> Iterator[str]:
    """Yields the empty part folder of a path, locked by this process until it is deleted at the end."""
    beside = _beside(path)
    descriptor = _lock(beside, path, flag)
    try:
        if _restore(beside, path):
            logging.warning('%s: restored; a process that was replacing it had been killed', path)
        for name in os.listdir(beside):
            shutil.rmtree(os.path.join(beside, name))
        yield beside
    finally:
        with contextlib.suppress(OSError):  # the error before it is reported
            _restore(beside, path)  # after Ctrl-C between two renames
        if os.path.lexists(path) or not os.path.lexists(os.path.join(beside, _OLD)):
            shutil.rmtree(beside, ignore_errors=True)
        os.close(descriptor)


def _lock(beside: str, path: str, flag: str) -> int:
    """Creates and locks a folder; returns the descriptor that holds the lock.

    Raises:
        InputError: another process holds the lock.
    """
    for _ in range(_ATTEMPTS):
        made = _make(beside)
        try:
            descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # another process has just ended
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            break
        except OSError as error:  # some network file systems have no locks
            if not made:
                os.close(descriptor)
                raise InputError(
                    f'--{flag}={path}: {beside} belongs to another process that is writing there, or to one that was '
                    'killed; delete it if none is running'
                ) from error
        if _is_same(descriptor, beside):
            return descriptor
        os.close(descriptor)  # deleted by its process after it was opened here
    raise InputError(f'--{flag}={path}: another process is writing it; wait for it, stop it, or give another name')


def _make(beside: str) -> bool:
    try:
        os.mkdir(beside)
    except FileExistsError:
        return False
    return True


def _is_same(descriptor: int, beside: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(beside))
    except FileNotFoundError:
        return False


def _restore(beside: str, path: str) -> bool:
    """Moves the old content back to a path that is now missing; returns whether there was any."""
    old = os.path.join(beside, _OLD)
    if os.path.lexists(path) or not os.path.lexists(old):
        return False
    os.rename(old, path)
    return True


def _put_in_place(part: str, path: str, old: str) -> None:
    if os.path.islink(path) or not os.path.isdir(path):
        os.rename(part, path)  # atomic over a file
    elif not _exchange(part, path):  # a folder that is not empty cannot be renamed over
        os.rename(path, old)
        os.rename(part, path)


def _exchange(one: str, other: str) -> bool:
    """Exchanges two files or folders atomically; returns False, changing nothing, if the system cannot do so.

    Raises:
        OSError: the system can exchange, but not these two.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), one, None, other)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Returns the C library's renameat2, or None if it has none (before glibc 2.28, or another system)."""
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
