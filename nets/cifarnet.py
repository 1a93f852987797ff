"""CifarNet: the small net of slim's CIFAR-10 recipes.

Source: research/slim/nets/cifarnet.py in tensorflow/models.
"""

import functools

import keras

from nets.layers import (
    Dropout,
    EndPoints,
    LocalResponseNormalization,
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


def cifarnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 10,
    *,
    weight_decay: float = 0.004,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's cifarnet.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 4x4 pixels.
        num_classes: Number of classes; None or 0 leaves out the logits.
        weight_decay: L2 factor of the weights of fc3 and fc4; the other layers do not decay.
        depth_multiplier: Scales the width of every layer but the logits.
        dropout_keep_prob: Probability, in (0, 1], that dropout3 keeps a value.
        dtype: float32, bfloat16 or float16, in which all but the logits computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc4 [batch, 192] without classes; and slim's end points
        by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    check_image_side('cifarnet', inputs, MIN_IMAGE_SIZE)
    check_fixed_size('cifarnet', inputs)
    policy = layer_policy(dtype)
    width = functools.partial(scale_width, depth_multiplier=depth_multiplier)
    common = {'data_format': 'channels_last', 'dtype': policy}
    conv = functools.partial(keras.layers.Conv2D, kernel_size=5, padding='same', activation='relu', **common)
    pool = functools.partial(keras.layers.MaxPooling2D, 2, 2, **common)
    dense = functools.partial(keras.layers.Dense, activation='relu', dtype=policy)
    conv_weights = functools.partial(weights, initializer=truncated_normal(0.05), seed=seed)
    dense_weights = functools.partial(
        weights, initializer=truncated_normal(0.04), bias=0.1, weight_decay=weight_decay, seed=seed
    )

    layers = [
        conv(width(64), **conv_weights('conv1')),
        pool(name='pool1'),
        LocalResponseNormalization(name='norm1', dtype=policy),
        conv(width(64), **conv_weights('conv2')),
        LocalResponseNormalization(name='norm2', dtype=policy),
        pool(name='pool2'),
        keras.layers.Flatten(name='Flatten', **common),
        dense(width(384), **dense_weights('fc3')),
        Dropout(dropout_keep_prob, name='dropout3', dtype=policy),
        dense(width(192), **dense_weights('fc4')),
    ]
    outputs = apply_layers(inputs, layers)
    hidden = ('norm1', 'norm2', 'dropout3')
    end_points = {name: output for name, output in outputs.items() if name not in hidden}
    if not num_classes:
        return outputs['fc4'], end_points
    logits_weights = weights('logits', truncated_normal(1 / 192), seed=seed)
    logits = keras.layers.Dense(num_classes, dtype='float32', **logits_weights)(outputs['fc4'])
    end_points['Logits'] = logits
    end_points['Predictions'] = keras.layers.Softmax(dtype='float32', name='Predictions')(logits)
    return logits, end_points
