"""Shared parts of the nets, in place of slim's arg scopes: names, width, initial weights, normalisation, compute type.

build = Builder('InceptionV1', inputs, MIN_IMAGE_SIZE, norm=Norm(), weight_decay=4e-5)
net = build.conv(inputs, 64, 7, 'Conv2d_1a_7x7', strides=2)
with build.scope('Mixed_3b'):
    branches = [build.conv(net, 64, 1, 'Branch_0.Conv2d_0a_1x1'), build.max_pool(net, 3, 1, 'Branch_3.MaxPool_0a_3x3')]
    net = build.concat(branches)
"""

import contextlib
import contextvars
import dataclasses
import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras

from nets.layers import (
    BatchNormalization,
    Conv2D,
    DepthwiseConv2D,
    Dropout,
    FullyConnectedConv2D,
    L2Regularizer,
    SeparableConv2D,
)
from support.errors import InputError, unknown_name

EndPoints = dict[str, keras.KerasTensor]
Initializer: TypeAlias = Callable[..., Any]  # returns Keras' initializer for a `seed`

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


@dataclasses.dataclass(frozen=True)
class Norm:
    """Slim's batch normalisation of a net.

    Attributes:
        momentum: Share of the moving statistics that a step keeps: slim's decay.
        epsilon: Added to the variance. Slim's 1e-5 is 1.001e-5, the least that TensorFlow's kernel takes.
        scale: Whether there is a gamma; beta is always there.
    """

    momentum: float = 0.9997
    epsilon: float = 0.001
    scale: bool = False


class Builder:
    """Applies the layers of one net; the defaults are those of the net, which a call may replace.

    A layer's name is that of slim's scope, with '.' in place of '/'.

    Attributes:
        inputs: The images.
        outputs: Output of each layer by slim's name inside the net, in the order of the calls: Mixed_3b/Branch_0/...
        common: Arguments for every Keras layer that has a data format.
        policy: Keras' dtype policy of all layers except the logits.
    """

    def __init__(
        self,
        net: str,
        inputs: keras.KerasTensor,
        smallest: int,
        *,
        initializer: Initializer = keras.initializers.GlorotUniform,
        bias: float = 0.0,
        weight_decay: float = 0.0,
        bias_decay: float = 0.0,
        norm: Norm | None = None,
        activation: str | None = 'relu',
        is_fixed: bool = True,
        groups: int = 1,
        depth_multiplier: float = 1.0,
        min_depth: int | None = None,
        dropout_keep_prob: float = 0.5,
        dtype: str = 'float32',
        seed: int = 0,
    ) -> None:
        """Checks the input and the dtype.

        Args:
            net: Name of the net, for messages.
            inputs: Images, float32 [batch, height, width, channels].
            smallest: Smallest side of images that the net accepts, in pixels.
            initializer: Returns a kernel's initializer for a `seed`. The initial weights depend only on the seed and
                on the name of the layer.
            bias: Initial value of the biases.
            weight_decay: Factor of the kernels' L2 loss; 0 is none, as in slim.
            bias_decay: Factor of the biases' L2 loss.
            norm: Normalisation after each convolution, which then has no biases; None is none.
            activation: Of each convolution.
            is_fixed: Whether a layer has a weight per position, so that the image size must be known.
            groups: Groups of channels, each scaled separately by `depth_multiplier`.
            depth_multiplier: Scales the width of every layer except the logits.
            min_depth: Smallest width that scaling leaves, and widths are rounded down; None rounds to the nearest.
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
        self.inputs, self.policy = inputs, POLICIES[dtype]
        self.outputs: EndPoints = {}
        self.common = {'data_format': 'channels_last', 'dtype': self.policy}
        self.norm, self.weight_decay, self._initializer, self._bias = norm, weight_decay, initializer, bias
        self._activation, self._groups, self._bias_decay = activation, groups, bias_decay
        self._depth_multiplier, self._min_depth = depth_multiplier, min_depth
        self._keep_prob, self._seed = dropout_keep_prob, seed
        self._scopes: list[str] = []

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts a scope before the names of all layers that are applied inside it."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def width(self, channels: int) -> int:
        """Returns the channels of a layer times the multiplier; raises InputError if that is 0."""
        of_group = channels // self._groups
        scaled = round(of_group * self._depth_multiplier)
        if self._min_depth:  # slim's nets with a least width round down
            scaled = max(int(of_group * self._depth_multiplier), self._min_depth)
        if scaled < 1:
            raise InputError(f'depth_multiplier={self._depth_multiplier} leaves a layer of {of_group} channels none')
        return self._groups * scaled

    def conv(
        self,
        net: keras.KerasTensor,
        filters: int,
        size: int | tuple[int, int],
        name: str,
        strides: int = 1,
        *,
        layer: type[keras.layers.Conv2D] = Conv2D,
        padding: str = 'same',
        rate: int = 1,
        **options: Any,
    ) -> keras.KerasTensor:
        """Applies a convolution, then the normalisation or biases, then the activation.

        Args:
            net: [batch, height, width, channels].
            filters: Number of filters before `width`.
            size: Height and width of the kernel.
            name: Name of the layer in the current scope.
            strides: Of the windows.
            layer: Keras' layer.
            padding: 'same', as TensorFlow pads, or 'valid'.
            rate: Dilation of the kernel.
            **options: `norm`, `activation`, `initializer`, `bias` and `weight_decay` replace those of the net, and
                False is no norm and no activation; others go to Keras' layer.
        """
        options = {'strides': strides, 'padding': padding, 'dilation_rate': rate, **options}
        make = functools.partial(layer, self.width(filters), size)  # type: ignore[misc]  # keras is not typed
        return self._normalized(net, name, make, **options)

    def conv_to(self, net: keras.KerasTensor, channels: int, size: int, name: str, **options: Any) -> keras.KerasTensor:
        """Applies a convolution with `channels` filters, unscaled by the depth multiplier; otherwise as `conv`."""
        options['dilation_rate'] = options.pop('rate', 1)
        make = functools.partial(Conv2D, channels, size, padding='same')
        return self._normalized(net, name, make, **options)

    def separable(
        self,
        net: keras.KerasTensor,
        filters: int,
        size: int,
        name: str,
        strides: int = 1,
        *,
        depth_multiplier: int = 1,
        **options: Any,
    ) -> keras.KerasTensor:
        """Applies `depth_multiplier` filters to each channel, then a convolution of 1x1; else as `conv`."""
        options = {'strides': strides, 'padding': 'same', 'weight_decay': 0.0, **options}
        make = functools.partial(SeparableConv2D, self.width(filters), size, depth_multiplier=depth_multiplier)
        return self._normalized(net, name, make, **options)

    def depthwise(
        self, net: keras.KerasTensor, size: int, name: str, strides: int = 1, *, rate: int = 1, **options: Any
    ) -> keras.KerasTensor:
        """Applies a convolution of each channel by itself; weights decay only with `weight_decay`. Else as `conv`."""
        options = {'strides': strides, 'padding': 'same', 'dilation_rate': rate, 'weight_decay': 0.0, **options}
        return self._normalized(net, name, functools.partial(DepthwiseConv2D, size), **options)

    def _normalized(
        self,
        net: keras.KerasTensor,
        name: str,
        make: Callable[..., keras.Layer],
        *,
        norm: Norm | bool = True,
        activation: str | bool = True,
        initializer: Initializer | None = None,
        bias: float | None = None,
        weight_decay: float | None = None,
        **options: Any,
    ) -> keras.KerasTensor:
        chosen = norm if isinstance(norm, Norm) else self.norm if norm else None
        function = activation if isinstance(activation, str) else self._activation if activation else None
        weights = self.weights(name, initializer, bias=bias, weight_decay=weight_decay)
        options = {**self.common, **options, **weights}
        if chosen is None:
            return self.add(name, make(activation=function, **options)(net))
        net = make(use_bias=False, **options)(net)
        net = self.batch_norm(net, f'{name}.BatchNorm', chosen)
        return self.add(name, self.activate(net, name, function))

    def batch_norm(self, net: keras.KerasTensor, name: str, norm: Norm) -> keras.KerasTensor:
        """Normalises over batch and positions."""
        layer = BatchNormalization(
            momentum=norm.momentum,
            epsilon=norm.epsilon,
            scale=norm.scale,
            dtype=self.policy,
            name=self.scoped(name),
        )
        return layer(net)

    def activate(self, net: keras.KerasTensor, name: str, activation: str | None) -> keras.KerasTensor:
        """Applies an activation by Keras' name; None is none."""
        if activation is None:
            return net
        return keras.layers.Activation(activation, dtype=self.policy, name=f'{self.scoped(name)}.{activation}')(net)

    def weights(
        self,
        name: str,
        initializer: Initializer | None = None,
        *,
        bias: float | None = None,
        weight_decay: float | None = None,
    ) -> dict[str, Any]:
        """Returns a Keras layer's arguments for its name, initializers and weight decay; None is the net's own.

        Args:
            name: Name of the layer in the current scope.
            initializer: As in `__init__`.
            bias: Initial value of the biases.
            weight_decay: Factor of the kernel's L2 loss.
        """
        name = self.scoped(name)
        make = initializer or self._initializer
        decay = self.weight_decay if weight_decay is None else weight_decay
        drawn = None if _zero_weights.get() else make(seed=zlib.crc32(f'{self._seed}/{name}'.encode()))
        return {
            'name': name,
            'kernel_initializer': drawn or 'zeros',
            'kernel_regularizer': L2Regularizer(decay) if decay else None,
            'bias_initializer': keras.initializers.Constant(self._bias if bias is None else bias),
            'bias_regularizer': L2Regularizer(self._bias_decay) if self._bias_decay else None,
        }

    def max_pool(
        self,
        net: keras.KerasTensor,
        name: str,
        size: int | tuple[int, int] = 3,
        strides: int = 2,
        padding: str = 'valid',
    ) -> keras.KerasTensor:
        """Takes the maximum over size x size values."""
        layer = keras.layers.MaxPooling2D(size, strides, padding=padding, name=self.scoped(name), **self.common)
        return self.add(name, layer(net))

    def average_pool(
        self,
        net: keras.KerasTensor,
        name: str,
        size: int | tuple[int, int] = 3,
        strides: int = 1,
        padding: str = 'same',
    ) -> keras.KerasTensor:
        """Averages over size x size values, of padded windows over those inside the image."""
        layer = keras.layers.AveragePooling2D(size, strides, padding=padding, name=self.scoped(name), **self.common)
        return self.add(name, layer(net))

    def global_pool(self, net: keras.KerasTensor, name: str = 'global_pool') -> keras.KerasTensor:
        """Averages over all positions: [batch, 1, 1, channels]."""
        layer = keras.layers.GlobalAveragePooling2D(keepdims=True, name=self.scoped(name), **self.common)
        return self.add(name, layer(net))

    def window_pool(self, net: keras.KerasTensor, name: str, size: int) -> keras.KerasTensor:
        """Averages over size x size positions, or over all where there are fewer, without padding."""
        return self.average_pool(net, name, self.reduced(net, size), 1, padding='valid')

    @staticmethod
    def reduced(net: keras.KerasTensor, size: int) -> tuple[int, int]:
        """Returns the height and width of a window that a small image makes smaller."""
        height, width = (size if side is None else min(size, side) for side in net.shape[1:3])
        return height, width

    def concat(self, branches: Sequence[keras.KerasTensor], name: str = 'concat') -> keras.KerasTensor:
        """Joins the channels of branches; not an output of its own."""
        return keras.layers.Concatenate(name=self.scoped(name), dtype=self.policy)(branches)

    def sum(self, branches: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        """Adds branches; not an output of its own."""
        return keras.layers.Add(name=self.scoped('add'), dtype=self.policy)(branches)

    def dense(self, net: keras.KerasTensor, units: int, name: str, **options: Any) -> keras.KerasTensor:
        """Applies a fully connected layer with ReLU; options as in `weights`."""
        layer = keras.layers.Dense(
            self.width(units), activation='relu', dtype=self.policy, **self.weights(name, **options)
        )
        return self.add(name, layer(net))

    def flatten(self, net: keras.KerasTensor, name: str = 'flatten') -> keras.KerasTensor:
        """Flattens height, width and channels."""
        return self.add(name, keras.layers.Flatten(name=self.scoped(name), **self.common)(net))

    def dropout(self, net: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Drops values in training."""
        return self.add(name, Dropout(self._keep_prob, name=self.scoped(name), dtype=self.policy)(net))

    def conv_logits(self, net: keras.KerasTensor, num_classes: int, name: str, **options: Any) -> keras.KerasTensor:
        """Applies the last layer at each position, in float32; options as in `weights`."""
        layer = FullyConnectedConv2D(num_classes, 1, dtype='float32', **self.weights(name, **options))
        return self.add(name, layer(net))

    def mean_logits(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        """Averages logits over all positions: [batch, classes], in float32."""
        return keras.layers.GlobalAveragePooling2D(
            data_format='channels_last', dtype='float32', name=self.scoped('SpatialSqueeze')
        )(logits)

    def dense_logits(self, net: keras.KerasTensor, num_classes: int, name: str, **options: Any) -> keras.KerasTensor:
        """Applies the last, fully connected layer, in float32; options as in `weights`."""
        return self.add(name, keras.layers.Dense(num_classes, dtype='float32', **self.weights(name, **options))(net))

    def predictions(self, logits: keras.KerasTensor, name: str = 'Predictions') -> keras.KerasTensor:
        """Applies a softmax, in float32."""
        return self.add(name, keras.layers.Softmax(dtype='float32', name=self.scoped(name))(logits))

    def apply(self, layer: keras.Layer, net: keras.KerasTensor) -> keras.KerasTensor:
        """Applies any other layer, which has a name of its own."""
        return self.add(layer.name, layer(net))

    def scoped(self, name: str) -> str:
        """Returns a layer's name with the scopes before it."""
        return '.'.join([*self._scopes, name])

    def add(self, name: str, output: keras.KerasTensor) -> keras.KerasTensor:
        """Records an output under its name in the current scope and returns it."""
        self.outputs[self.scoped(name).replace('.', '/')] = output
        return output

    def without(self, *names: str) -> EndPoints:
        """Returns the outputs but those named."""
        return {name: output for name, output in self.outputs.items() if name not in names}


def truncated_normal(stddev: float) -> Initializer:
    """Returns a maker of TF1's truncated normal, cut at two standard deviations; `stddev` is before the cut."""
    return functools.partial(keras.initializers.TruncatedNormal, stddev=stddev)


def squeeze(logits: keras.KerasTensor, net: str, name: str) -> keras.KerasTensor:
    """Reshapes [batch, 1, 1, classes] to [batch, classes].

    Raises:
        InputError: There are more positions than one.
    """
    height, width, classes = logits.shape[1:]
    if (height, width) != (1, 1):
        raise InputError(
            f'{net} gives logits at {height}x{width} positions for images of this size, and not one for each '
            'image: give --global_pool, which averages over them, or smaller images (in Python: pass global_pool=True '
            'to make_model, or spatial_squeeze=False to keep them)'
        )
    return keras.layers.Reshape((classes,), dtype='float32', name=name)(logits)


def smallest_side(windows: Sequence[tuple[int, int]]) -> int:
    """Returns the smallest side that yields one position after unpadded windows of (size, stride) pixels."""
    side = 1
    for size, stride in reversed(windows):
        side = size + stride * (side - 1)
    return side
