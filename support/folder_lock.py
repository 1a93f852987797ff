"""A lock that admits one process at a time to a folder.

with FolderLock('/tmp/tfmodel', '.lock', flag='train_dir', user='trainer'):
    ...
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from io import FileIO

from absl import logging

from support.errors import InputError


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
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _describe_holder(file: FileIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read(1000))
        return f'process {holder["pid"]} on {holder["host"]} since {holder["since"]}'
    except (ValueError, TypeError, KeyError):
        return 'which has not said its process yet'
