"""The exception for errors that the user can fix: in a flag, a file, a record, a checkpoint.

    raise InputError(f'no file matches {pattern!r}; the split may be one of train, validation')

The scripts print its message as one line and exit with status 1. Any other exception is a bug in this project and keeps
its traceback.
"""

import difflib
import re
import sys
from collections.abc import Iterable


class InputError(ValueError):
    """Invalid user input. The message names the problem, the allowed values, and the fix."""


class WorkerLostError(InputError):
    """Another worker has ended, hangs or has failed, so the run cannot continue.

    Attributes:
        is_transient: Whether restarting all workers may help: a worker died or hangs, and none has reported an error
            that must be fixed first.
    """

    def __init__(self, message: str, is_transient: bool = True):
        super().__init__(message)
        self.is_transient = is_transient


def io_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions of file access: OSError, and TensorFlow's OpError if TensorFlow is loaded."""
    tensorflow = sys.modules.get('tensorflow')
    return (OSError,) if tensorflow is None else (OSError, tensorflow.errors.OpError)


def first_line(error: Exception) -> str:
    """Returns the first line of a TensorFlow or system error, without the name of the operation.

    For an assertion in a graph, returns only its message.
    """
    text = str(getattr(error, 'message', None) or error)
    line = text.splitlines()[0].split(' [Op:')[0].split('}} ')[-1].strip() if text else type(error).__name__
    asserted = re.fullmatch(r'assertion failed: \[([^]]*)\]', line)
    return asserted[1] if asserted else line


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> InputError:
    """Returns the error for an unknown name: the name, its kind, the closest valid name and all valid names."""
    names = sorted(valid)
    longer = [valid_name for valid_name in names if valid_name.startswith(str(name))]
    close = longer or difflib.get_close_matches(str(name), names, n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    return InputError(f'unknown {kind} {name!r}{hint}; valid: {", ".join(names)}')
