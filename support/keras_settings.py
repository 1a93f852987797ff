"""Keras' settings: this project's nets need the TensorFlow backend, whatever KERAS_BACKEND or keras.json say.

    use_tensorflow()     # before Keras is imported: every package that imports Keras calls it first
    check()              # raises InputError for a keras.json that would make Keras fail at import

The other settings, `floatx` and `image_data_format`, have no effect here: this project's layers set both explicitly.
"""

import json
import os
import re
import sys
from typing import Any

from support.errors import InputError, first_line

_BACKEND = 'KERAS_BACKEND'
_NEEDED = 'tensorflow'
_COUNTS = ('KERAS_MAX_EPOCHS', 'KERAS_MAX_STEPS_PER_EPOCH')
# Values that Keras asserts when it reads its file.
_VALID: dict[str, tuple[str, ...]] = {
    'floatx': ('float16', 'float32', 'float64'),
    'image_data_format': ('channels_first', 'channels_last'),
}


def use_tensorflow() -> None:
    """Makes TensorFlow the Keras backend in this process and its child processes.

    Raises:
        InputError: Keras is already imported with another backend.
    """
    keras = sys.modules.get('keras')
    config = getattr(keras, 'config', None)
    backend = config.backend() if config is not None else _NEEDED
    if backend != _NEEDED:
        raise InputError(
            f"Keras computes with {backend} in this process, and these nets with TensorFlow: import this project's "
            f'packages before keras, or set {_BACKEND}={_NEEDED}'
        )
    os.environ[_BACKEND] = _NEEDED


def check() -> None:
    """Checks keras.json and the environment variables for values that make Keras fail at import.

    Raises:
        InputError: a value is invalid; the message names the file or variable, the setting and the allowed values.
    """
    for name in _COUNTS:
        if not re.fullmatch(r'\s*[+-]?\d+\s*', os.environ.get(name, '0')):
            raise InputError(f'{name}={os.environ[name]!r} in the environment: Keras takes a whole number; unset it')
    path = os.path.join(_keras_home(), 'keras.json')
    settings = _read(path)
    for name, allowed in _VALID.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise InputError(f'{path}: {name} is {settings[name]!r}; Keras takes {", ".join(allowed)}')
    if not isinstance(settings.get('epsilon', 0.5), float):
        raise InputError(f'{path}: epsilon is {settings["epsilon"]!r}; Keras takes a number such as 1e-07')


def _keras_home() -> str:
    """Returns the folder in which Keras looks for keras.json."""
    home = os.path.expanduser('~')
    default = os.path.join(home if os.access(home, os.W_OK) else '/tmp', '.keras')
    return os.path.expanduser(os.environ.get('KERAS_HOME', default))


def _read(path: str) -> dict[str, Any]:
    """Returns the settings in a file; empty if it is missing or not JSON, as in Keras."""
    try:
        with open(path, encoding='utf-8') as file:
            settings = json.load(file)
    except (FileNotFoundError, ValueError):
        return {}
    except OSError as error:
        raise InputError(f'{path}: {first_line(error)}') from error
    if not isinstance(settings, dict):
        raise InputError(f'{path}: holds no settings of Keras; delete it, and Keras writes it anew')
    return settings
