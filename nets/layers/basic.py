"""Slim's L2, local response normalisation, and adaptive average pooling."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

_register = keras.saving.register_keras_serializable(package='nets')


@_register
class L2Regularizer(keras.regularizers.Regularizer):
    """Slim's L2, `weight_decay * sum(w^2) / 2`; Keras' own lacks the half.

    Its gradient is `weight_decay * w`. The training loop adds it to the gradient of the other losses itself, and
    reads `variable.regularizer.weight_decay` for that. Source: tf_slim/layers/regularizers.py.
    """

    def __init__(self, weight_decay: float) -> None:
        self.weight_decay = float(weight_decay)

    def __call__(self, weights: Any) -> Any:
        return self.weight_decay / 2 * ops.sum(ops.square(weights))

    def get_config(self) -> dict[str, Any]:
        return {'weight_decay': self.weight_decay}


@_register
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by `(bias + alpha * sum of squares over 2 * radius + 1 channels) ** beta`.

    Source: 'ImageNet Classification with Deep Convolutional Neural Networks', section 3.3. The defaults
    match slim's cifarnet.
    """

    def __init__(
        self,
        radius: int = 4,
        bias: float = 1.0,
        alpha: float = 0.001 / 9.0,
        beta: float = 0.75,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.radius, self.bias, self.alpha, self.beta = radius, bias, alpha, beta

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # TensorFlow has no bfloat16 kernel for this.
        normalized = tf.nn.local_response_normalization(
            tf.cast(inputs, tf.float32), self.radius, self.bias, self.alpha, self.beta
        )
        return tf.cast(normalized, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        window = {'radius': self.radius, 'bias': self.bias, 'alpha': self.alpha, 'beta': self.beta}
        return {**super().get_config(), **window}


@_register
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Averages [batch, height, width, channels] over regions to [batch, *output_size, channels].

    Region i of n along a side of s covers floor(i * s / n) to ceil((i + 1) * s / n), and may overlap the next, as in
    PyTorch. It is computed as two products with small constant matrices. Height and width must be known.
    """

    def __init__(self, output_size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output_size = tuple(output_size)

    def call(self, inputs: Any) -> Any:
        height, width = inputs.shape[1:3]
        over_rows, over_columns = (
            ops.convert_to_tensor(averaging_matrix(side, count), self.compute_dtype)
            for side, count in zip((height, width), self.output_size, strict=True)
        )
        channels = inputs.shape[-1]
        rows = ops.matmul(over_rows, ops.reshape(inputs, (-1, height, width * channels)))
        return ops.matmul(over_columns, ops.reshape(rows, (-1, self.output_size[0], width, channels)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.output_size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), 'output_size': self.output_size}


def averaging_matrix(side: int, count: int) -> np.ndarray:
    """Returns float32 [count, side]; its product with `side` values is the averages of `count` regions."""
    first = np.arange(count) * side // count
    last = -(-np.arange(1, count + 1) * side // count)
    places = np.arange(side)
    inside = (first[:, np.newaxis] <= places) & (places < last[:, np.newaxis])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
