"""torchvision's AlexNet: one tower, no normalisation, a padded conv1, and an average of 6x6 regions before fc6.

Sources: torchvision/models/alexnet.py of pytorch/vision; 'One weird trick', https://arxiv.org/abs/1404.5997. It uses
the torchvision preprocessing.
"""

import functools
from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side
from nets.layers import AdaptiveAveragePooling2D

_CONV1_PADDING = 2
_POSITIONS = (6, 6)
# (size, stride) of conv1, pool1, pool2, pool5.
MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2)]) - 2 * _CONV1_PADDING


def torchvision_alexnet(
    inputs: keras.KerasTensor, num_classes: int | None = 1000, *, weight_decay: float = 0.0001, **options: Any
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds torchvision's alexnet; dropout precedes fc6 and fc7, not the last layer.

    Weights start as in PyTorch, uniform within 1 / sqrt(inputs of a filter), but biases at 0.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 63x63 pixels.
        num_classes: Number of classes; None or 0 omits fc8.
        weight_decay: L2 factor of the kernels of every layer; biases do not decay.
        **options: Options of `Builder`.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name,
        including avgpool unless pool5 has 6x6 positions.

    Raises:
        InputError: The image size is too small or unknown.
    """
    uniform = functools.partial(keras.initializers.VarianceScaling, 1 / 3, mode='fan_in', distribution='uniform')
    build = Builder(
        'torchvision_alexnet', inputs, MIN_IMAGE_SIZE, initializer=uniform, weight_decay=weight_decay, **options
    )
    # 'same' would pad more at the end than at the start.
    net = build.apply(keras.layers.ZeroPadding2D(_CONV1_PADDING, name='pad1', **build.common), inputs)
    net = build.conv(net, 64, 11, 'conv1', 4, padding='valid')
    net = build.max_pool(net, 'pool1')
    net = build.conv(net, 192, 5, 'conv2')
    net = build.max_pool(net, 'pool2')
    net = build.conv(net, 384, 3, 'conv3')
    net = build.conv(net, 256, 3, 'conv4')
    net = build.conv(net, 256, 3, 'conv5')
    net = build.max_pool(net, 'pool5')
    if net.shape[1:3] != _POSITIONS:
        net = build.apply(AdaptiveAveragePooling2D(_POSITIONS, name='avgpool', dtype=build.policy), net)
    net = build.flatten(net)
    net = build.dropout(net, 'dropout5')
    net = build.dense(net, 4096, 'fc6')
    net = build.dropout(net, 'dropout6')
    net = build.dense(net, 4096, 'fc7')
    hidden = ('pad1', 'dropout5', 'dropout6')
    end_points = {f'torchvision_alexnet/{name}': output for name, output in build.without(*hidden).items()}
    if not num_classes:
        return net, end_points
    logits = build.dense_logits(net, num_classes, 'fc8')
    return logits, {**end_points, 'torchvision_alexnet/fc8': logits}
