"""torchvision's AlexNet: one tower, no normalisation, a padded conv1, and an average of 6x6 regions before fc6.

Sources: torchvision/models/alexnet.py of pytorch/vision; 'One weird trick', https://arxiv.org/abs/1404.5997. Images are
those of the torchvision preprocessing.
"""

import functools

import keras

from nets.layers import (
    Conv2D,
    Dropout,
    EndPoints,
    apply_layers,
    check_fixed_size,
    check_image_side,
    layer_policy,
    scale_width,
    smallest_side,
    weights,
)
from nets.pooling import AdaptiveAveragePooling2D

_CONV1_PADDING = 2
_POSITIONS = (6, 6)
# (size, stride) of conv1, pool1, pool2, pool5.
MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2)]) - 2 * _CONV1_PADDING


def torchvision_alexnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0001,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds torchvision's alexnet; dropout comes before fc6 and fc7, and not before the last layer.

    Weights start as PyTorch's, uniform within one over the square root of a filter's inputs, but biases at 0.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 63x63 pixels.
        num_classes: Number of classes; None or 0 leaves out fc8.
        weight_decay: L2 factor of the kernels of every layer; biases do not decay.
        depth_multiplier: Scales the width of every layer but fc8.
        dropout_keep_prob: Probability, in (0, 1], that dropout5 and dropout6 keep a value.
        dtype: float32, bfloat16 or float16, in which all but fc8 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name, with
        avgpool among them where pool5 has not 6x6 positions.

    Raises:
        InputError: The image size is too small or unknown.
    """
    check_image_side('torchvision_alexnet', inputs, MIN_IMAGE_SIZE)
    check_fixed_size('torchvision_alexnet', inputs)
    policy = layer_policy(dtype)
    width = functools.partial(scale_width, depth_multiplier=depth_multiplier)
    uniform = functools.partial(weights, initializer=_uniform, weight_decay=weight_decay, seed=seed)
    common = {'data_format': 'channels_last', 'dtype': policy}
    conv = functools.partial(Conv2D, activation='relu', **common)
    pool = functools.partial(keras.layers.MaxPooling2D, 3, 2, **common)
    dense = functools.partial(keras.layers.Dense, activation='relu', dtype=policy)
    dropout = functools.partial(Dropout, dropout_keep_prob, dtype=policy)

    convolutions = [
        # 'same' would pad the last sides more than the first.
        keras.layers.ZeroPadding2D(_CONV1_PADDING, name='pad1', **common),
        conv(width(64), 11, 4, **uniform('conv1')),
        pool(name='pool1'),
        conv(width(192), 5, padding='same', **uniform('conv2')),
        pool(name='pool2'),
        conv(width(384), 3, padding='same', **uniform('conv3')),
        conv(width(256), 3, padding='same', **uniform('conv4')),
        conv(width(256), 3, padding='same', **uniform('conv5')),
        pool(name='pool5'),
    ]
    features = apply_layers(inputs, convolutions)
    is_pooled = features['pool5'].shape[1:3] == _POSITIONS
    average = [] if is_pooled else [AdaptiveAveragePooling2D(_POSITIONS, name='avgpool', dtype=policy)]
    head = [
        *average,
        keras.layers.Flatten(name='flatten', **common),
        dropout(name='dropout5'),
        dense(width(4096), **uniform('fc6')),
        dropout(name='dropout6'),
        dense(width(4096), **uniform('fc7')),
    ]
    features |= apply_layers(features['pool5'], head)
    hidden = ('pad1', 'dropout5', 'dropout6')
    end_points = {f'torchvision_alexnet/{name}': output for name, output in features.items() if name not in hidden}
    if not num_classes:
        return features['fc7'], end_points
    logits = keras.layers.Dense(num_classes, dtype='float32', **uniform('fc8'))(features['fc7'])
    end_points['torchvision_alexnet/fc8'] = logits
    return logits, end_points


def _uniform(seed: int) -> keras.initializers.Initializer:
    """Returns the initializer of PyTorch's layers: within one over the square root of a filter's inputs."""
    return keras.initializers.VarianceScaling(1 / 3, mode='fan_in', distribution='uniform', seed=seed)
