"""Writing beside the place that is meant, and renaming once all is right.

with written_beside('/tmp/alexnet.keras', 'output_path') as part:
    write(part)
"""

import contextlib
import os
import shutil
from collections.abc import Iterator

import tensorflow as tf

from configs.errors import InputError, first_line


@contextlib.contextmanager
def written_beside(path: str, flag: str) -> Iterator[str]:
    """Gives a name beside `path` to write to; at the end it takes the place of `path`, on an error it is deleted.

    Args:
        path: Of a file, or of a folder.
        flag: Which flag named it, for messages.

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
    except (OSError, tf.errors.OpError) as error:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise InputError(f'--{flag}={path}: {first_line(error)}') from error
    finally:
        for left in (part, old):
            shutil.rmtree(left) if os.path.isdir(left) else _unlink(left)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):  # what has failed before is told
        os.unlink(path)
