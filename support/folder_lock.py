"""A lock that admits one process at a time to a folder.

with FolderLock('/tmp/tfmodel', '.lock', flag='train_dir', user='trainer'):
    ...
"""

import contextlib
import enum
import fcntl
import json
import os
import socket
import time
from io import FileIO

from absl import logging

from support.errors import InputError

_MOMENT = 0.05  # seconds


class FolderLock:
    """Locks a folder until it is released or its process ends, for any reason.

    It is the system's lock on a file, so a killed process releases it at once. A lock belongs to a file, not to its
    name, so the file is never replaced or removed; its content serves only the error message. Remote folders
    (gs://...) have no locks.
    """

    def __init__(self, folder: str, file_name: str, *, flag: str, user: str):
        """Creates the lock; `with` acquires it.

        Args:
            folder: An existing folder.
            user: The word that messages use for a process that holds the lock.
        """
        self._path = os.path.join(folder, file_name)
        self._where, self._flag, self._user = f'--{flag}={folder}', flag, user
        self._file: FileIO | None = None

    def __enter__(self) -> 'FolderLock':
        """Acquires the lock.

        Raises:
            InputError: another process holds it; the message names the process, its machine and its start.
        """
        if '://' in self._path:
            return self
        try:
            # Unbuffered: closing the file must not retry a write that failed because the disk is full.
            self._file = open(self._path, 'a+b', buffering=0)
        except OSError as error:
            raise InputError(f'{self._where}: cannot be written to: {error.strerror}') from error
        try:
            _lock(self._file)
        except BlockingIOError:
            holder = _describe_holder(self._file)
            self._file.close()
            raise InputError(
                f'{self._where}: in use by another {self._user}, {holder}; wait for it, stop it, or give another '
                f'--{self._flag}'
            ) from None
        except OSError as error:  # some network file systems have no locks
            logging.warning('%s cannot be locked: %s', self._where, error.strerror)
        self._write_holder()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            self._file.close()

    def _write_holder(self) -> None:
        assert self._file is not None
        holder = {'pid': os.getpid(), 'host': socket.gethostname(), 'since': time.strftime('%Y-%m-%d %H:%M:%S')}
        with contextlib.suppress(OSError):  # on a full disk the lock still holds, and later writes report the error
            self._file.truncate(0)
            self._file.write(json.dumps(holder).encode())


class LockState(enum.Enum):
    """What `lock_state` finds.

    HELD: a process holds the lock. RELEASED: none does, or the folder was never locked. LEFT: its last holder was
    killed.
    """

    HELD, RELEASED, LEFT = 'held', 'released', 'left'


def lock_state(folder: str, file_name: str) -> LockState:
    """Returns the state of a folder's lock, which it takes for microseconds if it is free.

    On network file systems without locks, LEFT may also mean that a process of this or another machine works there.

    Raises:
        OSError: the lock's file cannot be read.
    """
    path = os.path.join(folder, file_name)
    if not os.path.isfile(path):
        return LockState.RELEASED
    with open(path, 'rb') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return LockState.HELD
        except OSError:
            pass
        return LockState.LEFT if file.read(1) else LockState.RELEASED


def _lock(file: FileIO) -> None:
    """Acquires a lock, if need be after a moment in which `lock_state` may have had it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_MOMENT)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _describe_holder(file: FileIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read(1000))
        return f'process {holder["pid"]} on {holder["host"]} since {holder["since"]}'
    except (ValueError, TypeError, KeyError):
        return 'which has not said its process yet'
