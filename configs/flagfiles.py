"""Expands flagfiles: their content replaces `--flagfile=...`, and may include other flagfiles.

    arguments = expand(sys.argv[1:], takes_value=lambda name: name not in booleans)
    [argument.text for argument in arguments]
    [argument.file for argument in arguments]      # None: on the command line itself

The rules are absl's, which reads flagfiles too: one flag per line, `#` and `//` begin comments, `~` is expanded. Unlike
in absl, a file that includes itself is an error, and the depth of inclusion is limited.
"""

import dataclasses
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence

from support.errors import InputError, first_line
from support.input_files import NotUtf8Error, decode_text, is_named_pipe

_DIRECTIVE = re.compile(r'--?flagfile(?:=(?P<path>.*))?', re.DOTALL)
_MAX_DEPTH = 32
_MAX_CHARACTERS = 2**20


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument, and the flagfile that it stands in; None on the command line itself."""

    text: str
    file: str | None = None

    @property
    def flag(self) -> str:
        """The name of the flag as written, so perhaps with `no` before it; empty if the argument is not a flag."""
        return self.text.lstrip('-').partition('=')[0].strip() if self.text.startswith('-') else ''


def expand(
    arguments: Sequence[str], takes_value: Callable[[str], bool], stops_at_others: bool = True
) -> list[Argument]:
    """Returns the arguments with each `--flagfile` replaced by the flags in the file.

    Args:
        takes_value: Returns whether the named flag takes the next argument if it has no `=`.
        stops_at_others: Whether a positional argument ends the flags, as in absl; else flags may follow it.

    Raises:
        InputError: a file cannot be read, is not text, is too long, or includes itself.
    """
    expanded: list[Argument] = []
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        directive = _DIRECTIVE.fullmatch(text)
        if directive is not None:
            if directive['path'] is None and not rest:
                raise InputError('--flagfile: no file given')
            path = rest.pop(0) if directive['path'] is None else directive['path']
            expanded += _lines(path, ())
            continue
        expanded.append(Argument(text))
        if text == '--' or (not text.startswith('-') and stops_at_others):
            break
        is_followed = text.startswith('-') and '=' not in text and rest and not rest[0].startswith('-')
        if is_followed and takes_value(expanded[-1].flag):
            expanded.append(Argument(rest.pop(0)))
    return [*expanded, *map(Argument, rest)]


def _lines(path: str, parents: tuple[str, ...]) -> Iterator[Argument]:
    path = os.path.expanduser(path.strip())
    if not path:  # absl ignores it
        return
    if path in parents:
        raise InputError(f'--flagfile={path}: includes itself{_by_way_of(parents[parents.index(path) + 1 :])}')
    if len(parents) == _MAX_DEPTH:
        raise InputError(f'--flagfile={parents[0]}: includes a chain of more than {_MAX_DEPTH} flagfiles')
    for line in _read(path).split('\n'):
        text = line.strip()
        if not text or line.startswith(('#', '//')):
            continue
        directive = _DIRECTIVE.fullmatch(text)
        if directive is None:
            yield Argument(text, path)
        elif directive['path'] is None:
            raise InputError(f'--flagfile={path}: a line contains --flagfile without a path; write --flagfile=PATH')
        else:
            yield from _lines(directive['path'], (*parents, path))


def _by_way_of(files: Sequence[str]) -> str:
    return f', by way of {", ".join(files)}' if files else ''


def _read(path: str) -> str:
    if is_named_pipe(path):
        raise InputError(f'--flagfile={path}: is a pipe; must be a regular file')
    try:
        with open(path, 'rb') as file:
            data = file.read(_MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, 'strerror', None) or first_line(error)
        raise InputError(f'Unable to open flagfile {path!r}: {reason}') from error
    if len(data) > _MAX_CHARACTERS:
        raise InputError(f'--flagfile={path}: longer than {_MAX_CHARACTERS} characters; not a flagfile')
    try:
        return io.StringIO(decode_text(data), newline=None).read()  # any line endings
    except NotUtf8Error as error:
        raise InputError(f'Unable to open flagfile {path!r}: not UTF-8 text: {error}') from error
