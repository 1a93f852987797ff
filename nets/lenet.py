"""LeNet: the small net of slim's MNIST recipes.

Sources: 'Gradient-Based Learning Applied to Document Recognition' (this is a wider variant of its LeNet-5);
research/slim/nets/lenet.py in tensorflow/models.
"""

import functools
from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, truncated_normal

MIN_IMAGE_SIZE = smallest_side([(2, 2), (2, 2)])  # pool1, pool2


def lenet(
    inputs: keras.KerasTensor, num_classes: int | None = 10, *, weight_decay: float = 0.0, **options: Any
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's lenet.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 4x4 pixels.
        num_classes: Number of classes; None or 0 omits dropout3 and fc4.
        weight_decay: L2 factor of the weights of every layer.
        **options: Options of `Builder`.

    Returns:
        The logits, float32 [batch, num_classes], or fc3 [batch, 1024] without classes; and slim's end points
        by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    build = Builder('lenet', inputs, MIN_IMAGE_SIZE, **options)
    normal = functools.partial(build.weights, initializer=truncated_normal(0.1), weight_decay=weight_decay)
    conv = functools.partial(build.conv, layer=keras.layers.Conv2D)
    end_points = build.apply(
        [
            conv(32, 5, **normal('conv1')),
            build.pool('pool1', 2),
            conv(64, 5, **normal('conv2')),
            build.pool('pool2', 2),
            build.flatten('Flatten'),
            build.dense(1024, **normal('fc3')),
        ]
    )
    net = end_points['fc3']
    if not num_classes:
        return net, end_points
    net = build.dropout('dropout3')(net)
    logits = keras.layers.Dense(num_classes, dtype='float32', **normal('fc4'))(net)
    predictions = keras.layers.Softmax(dtype='float32', name='Predictions')(logits)
    return logits, {**end_points, 'dropout3': net, 'Logits': logits, 'Predictions': predictions}
