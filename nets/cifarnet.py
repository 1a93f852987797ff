"""CifarNet: the small net of slim's CIFAR-10 recipes.

Source: research/slim/nets/cifarnet.py in tensorflow/models.
"""

import functools
from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, truncated_normal
from nets.layers import LocalResponseNormalization

MIN_IMAGE_SIZE = smallest_side([(2, 2), (2, 2)])  # pool1, pool2


def cifarnet(
    inputs: keras.KerasTensor, num_classes: int | None = 10, *, weight_decay: float = 0.004, **options: Any
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's cifarnet.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 4x4 pixels.
        num_classes: Number of classes; None or 0 omits the logits.
        weight_decay: L2 factor of the weights of fc3 and fc4; the other layers do not decay.
        **options: Options of `Builder`.

    Returns:
        The logits, float32 [batch, num_classes], or fc4 [batch, 192] without classes; and slim's end points
        by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    build = Builder('cifarnet', inputs, MIN_IMAGE_SIZE, initializer=truncated_normal(0.05), **options)
    conv = functools.partial(build.conv, layer=keras.layers.Conv2D)
    decayed = {'initializer': truncated_normal(0.04), 'bias': 0.1, 'weight_decay': weight_decay}
    net = conv(inputs, 64, 5, 'conv1')
    net = build.max_pool(net, 'pool1', 2)
    net = build.apply(LocalResponseNormalization(name='norm1', dtype=build.policy), net)
    net = conv(net, 64, 5, 'conv2')
    net = build.apply(LocalResponseNormalization(name='norm2', dtype=build.policy), net)
    net = build.max_pool(net, 'pool2', 2)
    net = build.flatten(net, 'Flatten')
    net = build.dense(net, 384, 'fc3', **decayed)
    net = build.dropout(net, 'dropout3')
    net = build.dense(net, 192, 'fc4', **decayed)
    end_points = build.without('norm1', 'norm2', 'dropout3')
    if not num_classes:
        return net, end_points
    logits = build.dense_logits(net, num_classes, 'logits', initializer=truncated_normal(1 / 192))
    return logits, {**end_points, 'Logits': logits, 'Predictions': build.predictions(logits)}
