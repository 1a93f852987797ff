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
    build = Builder('cifarnet', inputs, MIN_IMAGE_SIZE, **options)
    conv = functools.partial(build.conv, layer=keras.layers.Conv2D)
    of_conv = functools.partial(build.weights, initializer=truncated_normal(0.05))
    of_dense = functools.partial(build.weights, initializer=truncated_normal(0.04), bias=0.1, weight_decay=weight_decay)
    outputs = build.apply(
        [
            conv(64, 5, **of_conv('conv1')),
            build.pool('pool1', 2),
            LocalResponseNormalization(name='norm1', dtype=build.policy),
            conv(64, 5, **of_conv('conv2')),
            LocalResponseNormalization(name='norm2', dtype=build.policy),
            build.pool('pool2', 2),
            build.flatten('Flatten'),
            build.dense(384, **of_dense('fc3')),
            build.dropout('dropout3'),
            build.dense(192, **of_dense('fc4')),
        ]
    )
    hidden = ('norm1', 'norm2', 'dropout3')
    end_points = {name: output for name, output in outputs.items() if name not in hidden}
    if not num_classes:
        return outputs['fc4'], end_points
    of_logits = build.weights('logits', truncated_normal(1 / 192))
    logits = keras.layers.Dense(num_classes, dtype='float32', **of_logits)(outputs['fc4'])
    predictions = keras.layers.Softmax(dtype='float32', name='Predictions')(logits)
    return logits, {**end_points, 'Logits': logits, 'Predictions': predictions}
