"""Stops a conversion so that the same command resumes it: on Ctrl-C, SIGTERM, and a full or failing disk.

status = run_until_signal(lambda: 0, 'finished files are kept')     # 0, or 128 + the signal's number
write_text('/data/records', 'labels.txt', '0:background')           # or an InputError
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from support.atomic import atomic_file, flush_to_disk
from support.errors import InputError, first_line


class _Stopped(BaseException):
    """A signal arrived; its number is the argument. Unwinds the work in progress."""


def run_until_signal(work: Callable[[], int], what_is_kept: str) -> int:
    """Returns the exit status of `work`; on a signal prints what is kept and returns 128 + the signal's number."""
    if threading.current_thread() is not threading.main_thread():  # elsewhere Python allows no handlers
        return work()
    before = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return work()
    except _Stopped as stopped:
        (number,) = stopped.args
        print(f'{signal.Signals(number).name}: {what_is_kept}', file=sys.stderr)
        return 128 + number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    del frame
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # the cleanup is short, and leaves the folder consistent
    raise _Stopped(number)


def write_text(folder: str, name: str, text: str) -> None:
    """Writes a file atomically and flushes it to disk.

    Raises:
        InputError: The disk is full or fails.
    """
    try:
        with atomic_file(os.path.join(folder, name)) as part:
            with open(part, 'wb') as file:
                file.write(text.encode())
            flush_to_disk(part)
    except OSError as error:
        raise cannot_write(folder, error) from error


def reason(error: Exception) -> str:
    """Returns the error's message without path and number."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error).split('; ')[-1]


def cannot_write(folder: str, error: Exception) -> InputError:
    """Returns the error for a full or failing disk."""
    return InputError(
        f'cannot write to {folder}: {reason(error)}; finished files are kept; fix this, and the same command resumes'
    )
