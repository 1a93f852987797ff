"""What the Inception nets share: blocks of parallel towers, each a list of layers.

    net = block(build, net, 'Mixed_3b', [[('Conv2d_0a_1x1', 64)], [('MaxPool_0a_3x3',), ('Conv2d_0b_1x1', 32)]])

A layer is a tuple: slim's name, which ends in the size of its window, the filters of a convolution, the size where the
name has another one, and options by name. A list of layers in its place is applied in parallel and joined.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras

from nets.building import Builder, EndPoints, Norm, squeeze, truncated_normal
from nets.layers import AuxiliaryHead

Layer = Any  # a tuple, or a list of tuples
NORM = Norm()
STRIDED: dict[str, Any] = {'strides': 2, 'padding': 'valid'}


def start(
    name: str, inputs: keras.KerasTensor, smallest: int = 1, *, weight_decay: float = 4e-5, **options: Any
) -> Builder:
    """Returns the builder of an Inception net: normalised without gamma, with slim's weight decay and dropout.

    Args:
        name: Name of the net, for messages.
        inputs: Images, float32 [batch, height, width, channels].
        smallest: Smallest side of images that the net accepts, in pixels.
        weight_decay: L2 factor of the kernels.
        **options: Other options of `Builder`.

    Raises:
        InputError: As `Builder`.
    """
    options = {'dropout_keep_prob': 0.8, **options}
    return Builder(name, inputs, smallest, norm=NORM, weight_decay=weight_decay, **options)


def stem(build: Builder, inputs: keras.KerasTensor) -> keras.KerasTensor:
    """Applies the layers before the first block of inception_v3 and inception_resnet_v2: 299 pixels to 35 positions."""
    net = apply(build, inputs, 'Conv2d_1a_3x3', 32, **STRIDED)
    net = apply(build, net, 'Conv2d_2a_3x3', 32, padding='valid')
    net = apply(build, net, 'Conv2d_2b_3x3', 64)
    net = apply(build, net, 'MaxPool_3a_3x3', **STRIDED)
    net = apply(build, net, 'Conv2d_3b_1x1', 80, padding='valid')
    net = apply(build, net, 'Conv2d_4a_3x3', 192, padding='valid')
    return apply(build, net, 'MaxPool_5a_3x3', **STRIDED)


def block(build: Builder, net: keras.KerasTensor, name: str, towers: Sequence[Sequence[Layer]]) -> keras.KerasTensor:
    """Applies towers, Branch_0 and so on, to `net` and joins their channels."""
    with build.scope(name):
        joined = join(build, net, towers)
    return build.add(name, joined)


def join(build: Builder, net: keras.KerasTensor, towers: Sequence[Sequence[Layer]]) -> keras.KerasTensor:
    """Applies towers, Branch_0 and so on, in the current scope and joins their channels."""
    outputs = [tower(build, net, f'Branch_{i}', layers) for i, layers in enumerate(towers)]
    return build.concat(outputs)


def tower(build: Builder, net: keras.KerasTensor, scope: str, layers: Sequence[Layer]) -> keras.KerasTensor:
    """Applies layers one after another; a list of layers in their place is applied in parallel and joined."""
    with build.scope(scope):
        for layer in layers:
            if isinstance(layer, list):
                parts = [apply(build, net, *each) for each in layer]
                name = f'{layer[0][0]}.concat'
                net = build.concat(parts, name)
            else:
                net = apply(build, net, *layer)
    return net


def apply(
    build: Builder,
    net: keras.KerasTensor,
    name: str,
    filters: int = 0,
    size: int | None = None,
    changed: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> keras.KerasTensor:
    """Applies a convolution or pooling by slim's name; `changed` holds options too."""
    options = {**changed, **options}
    height, width = map(int, re.search(r'_(\d+)x(\d+)$', name).groups())  # type: ignore[union-attr]  # all end so
    window = size or (height, width)
    if name.startswith('MaxPool'):
        return build.max_pool(net, name, window, **{'strides': 1, 'padding': 'same', **options})
    if name.startswith('AvgPool'):
        return build.average_pool(net, name, window, **options)
    return build.conv(net, filters, window, name, **options)


def head(
    build: Builder,
    net: keras.KerasTensor,
    num_classes: int | None,
    net_name: str,
    names: tuple[str, str, str],
    size: int,
    spatial_squeeze: bool,
    global_pool: bool,
    auxiliary: keras.KerasTensor | None = None,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Averages over size x size positions, drops, and applies a convolution of 1x1 to the logits.

    Args:
        build: The builder; its outputs outside blocks are end points.
        net: The features.
        num_classes: Number of classes; None or 0 returns the averages.
        net_name: For messages.
        names: Of the three layers in the scope Logits.
        size: Of the window; smaller images make it smaller.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average over all positions instead.
        auxiliary: Logits of an auxiliary head.

    Returns:
        The logits in float32, or the averages without classes; and slim's end points by name.

    Raises:
        InputError: The images are too large to squeeze.
    """
    end_points = _outside_blocks(build)
    if auxiliary is not None:
        end_points['AuxLogits'] = auxiliary
    with build.scope('Logits'):
        if global_pool:
            net = end_points['global_pool'] = build.global_pool(net)
        else:
            net = end_points[_POOL_POINTS.get(names[0], names[0])] = build.window_pool(net, names[0], size)
        if not num_classes:
            return net, end_points
        net = build.dropout(net, names[1])
        if net_name != 'inception_v1':  # as in slim
            end_points['PreLogits'] = net
        net = build.conv_logits(net, num_classes, names[2])
        if spatial_squeeze:
            net = squeeze(net, net_name, build.scoped('SpatialSqueeze'))
    if auxiliary is not None:
        net = AuxiliaryHead(name='AuxiliaryHead', dtype='float32')([net, auxiliary])
    return net, {**end_points, 'Logits': net, 'Predictions': build.predictions(net)}


def auxiliary_head(
    build: Builder, features: keras.KerasTensor, num_classes: int, names: tuple[str, str, str, str]
) -> keras.KerasTensor:
    """Returns logits, float32 [batch, num_classes], of a fully connected layer over features from inside the net."""
    with build.scope('AuxLogits'):
        net = build.average_pool(features, names[0], 5, 3, padding='valid')
        net = build.conv(net, 128, 1, names[1])
        net = build.conv(net, 768, net.shape[1:3], names[2], padding='valid', initializer=truncated_normal(0.01))
        net = build.flatten(net, 'Flatten')
        return build.dense_logits(net, num_classes, names[3])


def dense_head(
    build: Builder, net: keras.KerasTensor, num_classes: int | None, auxiliary: keras.KerasTensor | None
) -> tuple[keras.KerasTensor, EndPoints]:
    """Averages over all positions, drops, and applies a fully connected layer; otherwise as `head`."""
    end_points = _outside_blocks(build)
    if auxiliary is not None:
        end_points['AuxLogits'] = auxiliary
    with build.scope('Logits'):
        net = end_points['global_pool'] = build.global_pool(net, 'AvgPool_1a')
        if not num_classes:
            return net, end_points
        net = build.flatten(net, 'Flatten')
        net = end_points['PreLogitsFlatten'] = build.dropout(net, 'Dropout_1b')
        net = build.dense_logits(net, num_classes, 'Logits')
    net = AuxiliaryHead(name='AuxiliaryHead', dtype='float32')([net, auxiliary])
    return net, {**end_points, 'Logits': net, 'Predictions': build.predictions(net)}


def _outside_blocks(build: Builder) -> EndPoints:
    return {name: output for name, output in build.outputs.items() if '/' not in name}


_POOL_POINTS = {'AvgPool_1a_7x7': 'AvgPool_1a', 'AvgPool_1a_8x8': 'AvgPool_1a'}
