"""3x3 and 5x5 convolutions as CPUs compute them fastest, which is not how their library does.

    with fast_convolutions():
        logits = model(images, training=True)     # `nets.layers.Conv2D` asks `choose`

In float32 they are made by Winograd's minimal filtering (`nets.winograd`). In bfloat16, which is too coarse for that,
only the kernel's gradient is made otherwise, as nine matrix products. Results differ by rounding from those of
`tf.nn.conv2d`.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import TypeAlias

import tensorflow as tf

from nets import winograd
from support.processor import this_processor

# From inputs [batch, height, width, channels] and kernel [side, side, channels, filters]: stride 1 and padding 'same'.
Convolve: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
Gradients: TypeAlias = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

# Of inputs and of outputs. Below it, what is done beside the matrix products takes longer than they do.
_LEAST_CHANNELS = 64
# Of multiplications: what the transforms cost is not in it. At 12x12 pixels it is 4, and half of the time is saved.
_LEAST_SAVING = 1.5

_enabled: contextvars.ContextVar[bool] = contextvars.ContextVar('fast_convolutions', default=False)


@contextlib.contextmanager
def fast_convolutions(enabled: bool = True) -> Iterator[None]:
    """Lets layers called inside it convolve so. Enter it in the replica function itself: replicas run in threads."""
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def choose(inputs: tf.Tensor, kernel: tf.Tensor) -> Convolve | None:
    """Returns a faster way to make this convolution, of stride 1 and padding 'same', if it is allowed and there is one.

    Args:
        inputs: [batch, height, width, channels].
        kernel: [height, width, channels / groups, filters].
    """
    height, width, channels, filters = kernel.shape
    if not _enabled.get() or height != width or inputs.shape[-1] != channels:
        return None
    if min(channels, filters) < _LEAST_CHANNELS or None in inputs.shape[1:]:
        return None
    # Only where oneDNN adds the products up in float32; TensorFlow's own kernels, on processors without AVX-512,
    # add up in bfloat16. Winograd's differences would lose too many of its 8 bits.
    if inputs.dtype == tf.bfloat16:
        return convolve_with_products if height == 3 and this_processor().choices.bfloat16_products else None
    if inputs.dtype != tf.float32 or height not in winograd.FILTERS:
        return None
    # oneDNN has direct kernels only: alexnet_v2's step takes 0.42 instead of 0.68 s at batch 32. The distance
    # from float64 is three times that of a direct convolution, 3e-6 (5x5: six times, 6e-6); slim's recorded gradients
    # still hold. Prediction and exports stay direct.
    saving = winograd.saving(inputs.shape[1], inputs.shape[2], side=height)
    return winograd.convolve if saving >= _LEAST_SAVING else None


@tf.custom_gradient
def convolve_with_products(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    """Convolves as `tf.nn.conv2d`, with the kernel's gradient as a matrix product for each of its places.

    Measured in bfloat16 with AMX, kernel 3x3x384x384: 18 instead of 42 ms for 32 images of 12x12 pixels, and at 3x3
    pixels, as alexnet_bn has them of 80 px, a whole step of 128 images takes three quarters of the time.
    """
    side, _, channels, filters = kernel.shape
    height, width = inputs.shape[1:3]

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs_gradient = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), 1, 'SAME')
        border = side // 2
        padded = tf.pad(inputs, [[0, 0], [border, border], [border, border], [0, 0]])
        by_position = tf.reshape(upstream, [-1, filters])
        windows = [padded[:, y : y + height, x : x + width] for y in range(side) for x in range(side)]
        products = [tf.matmul(tf.reshape(each, [-1, channels]), by_position, transpose_a=True) for each in windows]
        return inputs_gradient, tf.reshape(tf.stack(products), kernel.shape)

    return tf.nn.conv2d(inputs, kernel, 1, 'SAME'), gradients
