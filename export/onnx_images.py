"""How an ONNX graph makes the net's input of the images that it takes: layout, order of the channels, preprocessing.

write_images(graph, interface, normalization)
"""

import numpy as np

from engine.classifiers.interface import Interface
from export.onnx_graph import Graph
from preprocessing import batches
from preprocessing.base import Normalization

_NAME = 'preprocessing'
_PIXEL_AXES = (1, 2, 3)
_AXES_AS_INPUT = 18


def write_images(graph: Graph, interface: Interface, normalization: Normalization, shape: tuple[int, ...]) -> None:
    """Adds what comes before the first layer.

    Args:
        graph: Its last value are the images that the file takes.
        interface: Which these are.
        normalization: What the net's preprocessing does to pixels.
        shape: Height, width and channels of what the net takes.
    """
    if interface.layout == 'NHWC':
        graph.add('Transpose', f'{_NAME}/Transpose', perm=(0, 3, 1, 2))
    # Channels are not turned round: the first kernel is, and the constants here are.
    graph.is_reversed = interface.channel_order != normalization.channel_order
    if not interface.include_preprocessing:
        return
    if normalization.to_grayscale:
        weights = batches.to_grayscale(np.eye(3, dtype=np.float32)).numpy()[:, 0]
        _scale(graph, 'Mul', 'luma_weights', weights[::-1] if interface.channel_order == 'BGR' else weights)
        graph.add('ReduceSum', f'{_NAME}/luma', graph.constant(f'{_NAME}/luma/axes', np.array([1])))
    step = -1 if graph.is_reversed else 1
    if any(normalization.mean):
        _scale(graph, 'Sub', 'mean', np.asarray(normalization.mean)[::step])
    if set(normalization.std) != {1.0}:
        _scale(graph, 'Div', 'std', np.asarray(normalization.std)[::step])
    if normalization.per_image:
        _standardise(graph, int(np.prod(shape)))


def _scale(graph: Graph, operator: str, what: str, values: np.ndarray) -> None:
    """Adds an operator with one number for each channel."""
    constant = graph.constant(f'{_NAME}/{what}', values.reshape(1, -1, 1, 1))
    graph.add(operator, f'{_NAME}/{operator}_{what}', constant)


def _standardise(graph: Graph, size: int) -> None:
    """Adds `tf.image.per_image_standardization`: (x - mean) / max(deviation, 1 / sqrt(size))."""
    name = f'{_NAME}/standardise'
    images = graph.value
    mean = _average(graph, f'{name}/mean')
    centred = graph.combine('Sub', f'{name}/centred', images, mean)
    graph.combine('Mul', f'{name}/squares', centred, centred)
    _average(graph, f'{name}/variance')
    graph.add('Sqrt', f'{name}/deviation')
    least = graph.constant(f'{name}/least_deviation', np.array(size**-0.5))
    deviation = graph.add('Max', f'{name}/Max', least)
    graph.combine('Div', name, centred, deviation)


def _average(graph: Graph, name: str) -> str:
    """Adds the mean over all of an image, whose axes are an attribute before opset 18, and then an input."""
    if graph.opset < _AXES_AS_INPUT:
        return graph.add('ReduceMean', name, axes=_PIXEL_AXES)
    return graph.add('ReduceMean', name, graph.constant(f'{name}/axes', np.array(_PIXEL_AXES)))
