"""Keras' settings: this project's nets need TensorFlow as the backend, whatever KERAS_BACKEND or keras.json say.

    use_tensorflow()     # before Keras is imported: every package that imports it does so first
    check()              # what Keras itself would end with: a keras.json that it cannot take

The other settings, `floatx` and `image_data_format`, change no net of this project: its layers say both themselves.
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
# What Keras asserts of its file.
_VALID: dict[str, tuple[str, ...]] = {
    'floatx': ('float16', 'float32', 'float64'),
    'image_data_format': ('channels_first', 'channels_last'),
}


def use_tensorflow() -> None:
    """Makes TensorFlow the backend of Keras in this process and in those that it starts.

    Raises:
        InputError: Keras is imported already, with another one.
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
    """Refuses a keras.json, and variables of the environment, that Keras fails on while it is imported.

    Raises:
        InputError: the file or variable, the setting, and what is allowed.
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
    """Returns the folder that Keras takes."""
    home = os.path.expanduser('~')
    default = os.path.join(home if os.access(home, os.W_OK) else '/tmp', '.keras')
    return os.path.expanduser(os.environ.get('KERAS_HOME', default))


def _read(path: str) -> dict[str, Any]:
    """Returns the settings in the file; none if it is missing or not JSON, as Keras treats it."""
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
