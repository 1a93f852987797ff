"""PyTorch weights in a .safetensors file, and the layers that they are of: by their shapes, and their order.

weights = load('alexnet.safetensors')
weights.layers[0].name, weights.layers[0].kernel_shape        # 'features.0', (64, 3, 11, 11)
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.errors import InputError, first_line
from engine import extras
from importing.chain import WITH_KERNELS, Step

_KERNELS, _NORMS = ('weight', 'bias'), ('weight', 'bias', 'running_mean', 'running_var')
_OF_NORMS = {'gamma': 'weight', 'beta': 'bias', 'moving_mean': 'running_mean', 'moving_variance': 'running_var'}
_DTYPES = ('F32', 'F16', 'BF16')  # the latter two are widened, exactly
_COUNTER = 'num_batches_tracked'


@dataclasses.dataclass(frozen=True)
class Layer:
    """The tensors of a layer.

    Attributes:
        name: What stands before the last dot of their names.
        shapes: By the name behind it: weight, bias, running_mean, running_var.
    """

    name: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def kernel(self) -> tuple[int, ...] | None:
        """The shape of its kernel: [filters, channels, height, width] or [units, inputs]; None of a normalisation."""
        shape = self.shapes.get('weight', ())
        return shape if len(shape) in (2, 4) else None


@dataclasses.dataclass(frozen=True)
class TorchWeights:
    """A file of them.

    Attributes:
        path: Where it lies.
        layers: Convolutions, fully connected ones and normalisations, each in their order.
    """

    path: str
    layers: tuple[Layer, ...]

    def read(self, layer: Layer) -> dict[str, np.ndarray]:
        """Returns the tensors of a layer, float32, by the name behind the last dot.

        Raises:
            InputError: they cannot be read, or not all numbers are finite.
        """
        values = {}
        with _open(self.path) as file:
            for leaf in layer.shapes:
                name = _join(layer.name, leaf)
                value = values[leaf] = np.asarray(file.get_tensor(name), np.float32)
                bad = value.size - np.count_nonzero(np.isfinite(value))
                if bad:
                    raise InputError(f'--source={self.path}: {name}: {bad} of {value.size} numbers are not finite')
        return values


def load(path: str) -> TorchWeights:
    """Reads names and shapes of a file.

    Raises:
        InputError: it is damaged, not in floats of 16 or 32 bits, or has tensors that layers of these nets do not have.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    with _open(path) as file:
        for name in file.keys():  # noqa: SIM118  # it is no dict
            scope, _, leaf = name.rpartition('.')
            tensor = file.get_slice(name)
            if leaf == _COUNTER:
                continue
            if leaf not in _NORMS or not name.isprintable():
                raise InputError(f'--source={path}: {name!r} is none of {", ".join(_NORMS)}, as PyTorch calls them')
            if tensor.get_dtype() not in _DTYPES:
                raise InputError(
                    f'--source={path}: {name} is {tensor.get_dtype()}; {", ".join(_DTYPES)} are read: save it after '
                    'model.float()'
                )
            shapes.setdefault(scope, {})[leaf] = tuple(tensor.get_shape())
    if not shapes:
        raise InputError(f'--source={path}: no weights in it')
    layers = [Layer(scope, shapes[scope]) for scope in sorted(shapes, key=_natural)]
    return TorchWeights(path, tuple(_in_order(layers)))


def _open(path: str) -> Any:
    safetensors = extras.load('safetensors', 'reading .safetensors files')
    try:
        return safetensors.safe_open(path, framework='numpy')
    except OSError as error:
        raise InputError(f'--source={path}: {error.strerror or first_line(error)}') from error
    except safetensors.SafetensorError as error:
        raise InputError(f'--source={path}: not a .safetensors file, or damaged: {first_line(error)}') from error


def _join(scope: str, leaf: str) -> str:
    return f'{scope}.{leaf}' if scope else leaf


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts features.10 behind features.3."""
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in re.split(r'(\d+)', name)]


def _in_order(layers: list[Layer]) -> list[Layer]:
    """Puts the layers of any net here in their order as far as names do not: `classifier` stands before `features`."""
    ranks = [len(layer.kernel or ()) for layer in layers]
    convolutions, dense, norms = (
        [layer for layer, has in zip(layers, ranks, strict=True) if has == rank] for rank in (4, 2, 0)
    )
    kernels = [layer.kernel or () for layer in convolutions]
    first = next((number for number, kernel in enumerate(kernels) if kernel[1] in (1, 3)), 0)
    return convolutions[first:] + convolutions[:first] + dense + norms


def find_layers(weights: TorchWeights, steps: Sequence[Step], net: str, image_size: int) -> list[Layer]:
    """Returns the layer of each step of a net that has weights: the next one that has its shapes.

    Args:
        weights: The file.
        steps: Those of the net that have weights.
        net: Its name, for messages.
        image_size: Side of the images that the steps are for; for messages too.

    Raises:
        InputError: there is none, or a layer is left.
    """
    left, chosen = list(weights.layers), []
    for step in steps:
        wanted = _shapes_for(step)
        layer = next((layer for layer in left if dict(layer.shapes) in wanted), None)
        if layer is None:
            rank = len(wanted[0]['weight'])
            similar = next((layer for layer in left if len(layer.shapes.get('weight', ())) == rank), None)
            there = f'{similar.name} has {_text(similar.shapes)}' if similar else 'no such layer is left'
            raise InputError(
                f'--source={weights.path}: {there}; {step.where} of {net} needs {_text(wanted[0])} '
                f'for images of {image_size} px'
            )
        left.remove(layer)
        chosen.append(layer)
    if left:
        names = ', '.join(layer.name for layer in left)
        raise InputError(f'--source={weights.path}: {net} has no layer for {names}, {_text(left[0].shapes)}')
    return chosen


def _shapes_for(step: Step) -> list[dict[str, tuple[int, ...]]]:
    """Returns what the tensors of a step may have as shapes."""
    if step.kind not in WITH_KERNELS:
        return [dict.fromkeys(_NORMS, (step.facts['channels'],))]
    height, width, channels = step.extent
    if 'units' in step.facts:
        units, inputs = step.facts['units'], step.facts['inputs']
        kernels = [(units, inputs), (units, channels, height, width)]
    else:
        units = step.facts['filters']
        kernels = [(units, step.facts['channels'], *step.facts['kernel'])]
    return [{'weight': kernel, **bias} for kernel in kernels for bias in ({'bias': (units,)}, {})]


def _text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ', '.join(f'{leaf} {"x".join(map(str, shape))}' for leaf, shape in shapes.items())


def values_for(step: Step, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors of a layer as the values of a step: kernels with the channels last."""
    if step.kind not in WITH_KERNELS:
        return {name: tensors[leaf] for name, leaf in _OF_NORMS.items()}
    kernel = tensors['weight']
    if kernel.ndim == 2:
        height, width, channels = step.extent
        kernel = kernel.reshape(-1, channels, height, width)
    values = {'kernel': kernel.transpose(2, 3, 1, 0)}
    return values | ({'bias': tensors['bias']} if 'bias' in tensors else {})
