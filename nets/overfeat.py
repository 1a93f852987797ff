"""OverFeat, its fast model.

Sources: 'OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks',
https://arxiv.org/abs/1312.6229; research/slim/nets/overfeat.py in tensorflow/models.
"""

import functools
from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, squeeze, truncated_normal
from nets.layers import FullyConnectedConv2D

# (size, stride) of conv1, pool1, conv2, pool2, pool5, fc6.
MIN_IMAGE_SIZE = smallest_side([(11, 4), (2, 2), (5, 1), (2, 2), (2, 2), (6, 1)])


def overfeat(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's overfeat.

    Args:
        inputs: float32 [batch, height, width, channels] of at least 231x231 pixels; up to 246x246 yields one position.
        num_classes: Number of classes; None or 0 omits dropout7 and fc8.
        weight_decay: L2 factor of the kernels.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average fc7 over positions, so that larger images yield one position too.
        **options: Options of `Builder`.

    Returns:
        The logits in float32, or fc7 without classes; and slim's end points by name.

    Raises:
        InputError: The images are too small, or too large to squeeze.
    """
    build = Builder('overfeat', inputs, MIN_IMAGE_SIZE, is_fixed=False, weight_decay=weight_decay, **options)
    normal: dict[str, Any] = {'initializer': truncated_normal(0.005)}
    fully_connected: Any = functools.partial(build.conv, layer=FullyConnectedConv2D, bias=0.1, **normal)
    net = build.conv(inputs, 64, 11, 'conv1', 4, padding='valid')
    net = build.max_pool(net, 'pool1', 2)
    net = build.conv(net, 256, 5, 'conv2', padding='valid')
    net = build.max_pool(net, 'pool2', 2)
    net = build.conv(net, 512, 3, 'conv3')
    net = build.conv(net, 1024, 3, 'conv4')
    net = build.conv(net, 1024, 3, 'conv5')
    net = build.max_pool(net, 'pool5', 2)
    net = fully_connected(net, 3072, 6, 'fc6')
    net = build.dropout(net, 'dropout6')
    net = fully_connected(net, 4096, 1, 'fc7')
    end_points = {f'overfeat/{point}': output for point, output in build.without('dropout6').items()}
    if global_pool:
        net = end_points['global_pool'] = build.global_pool(net)
    if not num_classes:
        return net, end_points
    net = build.dropout(net, 'dropout7')
    net = build.conv_logits(net, num_classes, 'fc8', **normal)
    if spatial_squeeze:
        net = squeeze(net, 'overfeat', 'fc8.squeezed')
    return net, {**end_points, 'overfeat/fc8': net}
