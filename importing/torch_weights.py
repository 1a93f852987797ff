"""PyTorch weights in a .safetensors file as layers: the part of a name before its last dot is the layer's name.

layers = read_layers('alexnet.safetensors')
layers[0].name, layers[0].shapes        # 'features.0', {'kernel': (64, 3, 11, 11), 'bias': (64,)}
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from importing.layers import SourceLayer, Values
from support import optional_packages
from support.errors import InputError, first_line

_OF_KERNELS = {'weight': 'kernel', 'bias': 'bias'}
_OF_NORMS = {'weight': 'gamma', 'bias': 'beta', 'running_mean': 'moving_mean', 'running_var': 'moving_variance'}
_DTYPES = ('F32', 'F16', 'BF16')  # F16 and BF16 are widened exactly
_COUNTER = 'num_batches_tracked'


def read_layers(path: str) -> list[SourceLayer]:
    """Reads the layers of a file.

    Returns:
        Convolutions, then fully connected layers, then normalisations, each kind in order.

    Raises:
        InputError: It is damaged, not in 16- or 32-bit floats, or has tensors unknown to these nets' layers.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    with _open(path) as file:
        for name in file.keys():  # noqa: SIM118  # not a dict
            scope, _, leaf = name.rpartition('.')
            tensor = file.get_slice(name)
            if leaf == _COUNTER:
                continue
            if leaf not in _OF_NORMS or not name.isprintable():
                raise InputError(
                    f'--source={path}: {name!r} is not one of {", ".join(_OF_NORMS)}, as PyTorch calls them'
                )
            if tensor.get_dtype() not in _DTYPES:
                raise InputError(
                    f'--source={path}: {name} is {tensor.get_dtype()}; {", ".join(_DTYPES)} are read: save it after '
                    'model.float()'
                )
            shapes.setdefault(scope, {})[leaf] = tuple(tensor.get_shape())
    if not shapes:
        raise InputError(f'--source={path}: no weights in it')
    return _in_order([_make_layer(path, scope, shapes[scope]) for scope in sorted(shapes, key=_natural)])


def _make_layer(path: str, scope: str, shapes: Mapping[str, tuple[int, ...]]) -> SourceLayer:
    is_kernel = len(shapes.get('weight', ())) in (2, 4)
    names = {**_OF_NORMS, **(_OF_KERNELS if is_kernel else {})}
    names = {leaf: name for leaf, name in names.items() if leaf in shapes}
    tensors = {name: f'{scope}.{leaf}' if scope else leaf for leaf, name in names.items()}
    ours = {name: shapes[leaf] for leaf, name in names.items()}
    return SourceLayer(scope or path, ours, functools.partial(_read, path, tensors))


def _read(path: str, tensors: Mapping[str, str]) -> Values:
    values = {}
    with _open(path) as file:
        for name, tensor in tensors.items():
            value = values[name] = np.asarray(file.get_tensor(tensor), np.float32)
            bad = value.size - np.count_nonzero(np.isfinite(value))
            if bad:
                raise InputError(f'--source={path}: {tensor}: {bad} of {value.size} numbers are not finite')
    return values


def _open(path: str) -> Any:
    safetensors = optional_packages.load('safetensors', 'reading .safetensors files')
    try:
        return safetensors.safe_open(path, framework='numpy')
    except OSError as error:
        raise InputError(f'--source={path}: {error.strerror or first_line(error)}') from error
    except safetensors.SafetensorError as error:
        raise InputError(f'--source={path}: not a .safetensors file, or damaged: {first_line(error)}') from error


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that puts features.10 after features.3."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', name)]


def _in_order(layers: list[SourceLayer]) -> list[SourceLayer]:
    """Sorts layers where names do not: `classifier` precedes `features` alphabetically."""
    kernels = [layer.shapes.get('kernel', ()) for layer in layers]
    convolutions, dense, norms = (
        [layer for layer, kernel in zip(layers, kernels, strict=True) if len(kernel) == rank] for rank in (4, 2, 0)
    )
    first = next((number for number, layer in enumerate(convolutions) if layer.shapes['kernel'][1] in (1, 3)), 0)
    return convolutions[first:] + convolutions[:first] + dense + norms
