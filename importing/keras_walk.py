"""A net of ours as a chain of steps, from its layers; the values of the steps are its variables.

walk(make_model('bvlc_alexnet', 1000)).steps[0].values['kernel']                     # of conv1
sketch(lambda: make_model('bvlc_alexnet', 1000)).steps[0].facts['filters']           # without memory for weights
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from importing.chain import Chain, Sides
from nets.layers import Dropout, LocalResponseNormalization
from nets.pooling import AdaptiveAveragePooling2D

_PADDING: dict[str, Sides | str] = {'valid': (0, 0, 0, 0), 'same': 'SAME_UPPER'}
_NORM_VALUES = ('gamma', 'beta', 'moving_mean', 'moving_variance')


def walk(model: keras.Model) -> Chain:
    """Returns the steps of a model from `nets_factory.make_model`, whose layers are a chain."""
    _, height, width, channels = model.input_shape
    chain = Chain(height, width, channels)
    for layer in model.layers:
        _find(layer)(chain, layer)
        activation = getattr(layer, 'activation', keras.activations.linear)
        if activation is keras.activations.relu and not isinstance(layer, keras.layers.ReLU):
            chain.relu(layer.name)
    return chain


def sketch(make_model: Callable[[], keras.Model]) -> Chain:
    """Returns the steps of a model that is only drawn, so that a net of any size can be looked at before it is made."""
    with tf.Graph().as_default():  # where nothing is computed, not even initial weights
        return walk(make_model())


def _find(layer: keras.Layer) -> Callable[[Chain, Any], None]:
    """Returns what adds a layer: that of the closest of its classes."""
    found = next((_ADD[kind] for kind in type(layer).__mro__ if kind in _ADD), None)
    assert found is not None, f'layer {layer.name} is of no kind that can be imported: {type(layer).__name__}'
    return found


def _convolve(chain: Chain, layer: keras.layers.Conv2D) -> None:
    chain.convolve(
        layer.name,
        tuple(layer.kernel.shape),
        strides=layer.strides,
        padding=_PADDING[layer.padding],
        groups=layer.groups,
        dilations=layer.dilation_rate,
        values={'kernel': layer.kernel, 'bias': layer.bias},
    )


def _connect(chain: Chain, layer: keras.layers.Dense) -> None:
    inputs, units = layer.kernel.shape
    chain.connect(layer.name, inputs, units, {'kernel': layer.kernel, 'bias': layer.bias})


def _max_pool(chain: Chain, layer: keras.layers.MaxPooling2D) -> None:
    chain.max_pool(layer.name, layer.pool_size, layer.strides, _PADDING[layer.padding])


def _global_average_pool(chain: Chain, layer: keras.Layer) -> None:
    height, width, _ = chain.extent
    chain.average_pool(layer.name, (height, width), (1, 1), (0, 0, 0, 0))


def _average_regions(chain: Chain, layer: AdaptiveAveragePooling2D) -> None:
    chain.average_regions(layer.name, *layer.output_size)


def _pad(chain: Chain, layer: keras.layers.ZeroPadding2D) -> None:
    (top, bottom), (left, right) = layer.padding
    sides: Sides = (top, left, bottom, right)
    chain.pad(sides)


def _normalize_response(chain: Chain, layer: LocalResponseNormalization) -> None:
    size = 2 * layer.radius + 1
    chain.normalize_response(layer.name, size, layer.alpha * size, layer.beta, layer.bias)


def _normalize_batch(chain: Chain, layer: keras.layers.BatchNormalization) -> None:
    values = {name: getattr(layer, name) for name in _NORM_VALUES}
    chain.normalize_batch(layer.name, layer.moving_mean.shape[0], layer.epsilon, values)


def _nothing(chain: Chain, layer: keras.Layer) -> None:
    """What changes no number, or how flat numbers lie: height, width, channels are that order already."""


_ADD: dict[type, Callable[[Chain, Any], None]] = {
    AdaptiveAveragePooling2D: _average_regions,
    keras.layers.BatchNormalization: _normalize_batch,
    keras.layers.Conv2D: _convolve,
    keras.layers.Dense: _connect,
    keras.layers.GlobalAveragePooling2D: _global_average_pool,
    keras.layers.MaxPooling2D: _max_pool,
    keras.layers.ReLU: lambda chain, layer: chain.relu(layer.name),
    keras.layers.ZeroPadding2D: _pad,
    LocalResponseNormalization: _normalize_response,
    **dict.fromkeys((keras.layers.Flatten, keras.layers.InputLayer, keras.layers.Reshape, Dropout), _nothing),
}
