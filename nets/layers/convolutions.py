"""Convolutions in the fastest form on CPUs: fully connected ones as matrix products, groups, 3x3 and 5x5.

    with fast_convolutions():
        logits = model(images, training=True)     # `Conv2D` calls `choose`

In float32, Winograd's minimal filtering (`nets.layers.winograd`) is fastest. bfloat16 is too coarse for it; there only
the kernel's gradient is computed differently, as nine matrix products. Results differ from `tf.nn.conv2d` by rounding.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import keras
import tensorflow as tf
from keras import ops

from nets.layers import winograd
from nets.layers.winograd import Gradients
from support.processor import this_processor

# Convolves inputs [batch, height, width, channels] with kernel [side, side, channels, filters], stride 1, 'same'.
Convolve: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Of inputs and of outputs. With fewer, the work around the matrix products outweighs them.
_LEAST_CHANNELS = 64
# Of multiplications, without the cost of the transforms. At 12x12 pixels it is 4, and half of the time is saved.
_LEAST_SAVING = 1.5

_register = keras.saving.register_keras_serializable(package='nets')

_enabled: contextvars.ContextVar[bool] = contextvars.ContextVar('fast_convolutions', default=False)


@contextlib.contextmanager
def fast_convolutions(enabled: bool = True) -> Iterator[None]:
    """Enables fast convolutions in layers called within. Enter it in each replica function: replicas run in threads."""
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def choose(inputs: tf.Tensor, kernel: tf.Tensor) -> Convolve | None:
    """Returns a faster implementation of a convolution with stride 1 and padding 'same', or None.

    Args:
        inputs: [batch, height, width, channels].
        kernel: [height, width, channels / groups, filters].
    """
    height, width, channels, filters = kernel.shape
    if not _enabled.get() or height != width or inputs.shape[-1] != channels:
        return None
    if min(channels, filters) < _LEAST_CHANNELS or None in inputs.shape[1:]:
        return None
    # Only if oneDNN adds the products in float32; TensorFlow's own kernels, on processors without AVX-512, add in
    # bfloat16. Winograd's differences would lose too many of its 8 bits.
    if inputs.dtype == tf.bfloat16:
        return convolve_with_products if height == 3 and this_processor().choices.bfloat16_products else None
    if inputs.dtype != tf.float32 or height not in winograd.FILTERS:
        return None
    # oneDNN has only direct kernels: alexnet_v2's step takes 0.42 instead of 0.68 s at batch 32. The error against
    # float64 is three times a direct convolution's, 3e-6 (5x5: six times, 6e-6); slim's recorded gradients still hold.
    # Prediction and exports stay direct.
    saving = winograd.saving(inputs.shape[1], inputs.shape[2], side=height)
    return winograd.convolve if saving >= _LEAST_SAVING else None


@tf.custom_gradient
def convolve_with_products(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    """Convolves like `tf.nn.conv2d`, with the kernel's gradient as one matrix product per position in the kernel.

    Measured in bfloat16 with AMX, kernel 3x3x384x384: 18 instead of 42 ms for 32 images of 12x12 pixels; at 3x3
    pixels, as in alexnet_bn at 80 px, a whole step of 128 images takes three quarters of the time.
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


@_register
class Conv2D(keras.layers.Conv2D):
    """A convolution that uses the fastest form on CPUs inside `fast_convolutions`."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        is_plain = self.strides == (1, 1) and self.dilation_rate == (1, 1) and self.padding == 'same'
        convolve = choose(inputs, kernel) if is_plain else None
        if convolve:
            return convolve(inputs, tf.convert_to_tensor(kernel))
        return super().convolution_op(inputs, kernel)


@_register
class GroupedConv2D(Conv2D):
    """A convolution in `groups`, each from its share of the channels to its share of the filters.

    Keras' own has no gradient on CPUs. There is one variable, [height, width, channels / groups, filters], with the
    filters of the first group first.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if self.groups == 1:
            return super().convolution_op(inputs, kernel)
        parts = zip(ops.split(inputs, self.groups, axis=-1), ops.split(kernel, self.groups, axis=-1), strict=True)
        return ops.concatenate([super(GroupedConv2D, self).convolution_op(*part) for part in parts], axis=-1)


@_register
class FullyConnectedConv2D(keras.layers.Conv2D):
    """Slim's fully connected layer: a convolution, computed as one matrix product if equivalent.

    Inputs [batch, height, width, channels] with the kernel's height and width have one output position; with
    products, a step of alexnet_v2 takes half the time. Larger inputs, and inputs of unknown size, are convolved without
    padding. The variable is [height, width, channels, filters] either way.
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any) -> None:
        # `from_config` passes these too.
        fixed = {'strides': 1, 'padding': 'valid', 'data_format': 'channels_last'}
        super().__init__(filters, kernel_size, **{**kwargs, **fixed})

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        height, width, channels, filters = kernel.shape
        if tuple(inputs.shape[1:3]) != (height, width):
            return super().convolution_op(inputs, kernel)
        size = height * width * channels
        product = _connect(ops.reshape(inputs, (-1, size)), ops.reshape(kernel, (size, filters)))
        return ops.reshape(product, (-1, 1, 1, filters))


@tf.custom_gradient
def _connect(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
    """Returns `inputs @ kernel`, [batch, filters].

    Its gradient is written out because for few images, on CPUs, `(kernel @ upstream.T).T` takes half the time of
    TensorFlow's `upstream @ kernel.T`: 9 against 19 ms for fc6 and 32 images.
    """

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs_gradient = tf.transpose(tf.matmul(kernel, upstream, transpose_b=True))
        # Afterwards the kernel is no longer read: it can be updated at once, and its gradient, 100 MB, be freed.
        with tf.control_dependencies([inputs_gradient]):
            kernel_gradient = tf.matmul(inputs, upstream, transpose_a=True)
        return inputs_gradient, kernel_gradient

    return tf.matmul(inputs, kernel), gradients


@_register
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' convolution of each channel by itself, which takes its weights' arguments by a convolution's names."""

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        kernel_initializer: Any = 'glorot_uniform',
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        own = {'depthwise_initializer': kernel_initializer, 'depthwise_regularizer': kernel_regularizer}
        super().__init__(kernel_size, **{**own, **kwargs})


@_register
class SeparableConv2D(keras.layers.SeparableConv2D):
    """Keras' depthwise convolution followed by one of 1x1; takes its weights' arguments by a convolution's names."""

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        kernel_initializer: Any = 'glorot_uniform',
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        own = {
            f'{part}_{what}': value
            for part in ('depthwise', 'pointwise')
            for what, value in (('initializer', kernel_initializer), ('regularizer', kernel_regularizer))
        }
        super().__init__(filters, kernel_size, **{**own, **kwargs})
