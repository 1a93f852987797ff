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
    build = Builder(
        'lenet', inputs, MIN_IMAGE_SIZE, initializer=truncated_normal(0.1), weight_decay=weight_decay, **options
    )
    conv = functools.partial(build.conv, layer=keras.layers.Conv2D)
    net = conv(inputs, 32, 5, 'conv1')
    net = build.max_pool(net, 'pool1', 2)
    net = conv(net, 64, 5, 'conv2')
    net = build.max_pool(net, 'pool2', 2)
    net = build.flatten(net, 'Flatten')
    net = build.dense(net, 1024, 'fc3')
    if not num_classes:
        return net, build.outputs
    net = build.dropout(net, 'dropout3')
    logits = build.dense_logits(net, num_classes, 'fc4')
    predictions = build.predictions(logits)
    return logits, {**build.without('fc4', 'Predictions'), 'Logits': logits, 'Predictions': predictions}
