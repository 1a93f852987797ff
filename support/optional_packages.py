"""Optional dependencies: packages that only some commands need and only the extra `export` installs.

onnx = optional_packages.load('onnx', 'reading ONNX files')
"""

import importlib
import types

from support.errors import InputError, first_line


def load(package: str, purpose: str) -> types.ModuleType:
    """Imports an optional package or one of its modules.

    Args:
        package: Its name, e.g. 'onnxruntime' or 'onnx.inliner'.
        purpose: The task that needs it, as the start of a message: 'reading ONNX files'.

    Raises:
        InputError: the package is not installed or cannot be loaded.
    """
    name = package.partition('.')[0]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise InputError(f'{purpose}: {name} cannot be loaded: {first_line(error)}') from error
        raise InputError(f"{purpose} needs the extra `export`: pip install -e '.[export]'") from error
    except ImportError as error:
        raise InputError(f'{purpose}: {name} cannot be loaded: {first_line(error)}') from error
