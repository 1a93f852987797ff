r"""Writing so that a name stands for a whole file only, and what is said when the disk does not take it.

write_text('/data/records', 'labels.txt', '0:background\n')
with replacing('/data/cache/digits.pixels', '/data/cache/.digits.part') as file:
    file.write(pixels)
"""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

from support.errors import InputError, first_line

PART = '.part'  # how hidden names end while a file is not complete


@contextlib.contextmanager
def replacing(path: str, part: str) -> Iterator[BinaryIO]:
    """Gives a file to write, which gets the name `path` at the end, and vanishes if anything is raised before.

    Args:
        path: Its name; a file that has it is replaced.
        part: Its name until then, in the same folder.

    Raises:
        OSError: the disk is full, or fails.
    """
    try:
        with open(part, 'w+b') as file:
            yield file
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(part)


def write_text(folder: str, name: str, text: str) -> None:
    """Writes a file beside its name first, and safely to the disk.

    Raises:
        InputError: the disk is full, or fails.
    """
    try:
        with replacing(os.path.join(folder, name), os.path.join(folder, f'.{name}{PART}')) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
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
