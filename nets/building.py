"""Shared parts of the nets, in place of slim's arg scopes: width, initial weights and compute type.

build = Builder('lenet', inputs, MIN_IMAGE_SIZE, depth_multiplier=0.5)
normal = functools.partial(build.weights, initializer=truncated_normal(0.1), weight_decay=5e-4)
end_points = build.apply([build.conv(32, 5, **normal('conv1')), build.pool('pool1', 2)])
"""

import contextlib
import contextvars
import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from nets.layers import Conv2D, Dropout, L2Regularizer
from support.errors import InputError, unknown_name

EndPoints = dict[str, keras.KerasTensor]

POLICIES = {
    'float32': 'float32',
    'tf32': 'float32',
    'bfloat16': 'mixed_bfloat16',
    'float16': 'mixed_float16',
}

_zero_weights: contextvars.ContextVar[bool] = contextvars.ContextVar('zero_weights', default=False)


@contextlib.contextmanager
def zero_weights() -> Iterator[None]:
    """Initializes nets built inside it with zeros, for weights that will be loaded at once: drawing takes seconds."""
    token = _zero_weights.set(True)
    try:
        yield
    finally:
        _zero_weights.reset(token)


class Builder:
    """Makes the layers of one net, and applies them to its input.

    Attributes:
        common: Arguments for every Keras layer that has a data format.
        policy: Keras' dtype policy of all layers except the logits.
    """

    def __init__(
        self,
        net: str,
        inputs: keras.KerasTensor,
        smallest: int,
        *,
        is_fixed: bool = True,
        groups: int = 1,
        depth_multiplier: float = 1.0,
        dropout_keep_prob: float = 0.5,
        dtype: str = 'float32',
        seed: int = 0,
    ) -> None:
        """Checks the input and the dtype.

        Args:
            net: Name of the net, for messages.
            inputs: Images, float32 [batch, height, width, channels].
            smallest: Smallest side of images that the net accepts, in pixels.
            is_fixed: Whether a layer has a weight per position, so that the image size must be known.
            groups: Groups of channels, each scaled separately by `depth_multiplier`.
            depth_multiplier: Scales the width of every layer except the logits.
            dropout_keep_prob: Probability, in (0, 1], that dropout keeps a value.
            dtype: float32; or bfloat16 or float16, for all computation except the logits, with float32 variables.
            seed: Seed of the initial weights.

        Raises:
            InputError: The images are too small or of unknown size, or `dtype` is unknown.
        """
        height, width = inputs.shape[1:3]
        if any(side is not None and side < smallest for side in (height, width)):
            raise InputError(f'{net} needs images of at least {smallest}x{smallest} pixels, not {height}x{width}')
        if is_fixed and None in inputs.shape[1:]:
            raise InputError(f'{net} needs a fixed image size, not {inputs.shape[1:]}')
        if dtype not in POLICIES:
            raise unknown_name('dtype', dtype, POLICIES)
        self.policy = POLICIES[dtype]
        self.common = {'data_format': 'channels_last', 'dtype': self.policy}
        self._inputs, self._groups, self._depth_multiplier = inputs, groups, depth_multiplier
        self._keep_prob, self._seed = dropout_keep_prob, seed

    def width(self, channels: int) -> int:
        """Returns the channels of a layer times the multiplier, rounded; raises InputError if that is 0."""
        of_group = channels // self._groups
        scaled = round(of_group * self._depth_multiplier)
        if scaled < 1:
            raise InputError(f'depth_multiplier={self._depth_multiplier} leaves a layer of {of_group} channels none')
        return self._groups * scaled

    def weights(
        self,
        name: str,
        initializer: Callable[..., keras.initializers.Initializer],
        *,
        bias: float = 0.0,
        weight_decay: float = 0.0,
    ) -> dict[str, Any]:
        """Returns a Keras layer's arguments for its name, initializers and weight decay.

        Args:
            name: Name of the layer. The initial weights depend only on it and on the builder's seed.
            initializer: Returns the kernel's initializer for a `seed`.
            bias: Initial value of the biases.
            weight_decay: Factor of the kernel's L2 loss; 0 is none, as in slim. Biases never decay.
        """
        drawn = None if _zero_weights.get() else initializer(seed=zlib.crc32(f'{self._seed}/{name}'.encode()))
        return {
            'name': name,
            'kernel_initializer': drawn or 'zeros',
            'kernel_regularizer': L2Regularizer(weight_decay) if weight_decay else None,
            'bias_initializer': keras.initializers.Constant(bias),
        }

    def conv(
        self, filters: int, size: int, strides: int = 1, *, layer: type[keras.layers.Conv2D] = Conv2D, **options: Any
    ) -> keras.layers.Conv2D:
        """Returns a convolution, with 'same' padding and ReLU by default."""
        options = {'padding': 'same', 'activation': 'relu', **options, **self.common}
        return layer(self.width(filters), size, strides=strides, **options)

    def pool(self, name: str, size: int = 3) -> keras.layers.MaxPooling2D:
        """Returns max pooling over size x size values with stride 2."""
        return keras.layers.MaxPooling2D(size, 2, name=name, **self.common)

    def dense(self, units: int, **options: Any) -> keras.layers.Dense:
        """Returns a fully connected layer with ReLU."""
        return keras.layers.Dense(self.width(units), activation='relu', dtype=self.policy, **options)

    def flatten(self, name: str = 'flatten') -> keras.layers.Flatten:
        """Returns a flatten layer."""
        return keras.layers.Flatten(name=name, **self.common)

    def dropout(self, name: str) -> Dropout:
        """Returns a dropout layer."""
        return Dropout(self._keep_prob, name=name, dtype=self.policy)

    def apply(self, layers: Sequence[keras.Layer], net: keras.KerasTensor | None = None) -> EndPoints:
        """Applies layers in sequence, to the input or to `net`; returns each output by layer name."""
        net = self._inputs if net is None else net
        outputs = {}
        for layer in layers:
            net = outputs[layer.name] = layer(net)
        return outputs


def truncated_normal(stddev: float) -> Callable[..., keras.initializers.Initializer]:
    """Returns a maker of TF1's truncated normal, cut at two standard deviations; `stddev` is before the cut."""
    return functools.partial(keras.initializers.TruncatedNormal, stddev=stddev)


def smallest_side(windows: Sequence[tuple[int, int]]) -> int:
    """Returns the smallest side that yields one position after unpadded windows of (size, stride) pixels."""
    side = 1
    for size, stride in reversed(windows):
        side = size + stride * (side - 1)
    return side
