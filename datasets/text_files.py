"""The small text files of a run, read and written whole.

write_text('/tmp/tfmodel/data.json', text)
data = load_json('/tmp/tfmodel/data.json', check, 'delete it')         # None where there is none
"""

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from datasets.regular_files import read_file
from support.atomic import atomic_file, flush_to_disk
from support.errors import InputError, first_line

T = TypeVar('T')

_MAX_JSON = 1 << 28


def load_json(path: str, make: Callable[[Any], T], advice: str) -> T | None:
    """Reads a JSON file; returns what `make` makes of its value, or None where there is none.

    Args:
        path: The file.
        make: Raises ValueError, TypeError, KeyError or ArithmeticError where the value is not as it must be.
        advice: What to do about a damaged file.

    Raises:
        InputError: it cannot be read, or is damaged.
    """
    if not tf.io.gfile.exists(path):
        return None
    try:
        content = read_file(path, _MAX_JSON)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'{path}: cannot be read: {first_line(error)}') from error
    try:
        return make(json.loads(content))
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise InputError(f'{path}: damaged, or written by another version: {first_line(error)}; {advice}') from error


def write_text(path: str, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        OSError or tf.errors.OpError: it cannot be written; a file that was there is unharmed.
    """
    if '://' not in path and os.path.exists(path) and not os.path.isfile(path):
        with open(path, 'w') as file:  # a device or a pipe, which a file must not replace; a folder refuses
            file.write(text)
        return
    with atomic_file(path) as part:
        with tf.io.gfile.GFile(part, 'w') as file:
            file.write(text)
        flush_to_disk(part)
