"""A net in operators that TFLite runs and quantizes well, with the same results as `serving.make_computation`.

compute = make_computation(source)
scores = compute(images)

TensorFlow's calibration reads an operator's input again after the operator has run, and elementwise operators
overwrite their input: its measured range is then the union with the output's range, which may be twenty times as
large. Convolutions do not overwrite. So images are scaled, and batches normalised, by 1x1 convolutions, with one scale
for the weights of each channel.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export import serving
from export.source import Source
from nets.layers import BatchNormalization, GroupedConv2D
from preprocessing import batches


def make_computation(source: Source) -> serving.Computation:
    """Returns the exported function, according to `source.interface`."""
    scaling = _make_scaling(source)

    def compute(images: tf.Tensor) -> tf.Tensor:
        first, *layers = source.model.layers  # Keras orders them so that each comes after those it takes from
        values = {id(first.output): _scale(source, scaling, serving.to_channels_last(source, images))}
        for layer in layers:
            inputs = tf.nest.map_structure(lambda tensor: values[id(tensor)], layer.input)
            values[id(layer.output)] = _LAYERS.get(type(layer), _call)(layer, inputs)
        return serving.to_output(source, values[id(source.model.output)])

    return compute


def _scale(source: Source, scaling: tuple[np.ndarray, np.ndarray], images: tf.Tensor) -> tf.Tensor:
    """Converts the file's images to the net's input, both channels last."""
    weights, biases = scaling
    if not np.array_equal(weights, np.eye(len(weights))) or biases.any():
        images = tf.nn.bias_add(tf.nn.conv2d(images, weights[np.newaxis, np.newaxis], 1, 'VALID'), biases)
    is_per_image = source.interface.include_preprocessing and source.preprocessing.normalization.per_image
    return tf.image.per_image_standardization(images) if is_per_image else images


def _make_scaling(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights, float32 [file's channels, net's channels], and biases from the file's images to net input."""
    interface, preprocessing = source.interface, source.preprocessing
    normalization = preprocessing.normalization
    given = preprocessing.source_channels if interface.include_preprocessing else preprocessing.channels
    weights, biases = np.eye(given, dtype=np.float32), np.zeros(preprocessing.channels, np.float32)
    if interface.include_preprocessing:
        if normalization.to_grayscale:
            weights = batches.to_grayscale(weights[:, np.newaxis, np.newaxis]).numpy().reshape(given, 1)
        if normalization.channel_order == 'BGR':
            weights = weights[:, ::-1]
        weights, biases = np.divide(weights, normalization.std), -np.divide(normalization.mean, normalization.std)
    first = 'RGB' if interface.include_preprocessing else normalization.channel_order
    in_order = weights if interface.channel_order == first else weights[::-1]
    return in_order.astype(np.float32), biases.astype(np.float32)


def _call(layer: keras.Layer, net: Any) -> Any:
    return layer(net)


def _normalize_batch(layer: BatchNormalization, net: tf.Tensor) -> tf.Tensor:
    if len(net.shape) != 4:
        return layer(net)
    factors = tf.math.rsqrt(layer.moving_variance + layer.epsilon) * (layer.gamma if layer.scale else 1.0)
    scaled = tf.nn.depthwise_conv2d(net, tf.reshape(factors, [1, 1, -1, 1]), [1, 1, 1, 1], 'VALID')
    return tf.nn.bias_add(scaled, (layer.beta if layer.center else 0.0) - layer.moving_mean * factors)


def _convolve_in_groups(layer: GroupedConv2D, net: tf.Tensor) -> tf.Tensor:
    """Adds biases and activates within each group, fused into its convolution; after all groups it is two operators."""
    parts = (tf.split(value, layer.groups, axis=-1) for value in (net, layer.kernel.value, layer.bias.value))
    outputs = [
        layer.activation(tf.nn.bias_add(tf.nn.conv2d(images, kernel, layer.strides, layer.padding.upper()), bias))
        for images, kernel, bias in zip(*parts, strict=True)
    ]
    return tf.concat(outputs, axis=-1)


_LAYERS: dict[type[keras.Layer], Callable[[Any, Any], Any]] = {
    BatchNormalization: _normalize_batch,
    GroupedConv2D: _convolve_in_groups,
}
