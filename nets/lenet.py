"""LeNet: the small net of slim's MNIST recipes.

Sources: 'Gradient-Based Learning Applied to Document Recognition', of whose LeNet-5 it is a wider variant;
research/slim/nets/lenet.py in tensorflow/models.
"""

import functools

import keras

from nets.layers import (
    Dropout,
    EndPoints,
    apply_layers,
    check_fixed_size,
    check_image_side,
    layer_policy,
    scale_width,
    smallest_side,
    truncated_normal,
    weights,
)

MIN_IMAGE_SIZE = smallest_side([(2, 2), (2, 2)])  # pool1, pool2


def lenet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 10,
    *,
    weight_decay: float = 0.0,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's lenet.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 4x4 pixels.
        num_classes: Number of classes; None or 0 leaves out dropout3 and fc4.
        weight_decay: L2 factor of the weights of every layer.
        depth_multiplier: Scales the width of every layer but fc4.
        dropout_keep_prob: Probability, in (0, 1], that dropout3 keeps a value.
        dtype: float32, bfloat16 or float16, in which all but fc4 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc3 [batch, 1024] without classes; and slim's end points
        by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    check_image_side('lenet', inputs, MIN_IMAGE_SIZE)
    check_fixed_size('lenet', inputs)
    policy = layer_policy(dtype)
    width = functools.partial(scale_width, depth_multiplier=depth_multiplier)
    common = {'data_format': 'channels_last', 'dtype': policy}
    conv = functools.partial(keras.layers.Conv2D, kernel_size=5, padding='same', activation='relu', **common)
    pool = functools.partial(keras.layers.MaxPooling2D, 2, 2, **common)
    normal = functools.partial(weights, initializer=truncated_normal(0.1), weight_decay=weight_decay, seed=seed)

    layers = [
        conv(width(32), **normal('conv1')),
        pool(name='pool1'),
        conv(width(64), **normal('conv2')),
        pool(name='pool2'),
        keras.layers.Flatten(name='Flatten', **common),
        keras.layers.Dense(width(1024), activation='relu', dtype=policy, **normal('fc3')),
    ]
    end_points = apply_layers(inputs, layers)
    net = end_points['fc3']
    if not num_classes:
        return net, end_points
    net = Dropout(dropout_keep_prob, name='dropout3', dtype=policy)(net)
    logits = keras.layers.Dense(num_classes, dtype='float32', **normal('fc4'))(net)
    predictions = keras.layers.Softmax(dtype='float32', name='Predictions')(logits)
    return logits, {**end_points, 'dropout3': net, 'Logits': logits, 'Predictions': predictions}
