"""One process at a time in a folder.

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
    """Keeps others out of a folder until it is released, or its process ends in whatever way.

    The system's own lock on a file tells whether it is held: one that a killed process left behind is free at once. A
    lock belongs to a file, not to its name, so the file is never replaced or removed; what stands in it is only for the
    message. Remote folders (gs://...) have no locks.
    """

    def __init__(self, folder: str, file_name: str, *, flag: str, user: str):
        """Makes it; `with` takes it.

        Args:
            folder: It exists.
            user: What another process that holds the lock is called.
        """
        self._path = os.path.join(folder, file_name)
        self._where, self._flag, self._user = f'--{flag}={folder}', flag, user
        self._file: FileIO | None = None

    def __enter__(self) -> 'FolderLock':
        """Takes the lock.

        Raises:
            InputError: another process has it: which, on which machine, since when.
        """
        if '://' in self._path:
            return self
        try:
            # Unbuffered: what a full disk has refused must not be written again when the file is closed.
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
        with contextlib.suppress(OSError):  # a full disk: the lock holds without it, and later writes will say so
            self._file.truncate(0)
            self._file.write(json.dumps(holder).encode())


def _describe_holder(file: FileIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read(1000))
        return f'process {holder["pid"]} on {holder["host"]} since {holder["since"]}'
    except (ValueError, TypeError, KeyError):
        return 'which has not said its process yet'
