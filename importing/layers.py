"""Pairs the layers of a source with those of a net by order and shape; unpaired layers are an error with a table.

pairs = pair(source_layers, net_layers(model), 'net.onnx', 'bvlc_alexnet')
tensors, numbers = fill(pairs)
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from support.errors import InputError
from support.tables import format_table

Shapes = Mapping[str, tuple[int, ...]]
Values = dict[str, np.ndarray]

_SAME = 1e-4  # relative; exporters store settings as float32
_MAX_ROWS = 20


@dataclasses.dataclass(frozen=True)
class SourceLayer:
    """A layer of a source, with weights.

    Attributes:
        name: Its name in messages.
        shapes: By variable: kernel, [units, inputs] or [filters, channels of a group, height, width], and bias; or
            gamma, beta, moving_mean and moving_variance.
        read: Returns the float32 values by variable. Raises InputError if they are damaged.
        settings: Settings that shapes do not show, if the source states them: groups, epsilon.
        is_channels_last: Whether the inputs of a kernel [units, inputs] are in the order height, width, channels,
            instead of channels, height, width.
        data: Name of its input value, in a graph.
    """

    name: str
    shapes: Shapes
    read: Callable[[], Values]
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_channels_last: bool = False
    data: str = ''


@dataclasses.dataclass(frozen=True)
class NetLayer:
    """A layer of one of this project's nets, with weights.

    Attributes:
        name: Name of the Keras layer.
        variables: Variables by Keras name.
        shapes: Shapes that a source may have, a common one first; a bias may be missing.
        extent: Height, width and channels of its input; for flat inputs, before flattening.
        settings: As in `SourceLayer`.
    """

    name: str
    variables: Mapping[str, keras.Variable]
    shapes: Sequence[Shapes]
    extent: tuple[int, ...]
    settings: Mapping[str, float]


Pairs = list[tuple[SourceLayer, NetLayer]]


def sketch_layers(make_model: Callable[[], keras.Model]) -> list[NetLayer]:
    """Returns the layers of a model built without memory for its weights, whatever its size."""
    with tf.Graph().as_default():  # computes nothing, not even initial weights
        return net_layers(make_model())


def net_layers(model: keras.Model) -> list[NetLayer]:
    """Returns the layers of a model that have weights, in order."""
    makers = {id(layer.output): layer for layer in model.layers}
    return [_net_layer(layer, makers) for layer in model.layers if layer.variables]


def _net_layer(layer: Any, makers: Mapping[int, Any]) -> NetLayer:
    variables = {variable.name: variable for variable in layer.variables}
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    extent = _extent(layer, makers)
    if 'kernel' not in shapes:
        return NetLayer(layer.name, variables, [shapes], extent, {'epsilon': layer.epsilon})
    groups = getattr(layer, 'groups', 1)
    *window, channels, units = shapes['kernel'] if len(shapes['kernel']) == 4 else (*extent, shapes['kernel'][1])
    kernels = [(units, channels, *window), (units, channels * math.prod(window))]
    if len(shapes['kernel']) == 2:
        kernels.reverse()
    elif (*window, 1, 1, groups) != (*extent[:2], *layer.output.shape[1:3], 1):
        del kernels[1]  # several output positions
    biases: list[Shapes] = [{'bias': (units,)}, {}] if 'bias' in shapes else [{}]
    allowed = [{'kernel': kernel, **bias} for kernel in kernels for bias in biases]
    return NetLayer(layer.name, variables, allowed, extent, {'groups': groups})


def _extent(layer: Any, makers: Mapping[int, Any]) -> tuple[int, ...]:
    """Returns height, width and channels of a layer's input; for flat inputs, before `Flatten` or pooling."""
    tensor, inputs = layer.input, layer.input.shape[-1]
    while len(tensor.shape) == 2:
        maker = makers[id(tensor)]
        if maker.variables or math.prod(maker.input.shape[1:]) != inputs:
            return (1, 1, inputs)
        tensor = maker.input
    return tuple(tensor.shape[1:])


def pair(found: Sequence[SourceLayer], wanted: Sequence[NetLayer], path: str, net: str) -> Pairs:
    """Pairs each layer of a net with the first unpaired layer of the source that has its shapes.

    Args:
        found: The layers of the source.
        wanted: The layers of the net.
        path: The source, for messages.
        net: The net, for messages.

    Raises:
        InputError: Layers are unpaired on either side; the message has a table of them.
    """
    left, pairs, missing = list(found), [], []
    for layer in wanted:
        source = next((source for source in left if _fits(source, layer)), None)
        if source is None:
            missing.append(layer)
        else:
            left.remove(source)
            pairs.append((source, layer))
    if left or missing:
        raise InputError(
            f'--source={path}: not {net}: their layers do not pair, by order and shape; give the --model_name, or '
            f'--image_size, that it is of; what differs:\n{_table(left, missing)}'
        )
    return pairs


def _fits(source: SourceLayer, layer: NetLayer) -> bool:
    same = (math.isclose(value, layer.settings[name], rel_tol=_SAME) for name, value in source.settings.items())
    return source.shapes in layer.shapes and all(same)


def _table(left: Sequence[SourceLayer], missing: Sequence[NetLayer]) -> str:
    """Returns a table of the unpaired layers of both sides."""
    rows = [('layer of the source', '', 'layer of the net', '')]
    for source, layer in itertools.zip_longest(left, missing):
        here = (source.name, _describe(source.shapes, source.settings)) if source else ('none', '')
        rows.append((*here, *((layer.name, _describe(layer.shapes[0], layer.settings)) if layer else ('none', ''))))
    more = [f'  ... and {len(rows) - 1 - _MAX_ROWS} more'] if len(rows) - 1 > _MAX_ROWS else []
    return '\n'.join([format_table(rows[: _MAX_ROWS + 1], indent='  '), *more])


def _describe(shapes: Shapes, settings: Mapping[str, float]) -> str:
    parts = [f'{name} {"x".join(map(str, shape))}' for name, shape in shapes.items()]
    return ', '.join(parts + [f'{name} {value:.5g}' for name, value in settings.items() if (name, value) != _PLAIN])


_PLAIN = ('groups', 1)


def fill(pairs: Pairs) -> tuple[int, int]:
    """Assigns the values of a source to the variables of a net, and zeros to a missing bias.

    Returns:
        The numbers of tensors and of values taken.

    Raises:
        InputError: Values are damaged.
    """
    tensors = numbers = 0
    for source, layer in pairs:
        values = source.read()
        tensors, numbers = tensors + len(values), numbers + sum(value.size for value in values.values())
        if 'kernel' in values:
            values['kernel'] = _turned(values['kernel'], layer.extent, source.is_channels_last)
        for name, variable in layer.variables.items():
            shape = variable.shape
            variable.assign(np.reshape(values[name], shape) if name in values else np.zeros(shape))
    return tensors, numbers


def _turned(kernel: np.ndarray, extent: tuple[int, ...], is_channels_last: bool) -> np.ndarray:
    """Returns the kernel transposed to [height, width, channels, filters]."""
    height, width, channels = extent
    if kernel.ndim == 2 and is_channels_last:
        return kernel.reshape(-1, height, width, channels).transpose(1, 2, 3, 0)
    if kernel.ndim == 2:
        kernel = kernel.reshape(-1, channels, height, width)
    return kernel.transpose(2, 3, 1, 0)
