"""What stops a conversion so that the same command continues it: Ctrl-C and SIGTERM, and a full or failing disk.

with signals_raise():
    write_text('/data/records', 'labels.txt', '0:background')     # raises Stopped, or InputError
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from support.atomic import atomic_file, flush_to_disk
from support.errors import InputError, first_line


class Stopped(BaseException):
    """A signal came.

    Attributes:
        number: The signal's.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """Lets SIGINT and SIGTERM raise `Stopped` in the main thread; elsewhere Python allows no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # what is left to do takes a moment, and leaves the folder in order
    raise Stopped(number)


def write_text(folder: str, name: str, text: str) -> None:
    """Writes a file whole or not at all, and safely to the disk.

    Raises:
        InputError: the disk is full, or fails.
    """
    try:
        with atomic_file(os.path.join(folder, name)) as part:
            with open(part, 'wb') as file:
                file.write(text.encode())
            flush_to_disk(part)
    except OSError as error:
        raise cannot_write(folder, error) from error


def reason(error: Exception) -> str:
    """Returns the system's message without path and number."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error).split('; ')[-1]


def cannot_write(folder: str, error: Exception) -> InputError:
    """Returns the error for a full or failing disk."""
    return InputError(
        f'cannot write to {folder}: {reason(error)}; finished files are kept; put this right, and the same command '
        'goes on'
    )
