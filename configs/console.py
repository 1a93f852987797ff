"""What a process says on standard error: log lines, errors, and which of several workers says it.

handler.setFormatter(console.Formatter())
console.speak_as('worker 1')      # '[worker 1] ' before every line from now on, and no bars
console.print_error('no such file')
"""

import sys
from typing import Any

from absl import logging

_prefix = ''


def speak_as(name: str) -> None:
    """Puts the name before every line, and leaves out bars, of which a terminal has room for one."""
    global _prefix
    _prefix = f'[{name}] '


def has_bars() -> bool:
    """Says whether progress is shown as a bar: on a terminal that this process has for itself."""
    return sys.stderr.isatty() and not _prefix


def print_error(message: object) -> None:
    """Prints what the user has to put right."""
    print(f'{_prefix}error: {message}', file=sys.stderr, flush=True)


class Formatter(logging.PythonFormatter):
    """Plain text for information; warnings and errors say what they are."""

    def format(self, record: Any) -> str:
        message = record.getMessage()
        return _prefix + (message if record.levelname == 'INFO' else f'{record.levelname.lower()}: {message}')
