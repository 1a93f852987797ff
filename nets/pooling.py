"""Pooling that Keras lacks: averages over as many regions as asked for, whatever the input's size.

net = AdaptiveAveragePooling2D((6, 6), name='avgpool')(net)
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from nets.layers import register


@register
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Averages [batch, height, width, channels] over regions to [batch, *output_size, channels].

    Region i of n along a side of s covers floor(i * s / n) to ceil((i + 1) * s / n), and so may overlap the next, as in
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
    """Returns float32 [count, side] whose product with `side` values is the averages of `count` regions of them."""
    first = np.arange(count) * side // count
    last = -(-np.arange(1, count + 1) * side // count)
    places = np.arange(side)
    inside = (first[:, np.newaxis] <= places) & (places < last[:, np.newaxis])
    return (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
