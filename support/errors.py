"""The one exception for what the user can put right: a flag, a file, a record, a checkpoint.

    raise InputError(f'no file matches {pattern!r}; the split may be one of train, validation')

The scripts print its message as one line and exit with status 1. Anything else that is raised is a bug in this project
and keeps its traceback.
"""

import difflib
import re
import sys
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave is wrong. The message says what, what is allowed, and what to do."""


class WorkerLostError(InputError):
    """Another worker has ended, hangs or has failed, so that the run cannot continue.

    Attributes:
        is_transient: Whether starting all again is worth it: a worker has died or hangs, and none has said that
            something must be put right first.
    """

    def __init__(self, message: str, is_transient: bool = True):
        super().__init__(message)
        self.is_transient = is_transient


def io_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions of file access: the system's, and TensorFlow's if it is loaded."""
    tensorflow = sys.modules.get('tensorflow')
    return (OSError,) if tensorflow is None else (OSError, tensorflow.errors.OpError)


def first_line(error: Exception) -> str:
    """Returns the first line of an error of TensorFlow's or the system's, without the name of an operation.

    Of an assertion in a graph, only what it says.
    """
    text = str(getattr(error, 'message', None) or error)
    line = text.splitlines()[0].split(' [Op:')[0].split('}} ')[-1].strip() if text else type(error).__name__
    asserted = re.fullmatch(r'assertion failed: \[([^]]*)\]', line)
    return asserted[1] if asserted else line


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> InputError:
    """Returns the error for a factory's miss: the value, its kind, the closest name and all the valid ones."""
    names = sorted(valid)
    longer = [valid_name for valid_name in names if valid_name.startswith(str(name))]
    close = longer or difflib.get_close_matches(str(name), names, n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    return InputError(f'unknown {kind} {name!r}{hint}; valid: {", ".join(names)}')
