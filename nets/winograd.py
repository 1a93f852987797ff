"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, as a few matrix products.

    outputs = convolve(inputs, kernel)      # as tf.nn.conv2d(inputs, kernel, 1, 'SAME')

Images are cut into tiles of 6x6 pixels that overlap by 2. Along each side of a tile a fixed matrix turns its 6 values
into 6 others, as another one does with the 3 weights of a filter; products of these at each of the 36 places, summed
over the channels by 36 matrix products, are turned back into 4x4 pixels by a third one: 36 multiplications instead of
144, and as few for either gradient. Not for bfloat16, which loses too much in the differences.

Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308. Their interpolation
points are 0, 1, -1, 2, -2; Barabasz et al. 2018, arXiv:1803.10986, found 1/2 in place of 2 more exact.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_FILTER, _OUTPUTS = 3, 4  # along a side: weights of a filter, pixels that come of a tile
_PLACES = _OUTPUTS + _FILTER - 1  # values of a tile
_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)  # and infinity


def saving(height: int, width: int) -> float:
    """Returns how many times fewer multiplications images of so many pixels need: 4 where all tiles are whole."""
    tiles = math.prod(-(-side // _OUTPUTS) for side in (height, width))
    return height * width * _FILTER**2 / (tiles * _PLACES**2)


def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves with stride 1 and padding 'same', as `tf.nn.conv2d`.

    Args:
        inputs: float32 [batch, height, width, channels] of known height and width.
        kernel: float32 [3, 3, channels, filters].

    Returns:
        float32 [batch, height, width, filters].
    """
    (into_rows, from_rows), (into_columns, from_columns) = map(_side_transforms, inputs.shape[1:3])

    # By itself TensorFlow would keep transformed kernel and inputs, four and two times as large, for the gradients.
    @tf.custom_gradient
    def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.control_dependencies([upstream]):  # or it would wait in memory from the beginning
                values = _to_places(tf.identity(inputs), into_rows, into_columns)
                weights = _weights(tf.identity(kernel))
            products = _to_places(upstream, from_rows.T, from_columns.T)
            inputs_gradient = _from_places(tf.matmul(products, weights, transpose_b=True), into_rows.T, into_columns.T)
            weights_gradient = tf.reshape(tf.matmul(values, products, transpose_a=True), [_PLACES**2, -1])
            kernel_gradient = tf.matmul(_FILTER_TRANSFORM, weights_gradient, transpose_a=True)
            return inputs_gradient, tf.reshape(kernel_gradient, kernel.shape)

        values = _to_places(inputs, into_rows, into_columns)
        return _from_places(tf.matmul(values, _weights(kernel)), from_rows, from_columns), gradients

    return convolve(inputs, kernel)


def _to_places(images: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> tf.Tensor:
    """Turns the pixels of each tile into values at 36 places.

    Args:
        images: [batch, height, width, channels].
        rows: [tiles along the height * 6, height].
        columns: [tiles along the width * 6, width].

    Returns:
        [36, batch * tiles, channels].
    """
    height, width, channels = images.shape[1:]
    values = tf.matmul(rows, tf.reshape(images, [-1, height, width * channels]))
    values = tf.matmul(columns, tf.reshape(values, [-1, width, channels]))
    values = tf.reshape(values, [-1, len(rows) // _PLACES, _PLACES, len(columns) // _PLACES, _PLACES, channels])
    return tf.reshape(tf.transpose(values, [2, 4, 0, 1, 3, 5]), [_PLACES**2, -1, channels])


def _from_places(values: tf.Tensor, rows: np.ndarray, columns: np.ndarray) -> tf.Tensor:
    """Turns the values of 36 places, [36, batch * tiles, channels], into [batch, height, width, channels].

    Args:
        values: As `_to_places` returns them.
        rows: [height, tiles along the height * 6].
        columns: [width, tiles along the width * 6].
    """
    channels, (height, depth), (width, span) = values.shape[-1], rows.shape, columns.shape
    values = tf.reshape(values, [_PLACES, _PLACES, -1, depth // _PLACES, span // _PLACES, channels])
    values = tf.reshape(tf.transpose(values, [2, 3, 0, 4, 1, 5]), [-1, span, channels])
    pixels = tf.matmul(rows, tf.reshape(tf.matmul(columns, values), [-1, depth, width * channels]))
    return tf.reshape(pixels, [-1, height, width, channels])


def _weights(kernel: tf.Tensor) -> tf.Tensor:
    """Turns [3, 3, channels, filters] into weights at 36 places, [36, channels, filters]."""
    channels, filters = kernel.shape[2:]
    weights = tf.matmul(_FILTER_TRANSFORM, tf.reshape(kernel, [_FILTER**2, channels * filters]))
    return tf.reshape(weights, [_PLACES**2, channels, filters])


def _minimal_filtering() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns A, G, B, float64, with `y = A @ ((G @ g) * (B @ d))`, where `y[i] = sum(d[i + j] * g[j] over j)`.

    Columns are powers of the points, where a polynomial is evaluated: A [4, 6], G [6, 3], B [6, 6].
    """

    def powers(count: int) -> np.ndarray:
        finite = np.power.outer(np.array(_POINTS), np.arange(count))
        return np.vstack([finite, np.arange(count) == count - 1])  # the highest power, at infinity

    return powers(_OUTPUTS).T, powers(_FILTER), np.linalg.inv(powers(_PLACES)).T


_A, _G, _B = _minimal_filtering()
_FILTER_TRANSFORM = np.kron(_G, _G).astype(np.float32)


@functools.cache
def _side_transforms(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what turns a side of so many pixels into the values of its tiles, and products there into pixels.

    Zeros outside of the image, and tiles that stand out, are part of them: float32 [6 * tiles, length] and
    [length, 6 * tiles].
    """
    tiles = -(-length // _OUTPUTS)
    padded = tiles * _OUTPUTS + _FILTER - 1
    into, back = np.zeros((tiles, _PLACES, padded)), np.zeros((tiles * _OUTPUTS, tiles, _PLACES))
    for tile in range(tiles):
        first = tile * _OUTPUTS
        into[tile, :, first : first + _PLACES] = _B
        back[first : first + _OUTPUTS, tile] = _A
    inside = slice(_FILTER // 2, _FILTER // 2 + length)
    return (
        into.reshape(tiles * _PLACES, padded)[:, inside].astype(np.float32),
        back.reshape(-1, tiles * _PLACES)[:length].astype(np.float32),
    )
