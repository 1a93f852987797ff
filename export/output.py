"""Writing beside the place that is meant, and renaming once all is right.

with written_beside('/tmp/alexnet.keras', overwrite=False) as part:
    write(part)
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator

from configs.errors import InputError, first_line


def check_output(path: str | None, ending: str, overwrite: bool, members: str = '') -> str:
    """Returns the path if it can be written, before there is any work.

    Args:
        path: As it was given.
        ending: Of the file's name; empty for a folder.
        overwrite: Whether an earlier export may be replaced.
        members: What an export of a folder consists of, a regular expression of names; else in it is the user's.

    Raises:
        InputError: no path, another ending, or something is there.
    """
    if not path or path.startswith('~') or '://' in path:
        raise InputError(f'--output_path={path or ""}: name a local {"file" if ending else "folder"}, without ~')
    path = path.rstrip('/') or '/'
    if not path.endswith(ending) or os.path.basename(path) == ending:
        raise InputError(f'--output_path={path}: the name of such a file ends in {ending}, for instance net{ending}')
    _check_folder(path)
    if not os.path.lexists(path):
        return path
    if not overwrite:
        raise InputError(f'--output_path={path} exists; give another name, or --overwrite')
    if os.path.isdir(path) == bool(ending) or os.path.islink(path):
        raise InputError(f'--output_path={path} exists and is no {"file" if ending else "folder"}: it is not replaced')
    others = [] if ending else sorted(name for name in os.listdir(path) if not re.fullmatch(members, name))
    if others:
        raise InputError(f'--output_path={path} holds {others[0]}, which is of no export: the folder is not replaced')
    return path


def _check_folder(path: str) -> None:
    """Refuses a place where nothing can be written, by writing there, or where the folder would be made.

    Raises:
        InputError: which place, and why.
    """
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.NamedTemporaryFile(prefix='.part-', dir=folder):
            pass
    except OSError as error:
        reason = 'no folder' if isinstance(error, NotADirectoryError) else f'not to be written to: {error.strerror}'
        raise InputError(f'--output_path={path}: {folder} is {reason}') from error


@contextlib.contextmanager
def written_beside(path: str) -> Iterator[str]:
    """Gives a name beside `path` to write to; at the end it takes the place of `path`, on an error it is deleted.

    Raises:
        InputError: it cannot be written; what was there is unharmed.
    """
    folder, name = os.path.split(os.path.abspath(path))
    part, old = (os.path.join(folder, f'.{kind}-{os.getpid()}-{name}') for kind in ('part', 'old'))
    try:
        os.makedirs(folder, exist_ok=True)
        yield part
        if os.path.isdir(path):  # a folder that is not empty cannot be renamed over
            os.rename(path, old)
        os.rename(part, path)
    except OSError as error:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise InputError(f'--output_path={path}: {first_line(error)}') from error
    finally:
        for left in (part, old):
            shutil.rmtree(left) if os.path.isdir(left) else _unlink(left)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):  # what has failed before is told
        os.unlink(path)
