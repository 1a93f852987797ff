"""Where an export goes: whether that can be, said before there is any work.

path = check_output('/tmp/alexnet.keras', '.keras', overwrite=False)
"""

import os
import re
import tempfile

from support import atomic
from support.errors import InputError

_FLAG = 'output_path'
_LONGEST_ENDING = '.json'  # of what is written beside


def check_output(path: str | None, ending: str, overwrite: bool, members: str = '') -> str:
    """Returns the path if it can be written, before there is any work.

    Args:
        path: As it was given.
        ending: Of the file's name; empty for a folder.
        overwrite: Whether an earlier export may be replaced.
        members: What an export of a folder consists of, a regular expression of names; else in it is the user's.

    Raises:
        InputError: no path, another ending, too long a name, something is there, or another process is writing it.
    """
    if not path or '://' in path:
        raise InputError(f'--output_path={path or ""}: name a local {"file" if ending else "folder"}')
    path = path.rstrip('/') or '/'
    if not ending:
        _check_folder_name(path)
    elif not path.endswith(ending) or os.path.basename(path) == ending:
        raise InputError(f'--output_path={path}: the name of such a file ends in {ending}, for instance net{ending}')
    atomic.check_name(path, _FLAG, _LONGEST_ENDING)
    _check_folder(path)
    atomic.recover(path, _FLAG)
    check_free(path, ending, overwrite, members)
    return path


def check_free(path: str, ending: str, overwrite: bool, members: str = '') -> None:
    """Refuses a path where something is that may not be replaced; see `check_output`."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise InputError(f'--output_path={path} exists; give another name, or --overwrite')
    if os.path.islink(path) or not (os.path.isfile(path) if ending else os.path.isdir(path)):
        raise InputError(f'--output_path={path} exists and is no {"file" if ending else "folder"}: it is not replaced')
    others = [] if ending else sorted(name for name in os.listdir(path) if not re.fullmatch(members, name))
    if others:
        raise InputError(f'--output_path={path} holds {others[0]}, which is of no export: the folder is not replaced')


def _check_folder_name(path: str) -> None:
    if not os.path.basename(path):
        raise InputError(f'--output_path={path}: name a folder to be made')
    if re.search(r'[\[\\]', os.path.abspath(path)):
        raise InputError(f'--output_path={path}: TensorFlow reads no folder with [ or \\ in its path')


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
