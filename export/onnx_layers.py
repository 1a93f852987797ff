"""Keras layers as ONNX operators on images [batch, channels, height, width], the usual layout.

write_layers(graph, model)

The graph has no transposes; instead the weights are transposed here: the first fully connected layer's from the order
height, width, channels of a flattened image to channels, height, width.
"""

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from export.onnx_graph import Graph, Sides
from nets.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Conv2D,
    Dropout,
    FullyConnectedConv2D,
    GroupedConv2D,
    LocalResponseNormalization,
    averaging_matrix,
)
from nets.variables import SEPARATOR
from support.errors import InputError


# Converted layer by layer, because Keras' own export uses tf2onnx, which takes a minute for 200 MB of weights and
# leaves transposes between the layers. A net is a chain of a dozen kinds of layers, so its graph looks like the ONNX
# model zoo's: NCHW, Conv, Relu, LRN, MaxPool, Gemm.
def write_layers(graph: Graph, model: keras.Model) -> None:
    """Adds the layers of a model, which must be a chain.

    Args:
        graph: Its last value is the images, [batch, channels, height, width].
        model: A functional model of images [batch, height, width, channels].

    Raises:
        InputError: ONNX export does not support a layer, or the layers are not a chain.
    """
    check_layers(model)
    for layer in model.layers:
        write = _WRITERS[type(layer)]
        if graph.flattened is not None and write not in _OF_ROWS:
            raise _no_operator(layer, f'{type(layer).__name__} behind a fully connected layer')
        if write not in _PADDING:
            graph.write_padding()
        write(graph, layer)
    graph.write_padding()


def check_layers(model: keras.Model) -> None:
    """Raises InputError if the layers are not a chain, or ONNX export does not support one."""
    for before, layer in itertools.pairwise(model.layers):
        if getattr(layer, 'input', None) is not before.output:
            raise InputError(
                f'layer {layer.name} of {model.name} takes something else than what {before.name} gives: ONNX export '
                'supports only sequential layers; --format=saved_model and --format=tflite take any'
            )
    for layer in model.layers:
        if type(layer) not in _WRITERS:
            raise _no_operator(layer, type(layer).__name__)


def _no_operator(layer: keras.Layer, what: str) -> InputError:
    return InputError(
        f'layer {layer.name}: ONNX export has no operator for {what}; it may be added to _WRITERS of '
        'export/onnx_layers.py, and --format=saved_model takes any layer'
    )


def _scope(layer: keras.Layer) -> str:
    return layer.name.replace(SEPARATOR, '/')


def _convolve(graph: Graph, layer: keras.layers.Conv2D) -> None:
    kernel = layer.kernel.numpy()
    if graph.is_reversed:
        kernel, graph.is_reversed = kernel[:, :, ::-1], False
    pads = _window_sides(layer, layer.kernel_size, layer.dilation_rate)
    name = _scope(layer)
    graph.add(
        'Conv',
        name,
        *_weights(graph, layer, kernel.transpose(3, 2, 0, 1)),
        kernel_shape=layer.kernel_size,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        group=layer.groups,
        pads=[sum(pair) for pair in zip(pads, graph.take_padding(), strict=True)],
    )
    _activate(graph, layer)


def _weights(graph: Graph, layer: Any, kernel: np.ndarray) -> list[str]:
    """Adds the weights of a layer; returns their names."""
    names = [graph.constant(f'{_scope(layer)}/weights', kernel)]
    if layer.use_bias:
        names.append(graph.constant(f'{_scope(layer)}/biases', layer.bias.numpy()))
    return names


def _window_sides(layer: Any, size: tuple[int, int], dilations: tuple[int, int] = (1, 1)) -> Sides:
    """Returns the zeros of 'same' padding: the output has side / stride positions, rounded up."""
    if layer.padding == 'valid':
        return 0, 0, 0, 0
    before, after = [], []
    for side, window, stride, dilation in zip(layer.input.shape[1:3], size, layer.strides, dilations, strict=True):
        total = max((-(-side // stride) - 1) * stride + (window - 1) * dilation + 1 - side, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return before[0], before[1], after[0], after[1]


def _activate(graph: Graph, layer: Any) -> None:
    if layer.activation is keras.activations.relu:
        graph.add('Relu', f'{_scope(layer)}/Relu')
    elif layer.activation is not keras.activations.linear:
        raise _no_operator(layer, f'{type(layer).__name__} with the activation {layer.activation.__name__}')


def _flatten(graph: Graph, layer: keras.Layer) -> None:
    if graph.flattened is None:
        graph.flattened = layer.input.shape[1:]
        graph.add('Flatten', _scope(layer), axis=1)


def _connect(graph: Graph, layer: keras.layers.Dense) -> None:
    if graph.flattened is None:
        raise _no_operator(layer, 'Dense of images that are not flattened')
    _multiply(graph, layer, layer.kernel.numpy().reshape(*graph.flattened, -1))


def _connect_all(graph: Graph, layer: FullyConnectedConv2D) -> None:
    """Adds a matrix product if it equals the convolution, as the layer does."""
    if tuple(layer.input.shape[1:3]) != layer.kernel_size:
        _convolve(graph, layer)
        return
    if graph.flattened is None:
        graph.flattened = layer.input.shape[1:]
        graph.add('Flatten', f'{_scope(layer)}/Flatten', axis=1)
    _multiply(graph, layer, layer.kernel.numpy())


def _multiply(graph: Graph, layer: Any, kernel: np.ndarray) -> None:
    """Adds a product with a kernel [height, width, channels, filters], stored filters first as is usual in ONNX."""
    filters = kernel.shape[-1]
    rows = kernel.transpose(3, 2, 0, 1).reshape(filters, -1)
    graph.add('Gemm', _scope(layer), *_weights(graph, layer, rows), transB=1)
    graph.flattened = (1, 1, filters)
    _activate(graph, layer)


def _pool(graph: Graph, layer: keras.layers.MaxPooling2D) -> None:
    if not graph.is_not_negative:  # ONNX ignores padding in a maximum; zeros would exceed negative values
        graph.write_padding()
    pads = [sum(pair) for pair in zip(_window_sides(layer, layer.pool_size), graph.take_padding(), strict=True)]
    graph.add('MaxPool', _scope(layer), kernel_shape=layer.pool_size, strides=layer.strides, pads=pads)


def _pool_all(graph: Graph, layer: keras.layers.GlobalAveragePooling2D) -> None:
    if graph.flattened is not None:  # only one position
        return
    graph.add('GlobalAveragePool', _scope(layer))
    if not layer.keepdims:
        graph.flattened = (1, 1, layer.input.shape[-1])
        graph.add('Flatten', f'{_scope(layer)}/Flatten', axis=1)


def _pool_regions(graph: Graph, layer: AdaptiveAveragePooling2D) -> None:
    sides, counts, name = layer.input.shape[1:3], layer.output_size, _scope(layer)
    sizes = [side // count for side, count in zip(sides, counts, strict=True)]
    if all(size * count == side for size, count, side in zip(sizes, counts, sides, strict=True)):
        graph.add('AveragePool', name, kernel_shape=sizes, strides=sizes)
        return
    rows, columns = (averaging_matrix(side, count) for side, count in zip(sides, counts, strict=True))
    graph.add('MatMul', f'{name}/columns', graph.constant(f'{name}/over_columns', columns.T))
    graph.combine('MatMul', name, graph.constant(f'{name}/over_rows', rows), graph.value)


def _pad(graph: Graph, layer: keras.layers.ZeroPadding2D) -> None:
    graph.write_padding()
    (top, bottom), (left, right) = layer.padding
    graph.padding = (top, left, bottom, right)


def _normalize_response(graph: Graph, layer: LocalResponseNormalization) -> None:
    size = 2 * layer.radius + 1
    name = _scope(layer)
    with graph.in_float32(name):  # squares need float32's range
        graph.add('LRN', name, size=size, alpha=layer.alpha * size, beta=layer.beta, bias=layer.bias)


def _normalize_batch(graph: Graph, layer: keras.layers.BatchNormalization) -> None:
    if graph.flattened is not None and graph.flattened[:2] != (1, 1):
        raise _no_operator(layer, 'BatchNormalization of flattened images')
    channels, name = layer.moving_mean.shape[0], _scope(layer)
    values = {
        'gamma': layer.gamma.numpy() if layer.scale else np.ones(channels),
        'beta': layer.beta.numpy() if layer.center else np.zeros(channels),
        'moving_mean': layer.moving_mean.numpy(),
        'moving_variance': layer.moving_variance.numpy(),
    }
    with graph.in_float32(name):  # variances need float32's range
        names = [graph.constant(f'{name}/{kind}', value) for kind, value in values.items()]
        graph.add('BatchNormalization', name, *names, epsilon=layer.epsilon)


def _reshape(graph: Graph, layer: keras.layers.Reshape) -> None:
    """Adds a Flatten that drops a height and width of one."""
    if tuple(layer.input.shape[1:-1]) != (1, 1) or layer.output.shape[1:] != layer.input.shape[-1:]:
        raise _no_operator(layer, f'Reshape from {layer.input.shape[1:]} to {layer.output.shape[1:]}')
    _flatten(graph, layer)


def _nothing(graph: Graph, layer: keras.Layer) -> None:
    """Adds nothing, for layers without effect in inference."""


_WRITERS: dict[type, Callable[[Graph, Any], None]] = {
    AdaptiveAveragePooling2D: _pool_regions,
    BatchNormalization: _normalize_batch,
    Conv2D: _convolve,
    Dropout: _nothing,
    FullyConnectedConv2D: _connect_all,
    GroupedConv2D: _convolve,
    LocalResponseNormalization: _normalize_response,
    keras.layers.BatchNormalization: _normalize_batch,
    keras.layers.Conv2D: _convolve,
    keras.layers.Dense: _connect,
    keras.layers.Flatten: _flatten,
    keras.layers.GlobalAveragePooling2D: _pool_all,
    keras.layers.InputLayer: _nothing,
    keras.layers.MaxPooling2D: _pool,
    keras.layers.Reshape: _reshape,
    keras.layers.ZeroPadding2D: _pad,
}
# Writers that include `Graph.padding` in their own.
_PADDING = (_convolve, _pad, _pool)
# Writers that accept flattened values.
_OF_ROWS = (_connect, _connect_all, _flatten, _normalize_batch, _nothing, _pool_all, _reshape)
