"""What MobileNet v2, v3 and EdgeTPU share: a table of bottlenecks, and a net made of it.

Source: research/slim/nets/mobilenet/mobilenet.py and conv_blocks.py in tensorflow/models.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from nets.building import Builder, EndPoints, Norm, truncated_normal

MIN_IMAGE_SIZE = 1
_DIVISOR = 8  # of all numbers of channels


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution.

    Attributes:
        filters: Number of filters before the multiplier.
        size: Side of the kernel.
        stride: Of the windows.
        norm: Whether it is normalised; otherwise it has biases.
        activation: Keras' name.
    """

    filters: int
    size: int = 1
    stride: int = 1
    norm: bool = True
    activation: str = 'relu'


@dataclasses.dataclass(frozen=True)
class Bottleneck:
    """An expansion by 1x1, a depthwise convolution, and a projection by 1x1; the input is added if it has its shape.

    Attributes:
        expansion: Channels inside, over those of the input.
        filters: Channels of the output before the multiplier.
        size: Side of the depthwise kernel.
        stride: Of the depthwise convolution.
        activation: Keras' name, inside.
        squeeze: Whether channels are weighted by squeeze and excitation.
        fused: Whether the expansion is the convolution of this size and stride, without a depthwise one.
        residual: Whether the input is added.
    """

    expansion: float
    filters: int
    size: int = 3
    stride: int = 1
    activation: str = 'relu'
    squeeze: bool = False
    fused: bool = False
    residual: bool = True


@dataclasses.dataclass(frozen=True)
class Pool:
    """The mean over all positions."""


def mobilenet(
    name: str,
    table: Sequence[Conv | Bottleneck | Pool],
    inputs: keras.KerasTensor,
    num_classes: int | None,
    *,
    weight_decay: float,
    depth_multiplier: float,
    fine_grained: bool,
    output_stride: int | None,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds a net of a table; depthwise kernels do not decay.

    Args:
        name: For messages.
        table: Its layers, from the first.
        inputs: float32 [batch, height, width, channels].
        num_classes: Number of classes; None or 0 returns the features.
        weight_decay: L2 factor of the other kernels.
        depth_multiplier: Scales the channels of every layer but the logits, to multiples of 8.
        fine_grained: Whether the last layer of the table keeps its channels.
        output_stride: Ratio of the sides of images and features; None is 32. Beyond it, convolutions are dilated.
        **options: Options of `Builder`.

    Returns:
        The logits, float32 [batch, num_classes], or the features without classes; and slim's end points by name.
    """
    build = Builder(
        name,
        inputs,
        MIN_IMAGE_SIZE,
        initializer=truncated_normal(0.09),
        weight_decay=weight_decay,
        norm=Norm(momentum=0.997, scale=True),
        is_fixed=False,
        **{'dropout_keep_prob': 0.8, **options},
    )
    net = inputs
    points: EndPoints = {}
    inner: EndPoints = {}
    stride, rate, convolutions, bottlenecks = 1, 1, 0, 0
    for number, layer in enumerate(table, start=1):
        if isinstance(layer, Pool):
            net = points[f'layer_{number}'] = build.global_pool(net, f'layer_{number}.pool')
            continue
        dilated = output_stride is not None and stride * layer.stride > output_stride
        step, of_layer = (1, rate) if dilated else (layer.stride, 1)
        rate, stride = rate * (layer.stride if dilated else 1), stride * step
        scaled = 1.0 if fine_grained and number == len(table) else depth_multiplier
        channels = divisible(layer.filters * scaled)
        if isinstance(layer, Conv):
            scope = f'Conv_{convolutions}' if convolutions else 'Conv'
            of_conv = {'strides': step, 'rate': of_layer, 'activation': layer.activation, 'norm': layer.norm}
            net = build.conv_to(net, channels, layer.size, scope, **of_conv)
            convolutions += 1
        else:
            scope = f'expanded_conv_{bottlenecks}' if bottlenecks else 'expanded_conv'
            with build.scope(scope):
                net, outputs = _bottleneck(build, net, layer, channels, step, of_layer)
            inner |= {f'layer_{number}/{point}': output for point, output in outputs.items()}
            bottlenecks += 1
        points[f'layer_{number}'] = net
    with build.scope('Logits'):
        net = build.global_pool(net)
        points = {**points, **inner, 'global_pool': net}
        if not num_classes:
            return net, points
        net = build.dropout(net, 'Dropout')
        net = build.conv_logits(net, num_classes, 'Conv2d_1c_1x1', initializer=truncated_normal(0.09))
        net = build.mean_logits(net)
    return net, {**points, 'Logits': net, 'Predictions': build.predictions(net)}


def _bottleneck(
    build: Builder, inputs: keras.KerasTensor, layer: Bottleneck, channels: int, stride: int, rate: int
) -> tuple[keras.KerasTensor, EndPoints]:
    """Applies a bottleneck; returns its output and slim's end points inside it."""
    net, outputs = inputs, {}
    expanded = divisible(inputs.shape[-1] * layer.expansion)
    if expanded > inputs.shape[-1]:
        size = {'strides': stride, 'rate': rate} if layer.fused else {}
        side = layer.size if layer.fused else 1
        net = build.conv_to(net, expanded, side, 'expand', activation=layer.activation, **size)
        outputs['expansion_output'] = net
    if not layer.fused:
        net = build.depthwise(net, layer.size, 'depthwise', stride, rate=rate, activation=layer.activation)
        outputs['depthwise_output'] = net
    if layer.squeeze:
        net = _squeeze_and_excite(build, net)
    net = build.conv_to(net, channels, 1, 'project', activation=False)
    if layer.residual and layer.stride == 1 and net.shape[-1] == inputs.shape[-1]:
        net = build.sum([net, inputs])
    return net, {**outputs, 'output': net}


def _squeeze_and_excite(build: Builder, inputs: keras.KerasTensor) -> keras.KerasTensor:
    channels = inputs.shape[-1]
    with build.scope('squeeze_excite'):
        net = build.global_pool(inputs, 'pool')
        net = build.conv_to(net, divisible(channels / 4), 1, 'Conv', norm=False, activation='relu')
        net = build.conv_to(net, channels, 1, 'Conv_1', norm=False, activation=False)
        for name, make in (
            ('shift', keras.layers.Rescaling(1.0, 3.0, name=build.scoped('shift'), dtype=build.policy)),
            ('relu6', keras.layers.Activation('relu6', name=build.scoped('relu6'), dtype=build.policy)),
            # Slim's constant, not 1/6.
            ('scale', keras.layers.Rescaling(0.16667, name=build.scoped('scale'), dtype=build.policy)),
        ):
            net = build.add(name, make(net))
        return keras.layers.Multiply(name=build.scoped('weigh'), dtype=build.policy)([inputs, net])


def divisible(channels: float) -> int:
    """Returns the nearest multiple of 8, at least 8, that is not over a tenth smaller."""
    nearest = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest + _DIVISOR if nearest < 0.9 * channels else nearest
