"""Standard error: log lines, errors, and the prefix of each worker.

handler.setFormatter(console.Formatter())
console.speak_as('worker 1')      # from now on, '[worker 1] ' before every line and no progress bars
console.print_error('no such file')
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from absl import logging

_prefix = ''


def open_closed_streams() -> None:
    """Opens standard input, output and error on /dev/null if they are closed, as by `2>&-`.

    Otherwise Python sets them to None, and the next file opened would get the descriptor of one of them: printed text
    would go into that file.
    """
    for number, (name, mode) in enumerate([('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')]):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDONLY if mode == 'r' else os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = open(number, mode, encoding='utf-8', errors='backslashreplace', closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f'__{name}__', stream)


@contextlib.contextmanager
def kept_stderr() -> Iterator[None]:
    """Holds back standard error, including C++ output; prints it only on an exception other than Ctrl-C."""
    try:
        stderr = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def speak_as(name: str) -> None:
    """Prefixes every line with a name and turns off progress bars: a terminal has room for only one."""
    global _prefix
    _prefix = f'[{name}] '


def has_bars() -> bool:
    """Returns whether progress is shown as a bar: on a terminal that no other worker shares."""
    return sys.stderr.isatty() and not _prefix


def print_error(message: object) -> None:
    """Prints an error that the user can fix."""
    print(f'{_prefix}error: {message}', file=sys.stderr, flush=True)


class Formatter(logging.PythonFormatter):
    """Prints information as plain text; prefixes warnings and errors with their level."""

    def format(self, record: Any) -> str:
        message = record.getMessage()
        return _prefix + (message if record.levelname == 'INFO' else f'{record.levelname.lower()}: {message}')
