"""3x3 and 5x5 convolutions with a quarter or a sixth of the multiplications: Winograd's minimal filtering.

    outputs = convolve(inputs, kernel)      # as tf.nn.conv2d(inputs, kernel, 1, 'SAME')

Images are divided into overlapping tiles of 6x6 pixels (8x8 for 5x5 filters), one for each 4x4 pixels of the result.
Fixed matrices transform the pixels of a tile to as many values, and the weights of a filter likewise. Their products
at each place are summed over the channels, by one matrix product per place, and a third matrix transforms the sums to
the 4x4 pixels: 36 multiplications instead of 144 (64 instead of 400), and as few for either gradient. Not for bfloat16,
which loses too much precision in the differences.

Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308. Their interpolation
points for 3x3 are 0, 1, -1, 2, -2; Barabasz et al. 2018, arXiv:1803.10986, found 1/2 in place of 2 more exact.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_OUTPUTS = 4  # pixels of the result along a side of a tile
# Side of a filter -> points at which polynomials are evaluated, besides infinity.
_POINTS = {3: (0.0, 1.0, -1.0, 0.5, -2.0), 5: (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)}
FILTERS = tuple(_POINTS)
# Size limit of one intermediate: larger batches are split, so that intermediates stay in the processor's caches.
_BYTES_OF_PART = 2**26

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class _Filtering:
    """The transforms for filters of one size: `y = outputs @ ((filters @ g) * (inputs @ d))`, where y[i] = d[i:] @ g.

    Attributes:
        outputs: float64 [4, places].
        filters: float64 [places, side of a filter].
        inputs: float64 [places, places].
    """

    outputs: np.ndarray
    filters: np.ndarray
    inputs: np.ndarray

    @property
    def places(self) -> int:
        """The number of values along a side of a tile."""
        return len(self.inputs)


@functools.cache
def _filtering(side: int) -> _Filtering:
    points, places = _POINTS[side], _OUTPUTS + side - 1

    def powers(count: int) -> np.ndarray:
        finite = np.power.outer(np.array(points), np.arange(count))
        return np.vstack([finite, np.arange(count) == count - 1])  # the highest power, at infinity

    return _Filtering(powers(_OUTPUTS).T, powers(side), np.linalg.inv(powers(places)).T)


def saving(height: int, width: int, side: int) -> float:
    """Returns the ratio of multiplications: direct convolution over minimal filtering.

    Args:
        height: Height of the images in pixels; multiples of 4 leave no tile partly empty.
        width: Width of the images.
        side: Side of the filters, in `FILTERS`.
    """
    return height * width * side**2 / (math.prod(_tiles(height, width)) * _filtering(side).places ** 2)


def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves with stride 1 and padding 'same', like `tf.nn.conv2d`.

    Args:
        inputs: float32 [batch, height, width, channels] of known height and width.
        kernel: float32 [side, side, channels, filters], its side in `FILTERS`.

    Returns:
        float32 [batch, height, width, filters].
    """
    height, width = inputs.shape[1:3]
    filtering = _filtering(kernel.shape[0])
    in_parts = functools.partial(_in_parts, channels=max(kernel.shape[2:]), filtering=filtering)

    # Otherwise TensorFlow would keep transformed kernel and inputs, four and two times as large, for the gradients.
    @tf.custom_gradient
    def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.control_dependencies([upstream]):  # otherwise these would be computed early and held in memory
                inputs_again, weights = tf.identity(inputs), _weights(tf.identity(kernel), filtering)

            def of_part(inputs: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                values, products = _values(inputs, filtering), _value_gradient(upstream, filtering)
                inputs_gradient = _image_gradient(
                    tf.matmul(products, weights, transpose_b=True), height, width, filtering
                )
                return inputs_gradient, tf.matmul(values, products, transpose_a=True)

            inputs_gradients, at_places = zip(*in_parts(of_part, inputs_again, upstream), strict=True)
            return tf.concat(inputs_gradients, axis=0), _kernel_gradient(tf.add_n(at_places), filtering)

        weights = _weights(kernel, filtering)

        def of_part(inputs: tf.Tensor) -> tf.Tensor:
            return _pixels(tf.matmul(_values(inputs, filtering), weights), height, width, filtering)

        return tf.concat(in_parts(of_part, inputs), axis=0), gradients

    return convolve(inputs, kernel)


def _in_parts(call: Callable, *batches: tf.Tensor, channels: int, filtering: _Filtering) -> list:
    """Calls a function on consecutive parts of batches and returns its results; a batch of unknown size is not split.

    The largest intermediate of a part is [places**2, part * tiles, channels].
    """
    size, height, width = batches[0].shape[:3]
    if size is None:
        return [call(*batches)]
    bytes_of_one = 4 * channels * filtering.places**2 * math.prod(_tiles(height, width))
    count = min(-(-size * bytes_of_one // _BYTES_OF_PART), size)
    sizes = [size // count + (index < size % count) for index in range(count)]
    results: list = []
    for parts in zip(*(tf.split(batch, sizes) for batch in batches), strict=True):
        with tf.control_dependencies(tf.nest.flatten(results[-1:])):
            results.append(call(*map(tf.identity, parts)))
    return results


def _values(images: tf.Tensor, filtering: _Filtering) -> tf.Tensor:
    """Transforms pixels [batch, height, width, channels] to values [places**2, batch * tiles, channels]."""
    height, width, channels = images.shape[1:]
    places = filtering.places
    rows, columns = (_side_transform(length, places) for length in (height, width))
    values = tf.matmul(rows, tf.reshape(images, [-1, height, width * channels]))
    values = tf.matmul(columns, tf.reshape(values, [-1, width, channels]))
    values = tf.reshape(values, [-1, len(rows) // places, places, len(columns) // places, places, channels])
    return tf.reshape(tf.transpose(values, [2, 4, 0, 1, 3, 5]), [places**2, -1, channels])


def _image_gradient(values: tf.Tensor, height: int, width: int, filtering: _Filtering) -> tf.Tensor:
    """Returns the gradient of the images from the gradient of the values: `_values` transposed."""
    places, channels = filtering.places, values.shape[-1]
    rows, columns = (_side_transform(length, places).T for length in (height, width))
    depth, span = rows.shape[1], columns.shape[1]
    values = tf.reshape(values, [places, places, -1, depth // places, span // places, channels])
    values = tf.reshape(tf.transpose(values, [2, 3, 0, 4, 1, 5]), [-1, span, channels])
    pixels = tf.matmul(rows, tf.reshape(tf.matmul(columns, values), [-1, depth, width * channels]))
    return tf.reshape(pixels, [-1, height, width, channels])


def _pixels(values: tf.Tensor, height: int, width: int, filtering: _Filtering) -> tf.Tensor:
    """Transforms values [places**2, batch * tiles, filters] to the result's [batch, height, width, filters]."""
    filters, (tall, wide) = values.shape[-1], _tiles(height, width)
    pixels = tf.matmul(_output_transform(filtering), tf.reshape(values, [filtering.places**2, -1]))
    pixels = tf.reshape(pixels, [_OUTPUTS, _OUTPUTS, -1, tall, wide, filters])
    pixels = tf.reshape(tf.transpose(pixels, [2, 3, 0, 4, 1, 5]), [-1, tall * _OUTPUTS, wide * _OUTPUTS, filters])
    return pixels[:, :height, :width]


def _value_gradient(pixels: tf.Tensor, filtering: _Filtering) -> tf.Tensor:
    """Returns the gradient of the values from the gradient of the result: `_pixels` transposed."""
    height, width, filters = pixels.shape[1:]
    tall, wide = _tiles(height, width)
    pixels = tf.pad(pixels, [[0, 0], [0, tall * _OUTPUTS - height], [0, wide * _OUTPUTS - width], [0, 0]])
    pixels = tf.reshape(pixels, [-1, tall, _OUTPUTS, wide, _OUTPUTS, filters])
    pixels = tf.reshape(tf.transpose(pixels, [2, 4, 0, 1, 3, 5]), [_OUTPUTS**2, -1])
    products = tf.matmul(_output_transform(filtering), pixels, transpose_a=True)
    return tf.reshape(products, [filtering.places**2, -1, filters])


def _weights(kernel: tf.Tensor, filtering: _Filtering) -> tf.Tensor:
    """Transforms a kernel [side, side, channels, filters] to weights at each place, [places**2, channels, filters]."""
    side, _, channels, filters = kernel.shape
    weights = tf.matmul(_filter_transform(filtering), tf.reshape(kernel, [side**2, channels * filters]))
    return tf.reshape(weights, [filtering.places**2, channels, filters])


def _kernel_gradient(at_places: tf.Tensor, filtering: _Filtering) -> tf.Tensor:
    """Returns the gradient of the kernel from the gradient of the weights, [places**2, channels, filters]."""
    places, channels, filters = at_places.shape
    gradient = tf.matmul(_filter_transform(filtering), tf.reshape(at_places, [places, -1]), transpose_a=True)
    side = filtering.filters.shape[1]
    return tf.reshape(gradient, [side, side, channels, filters])


def _tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // _OUTPUTS), -(-width // _OUTPUTS)


def _output_transform(filtering: _Filtering) -> np.ndarray:
    return np.kron(filtering.outputs, filtering.outputs).astype(np.float32)


def _filter_transform(filtering: _Filtering) -> np.ndarray:
    return np.kron(filtering.filters, filtering.filters).astype(np.float32)


@functools.cache
def _side_transform(length: int, places: int) -> np.ndarray:
    """Returns the transform of one side of an image to the places of its tiles: float32 [tiles * places, length].

    It includes zero padding, also where the last tile extends beyond the image.
    """
    side = places - _OUTPUTS + 1
    tiles = -(-length // _OUTPUTS)
    padded = tiles * _OUTPUTS + side - 1
    transform = np.zeros((tiles, places, padded))
    for tile in range(tiles):
        first = tile * _OUTPUTS
        transform[tile, :, first : first + places] = _filtering(side).inputs
    inside = slice(side // 2, side // 2 + length)
    return transform.reshape(tiles * places, padded)[:, inside].astype(np.float32)
