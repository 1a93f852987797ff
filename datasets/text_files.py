"""The small text files of a run, read and written whole.

write_text('/tmp/tfmodel/data.json', text)
data = load_json('/tmp/tfmodel/data.json', check, 'delete it')         # None if missing
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
    """Reads a JSON file and returns `make(value)`, or None if the file is missing.

    Args:
        path: The file.
        make: Converts the value; raises ValueError, TypeError, KeyError or ArithmeticError if it is invalid.
        advice: What to do about a damaged file.

    Raises:
        InputError: The file cannot be read or is damaged.
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
    """Writes a text file atomically.

    Raises:
        OSError or tf.errors.OpError: It cannot be written; an existing file is unharmed.
    """
    if '://' not in path and os.path.exists(path) and not os.path.isfile(path):
        with open(path, 'w') as file:  # devices and pipes must not be replaced by a file; a folder raises
            file.write(text)
        return
    with atomic_file(path) as part:
        with tf.io.gfile.GFile(part, 'w') as file:
            file.write(text)
        flush_to_disk(part)
