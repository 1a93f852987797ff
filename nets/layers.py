"""Layers of slim that Keras lacks: slim's L2, fully connected layers, repeatable dropout.

    logits = model(images, training=True)      # random as any Keras model; `model.fit` trains it
    with step_randomness(seed, example_offset=0):
        logits = model(images, training=True)  # the same whenever the seed is

All are registered with Keras, so that models made of them can be saved and loaded.
"""

import contextlib
import contextvars
import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from nets import fast_convolutions
from support.errors import InputError, unknown_name

_PHILOX = 1  # TensorFlow's number of the algorithm
_SCRAMBLING_KEY = 0x02461E293EC8F720  # of `tf.random.stateless_uniform`, for seeds

POLICIES = {
    'float32': 'float32',
    'tf32': 'float32',
    'bfloat16': 'mixed_bfloat16',
    'float16': 'mixed_float16',
}

EndPoints = dict[str, keras.KerasTensor]

register = keras.saving.register_keras_serializable(package='nets')


@register
class L2Regularizer(keras.regularizers.Regularizer):
    """Slim's L2, `weight_decay * sum(w^2) / 2`; Keras' own has no half.

    Its gradient is `weight_decay * w`: the training loop adds it to that of the other losses itself, for
    which it reads `variable.regularizer.weight_decay`. Source: tf_slim/layers/regularizers.py.
    """

    def __init__(self, weight_decay: float) -> None:
        self.weight_decay = float(weight_decay)

    def __call__(self, weights: Any) -> Any:
        return self.weight_decay / 2 * ops.sum(ops.square(weights))

    def get_config(self) -> dict[str, Any]:
        return {'weight_decay': self.weight_decay}


def l2_regularizer(weight_decay: float) -> L2Regularizer | None:
    """Returns the regularizer, or None at exactly 0, as slim does."""
    return L2Regularizer(weight_decay) if weight_decay else None


@register
class FullyConnectedConv2D(keras.layers.Conv2D):
    """Slim's fully connected layer: a convolution, run as one matrix product where that is the same.

    Inputs [batch, height, width, channels] of the kernel's height and width have one output position, and
    with products a step of alexnet_v2 takes half the time that it takes with convolutions. Inputs that are
    larger, or of unknown size, are convolved without padding. The variable is [height, width, channels,
    filters] either way.
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
def _connect(
    inputs: tf.Tensor, kernel: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    """Returns `inputs @ kernel`, [batch, filters].

    Its gradient is written out because for few images, on CPUs, `(kernel @ upstream.T).T` takes half the time of
    TensorFlow's `upstream @ kernel.T`: 9 against 19 ms for fc6 and 32 images.
    """

    def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        inputs_gradient = tf.transpose(tf.matmul(kernel, upstream, transpose_b=True))
        # Then the kernel, which nothing reads any more, can be updated at once, and its gradient, 100 MB, is gone.
        with tf.control_dependencies([inputs_gradient]):
            kernel_gradient = tf.matmul(inputs, upstream, transpose_a=True)
        return inputs_gradient, kernel_gradient

    return tf.matmul(inputs, kernel), gradients


@register
class Conv2D(keras.layers.Conv2D):
    """A convolution, which inside of `nets.fast_convolutions.fast_convolutions` is made as is fastest on CPUs."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        is_plain = self.strides == (1, 1) and self.dilation_rate == (1, 1) and self.padding == 'same'
        convolve = fast_convolutions.choose(inputs, kernel) if is_plain else None
        if convolve:
            return convolve(inputs, tf.convert_to_tensor(kernel))
        return super().convolution_op(inputs, kernel)


@register
class GroupedConv2D(Conv2D):
    """A convolution in `groups`, each from its share of the channels to its share of the filters.

    Keras' own has no gradient on CPUs. The variable is one, [height, width, channels / groups, filters], with the
    filters of the first group first.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if self.groups == 1:
            return super().convolution_op(inputs, kernel)
        parts = zip(ops.split(inputs, self.groups, axis=-1), ops.split(kernel, self.groups, axis=-1), strict=True)
        return ops.concatenate([super(GroupedConv2D, self).convolution_op(*part) for part in parts], axis=-1)


@register
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by `(bias + alpha * sum of squares over 2 * radius + 1 channels) ** beta`.

    Source: 'ImageNet Classification with Deep Convolutional Neural Networks', section 3.3. The defaults
    are those of slim's cifarnet.
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
        # TensorFlow has no bfloat16 kernel for it.
        normalized = tf.nn.local_response_normalization(
            tf.cast(inputs, tf.float32), self.radius, self.bias, self.alpha, self.beta
        )
        return tf.cast(normalized, inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        window = {'radius': self.radius, 'bias': self.bias, 'alpha': self.alpha, 'beta': self.beta}
        return {**super().get_config(), **window}


@dataclasses.dataclass(frozen=True)
class _StepRandomness:
    seed: tf.Tensor
    example_offset: int | tf.Tensor


_step_randomness: contextvars.ContextVar[_StepRandomness | None] = contextvars.ContextVar(
    'step_randomness', default=None
)


_zero_weights: contextvars.ContextVar[bool] = contextvars.ContextVar('zero_weights', default=False)


@contextlib.contextmanager
def step_randomness(seed: tf.Tensor, example_offset: int | tf.Tensor) -> Iterator[None]:
    """Gives the `Dropout` layers called inside it their random numbers.

    The numbers are those of the whole batch, of which each replica draws its own rows, so that N replicas drop exactly
    what one device would. Enter it in the replica function itself: replicas run in threads, and each sees its own only.

    Args:
        seed: int [2], another one for every step.
        example_offset: Position of the first image in the whole batch.
    """
    token = _step_randomness.set(_StepRandomness(tf.convert_to_tensor(seed), example_offset))
    try:
        yield
    finally:
        _step_randomness.reset(token)


@register
class Dropout(keras.layers.Layer):
    """Drops values in training and divides the kept ones by `keep_prob`; the identity otherwise.

    Inside `step_randomness` the mask is a pure function of its seed and of the layer's name, so that a step can be
    repeated. Elsewhere it is that of Keras' dropout, whose seed `keras.utils.set_random_seed` sets and which goes on
    from call to call.

    Raises:
        InputError: `keep_prob` is outside (0, 1].
    """

    def __init__(self, keep_prob: float, *, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if not 0.0 < keep_prob <= 1.0:
            raise InputError(f'dropout_keep_prob={keep_prob}: must be greater than 0 and at most 1')
        self.keep_prob = keep_prob
        generator = keras.random.SeedGenerator()
        # As an attribute itself it would be a variable of the net, and in its checkpoints.
        self._seed_generator = lambda: generator

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.keep_prob == 1.0:
            return inputs
        step = _step_randomness.get()
        if step is None:
            return keras.random.dropout(inputs, 1.0 - self.keep_prob, seed=self._seed_generator())
        kept = self._bits(step, tf.shape(inputs)) < tf.constant(round(self.keep_prob * 2**32), tf.uint32)
        return tf.where(kept, inputs / self.keep_prob, tf.zeros_like(inputs))

    def _bits(self, step: _StepRandomness, shape: tf.Tensor) -> tf.Tensor:
        """Returns uint32 of `shape`, over its whole range: the rows, from `example_offset` on, of one endless draw."""
        # Philox by name: the default differs between devices and under XLA. Bits and not floats, which XLA makes
        # otherwise of the same bits.
        seed = tf.random.experimental.stateless_fold_in(step.seed, _name_hash(self.name), alg='philox')
        sizes = tf.cast(shape, tf.int64)
        return tf.reshape(
            _philox_bits(
                seed, tf.cast(step.example_offset, tf.int64) * tf.reduce_prod(sizes[1:]), tf.reduce_prod(sizes)
            ),
            shape,
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), 'keep_prob': self.keep_prob}


def _philox_bits(seed: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns uint32 [count]: what `tf.random.stateless_uniform` gives of a larger draw from its number `first` on.

    Philox makes numbers of a counter, four at a time, so that what lies before need not be drawn.
    """
    draw = functools.partial(tf.raw_ops.StatelessRandomUniformFullIntV2, alg=_PHILOX)
    # As there; `StatelessRandomGetKeyCounter` makes another key of a negative seed under XLA.
    scrambled = draw(shape=[2], key=[_SCRAMBLING_KEY], counter=tf.cast(seed, tf.uint64), dtype=tf.uint64)
    counter = tf.stack([tf.cast(first // 4, tf.uint64), scrambled[1]])
    bits = draw(shape=[count + 4], key=scrambled[:1], counter=counter, dtype=tf.uint32)
    return tf.slice(bits, [first % 4], [count])  # of a size that XLA knows


def _name_hash(name: str) -> int:
    """Returns a number in [0, 2^31) that, unlike `hash`, is the same in every process."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


@contextlib.contextmanager
def zero_weights() -> Iterator[None]:
    """Lets nets that are built inside it begin with zeros, for weights that are read at once: drawing takes seconds."""
    token = _zero_weights.set(True)
    try:
        yield
    finally:
        _zero_weights.reset(token)


def weights(
    name: str,
    initializer: Callable[..., keras.initializers.Initializer],
    *,
    bias: float = 0.0,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns the arguments of a Keras layer that name it and say how its variables start and decay.

    A net binds all but the name with `functools.partial`, where slim had an arg scope.

    Args:
        name: Name of the layer. The initial weights depend on it and on `seed` alone.
        initializer: Makes the kernel's initializer from a `seed`.
        bias: Initial value of the biases.
        weight_decay: Factor of the L2 loss of the kernel. Biases never decay.
        seed: Seed of the run.
    """
    return {
        'name': name,
        'kernel_initializer': 'zeros'
        if _zero_weights.get()
        else initializer(seed=zlib.crc32(f'{seed}/{name}'.encode())),
        'kernel_regularizer': l2_regularizer(weight_decay),
        'bias_initializer': keras.initializers.Constant(bias),
    }


def truncated_normal(stddev: float) -> Callable[..., keras.initializers.Initializer]:
    """Returns a maker of TF1's truncated normal: cut at two of the `stddev`, which is that before the cut."""
    return functools.partial(keras.initializers.TruncatedNormal, stddev=stddev)


def apply_layers(net: keras.KerasTensor, layers: Sequence[keras.Layer]) -> EndPoints:
    """Applies one layer after the other; returns the output of each by its name, in that order."""
    outputs = {}
    for layer in layers:
        net = outputs[layer.name] = layer(net)
    return outputs


def layer_policy(dtype: str) -> str:
    """Returns the Keras policy for float32, or for bfloat16 or float16 (computes in it, float32 variables)."""
    if dtype not in POLICIES:
        raise unknown_name('dtype', dtype, POLICIES)
    return POLICIES[dtype]


def scale_width(width: int, depth_multiplier: float) -> int:
    """Returns the channels of a layer times the multiplier, rounded; raises InputError if that is none."""
    scaled = round(width * depth_multiplier)
    if scaled < 1:
        raise InputError(f'depth_multiplier={depth_multiplier} leaves a layer of {width} channels none')
    return scaled


def smallest_side(windows: Sequence[tuple[int, int]]) -> int:
    """Returns the smallest side that leaves one position after unpadded windows of (size, stride) pixels."""
    side = 1
    for size, stride in reversed(windows):
        side = size + stride * (side - 1)
    return side


def check_image_side(net: str, inputs: keras.KerasTensor, smallest: int) -> None:
    """Refuses images, [batch, height, width, channels], that are known to be too small for the net."""
    height, width = inputs.shape[1:3]
    if any(side is not None and side < smallest for side in (height, width)):
        raise InputError(f'{net} needs images of at least {smallest}x{smallest} pixels, not {height}x{width}')


def check_fixed_size(net: str, inputs: keras.KerasTensor) -> None:
    """Refuses images of unknown size: the net has a layer with one weight for each position."""
    if None in inputs.shape[1:]:
        raise InputError(f'{net} needs a fixed image size, not {inputs.shape[1:]}')
