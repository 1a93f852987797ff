r"""Writing so that a name stands for a whole file only, and what is said when the disk does not take it.

write_text('/data/records', 'labels.txt', '0:background\n')
"""

import os

from configs.errors import InputError, first_line

PART = '.part'  # how hidden names end while a file is not complete


def write_text(folder: str, name: str, text: str) -> None:
    """Writes a file beside its name first, and safely to the disk.

    Raises:
        InputError: the disk is full, or fails.
    """
    part = os.path.join(folder, f'.{name}{PART}')
    try:
        with open(part, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, os.path.join(folder, name))
    except OSError as error:
        raise cannot_write(folder, error) from error


def reason(error: Exception) -> str:
    """Returns what the system says is wrong, without path and number."""
    return (error.strerror if isinstance(error, OSError) else None) or first_line(error).split('; ')[-1]


def cannot_write(folder: str, error: Exception) -> InputError:
    """Returns the error for a full or failing disk."""
    return InputError(
        f'cannot write to {folder}: {reason(error)}; finished files are kept; put this right, and the same command '
        'goes on'
    )
