"""AlexNet v2: one tower, no normalisation, fully connected layers as convolutions.

Sources: 'One weird trick', https://arxiv.org/abs/1404.5997; research/slim/nets/alexnet.py in
tensorflow/models.
"""

import functools
from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, squeeze, truncated_normal
from nets.layers import FullyConnectedConv2D

# (size, stride) of the unpadded windows: conv1, pool1, pool2, pool5, fc6.
MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2), (5, 1)])


def alexnet_v2(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's alexnet_v2.

    Args:
        inputs: float32 [batch, height, width, channels] of at least 195x195 pixels; up to 226x226 yields one
            position.
        num_classes: Number of classes; None or 0 omits dropout7 and fc8.
        weight_decay: L2 factor of the weights of every layer.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average fc7 over positions, so that larger images yield one position too.
        **options: Options of `Builder`.

    Returns:
        The logits in float32, or fc7 [batch, height, width, 4096] without classes; and slim's end points by
        name.

    Raises:
        InputError: The images are too small, or too large to squeeze.
    """
    build = Builder(
        'alexnet_v2', inputs, MIN_IMAGE_SIZE, is_fixed=False, bias=0.1, weight_decay=weight_decay, **options
    )
    fully_connected = functools.partial(build.conv, layer=FullyConnectedConv2D, initializer=truncated_normal(0.005))
    net = build.conv(inputs, 64, 11, 'conv1', 4, padding='valid')
    net = build.max_pool(net, 'pool1')
    net = build.conv(net, 192, 5, 'conv2')
    net = build.max_pool(net, 'pool2')
    net = build.conv(net, 384, 3, 'conv3')
    net = build.conv(net, 384, 3, 'conv4')
    net = build.conv(net, 256, 3, 'conv5')
    net = build.max_pool(net, 'pool5')
    net = fully_connected(net, 4096, 5, 'fc6')
    net = build.dropout(net, 'dropout6')
    net = fully_connected(net, 4096, 1, 'fc7')
    end_points = {f'alexnet_v2/{name}': output for name, output in build.without('dropout6').items()}
    if global_pool:
        net = end_points['global_pool'] = build.global_pool(net)
    if not num_classes:
        return net, end_points
    net = build.dropout(net, 'dropout7')
    net = build.conv_logits(net, num_classes, 'fc8', initializer=truncated_normal(0.005), bias=0.0)
    if spatial_squeeze:
        net = squeeze(net, 'alexnet_v2', 'fc8.squeezed')
    return net, {**end_points, 'alexnet_v2/fc8': net}
