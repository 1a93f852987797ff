"""One trainer at a time in a `train_dir`.

with RunLock('/tmp/tfmodel'):
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

from configs.errors import InputError

FILE_NAME = '.lock'


class RunLock:
    """Keeps other trainers out of a folder until it is released, or its process ends in whatever way.

    The system's own lock on the file `.lock` tells whether it is held: one that a killed process left behind is free
    at once. What stands in the file is only for the message. Remote folders (gs://...) have no locks.
    """

    def __init__(self, train_dir: str):
        self._dir = train_dir
        self._file: FileIO | None = None

    def __enter__(self) -> 'RunLock':
        """Takes the lock.

        Raises:
            InputError: another trainer has it, by process, machine and time.
        """
        if '://' in self._dir:
            return self
        path = os.path.join(self._dir, FILE_NAME)
        try:
            # Unbuffered: what a full disk has refused must not be written again when the file is closed.
            self._file = open(path, 'a+b', buffering=0)
        except OSError as error:
            raise InputError(f'--train_dir={self._dir}: cannot be written to: {error.strerror}') from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _describe_holder(self._file)
            self._file.close()
            raise InputError(
                f'--train_dir={self._dir}: in use by another trainer, {holder}; wait for it, stop it, or give another '
                '--train_dir'
            ) from None
        except OSError as error:  # some network file systems have no locks
            logging.warning('--train_dir=%s cannot be locked: %s', self._dir, error.strerror)
        self._write_holder()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            # Emptied, not removed: whoever waits for the name would otherwise lock a file that is gone.
            with contextlib.suppress(OSError):
                self._file.truncate(0)
            self._file.close()

    def _write_holder(self) -> None:
        assert self._file is not None
        holder = {'pid': os.getpid(), 'host': socket.gethostname(), 'since': time.strftime('%Y-%m-%d %H:%M:%S')}
        with contextlib.suppress(OSError):  # a full disk: the lock holds without it, and saving will say so
            self._file.truncate(0)
            self._file.write(json.dumps(holder).encode())


def _describe_holder(file: FileIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read(1000))
        return f'process {holder["pid"]} on {holder["host"]} since {holder["since"]}'
    except (ValueError, TypeError, KeyError):
        return 'which has not said its process yet'
