"""The AlexNet of 2012 in one tower: alexnet, without normalisation, and alexnet_bn, with batch normalisation.

Source: 'ImageNet Classification with Deep Convolutional Neural Networks',
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks. Two towers, local
response normalisation and Caffe's weights are in `nets.caffe`.
"""

import functools

import keras

from nets.batch_norm import BatchNormalization
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

# (size, stride) of conv1, pool1, pool2, pool5; the padding of alexnet's conv1 leaves it a window of one pixel.
MIN_IMAGE_SIZE = smallest_side([(1, 4), (3, 2), (3, 2), (3, 2)])
BN_MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2)])


def alexnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds the AlexNet of 2012 in one tower, without normalisation, and with a padded conv1 for small images.

    Its layers are 3, 8, 12, 12, 8, 128 and 128 units of 32 filters wide; depth_multiplier 1/2, 1/4, 1/8 and 1/16 makes
    a unit of 16, 8, 4 and 2. Weights start as Glorot's uniform (https://proceedings.mlr.press/v9/glorot10a.html) and
    biases at 0, slim's and Keras' default.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 57x57 pixels.
        num_classes: Number of classes; None or 0 leaves out dropout7 and fc8.
        weight_decay: L2 factor of the kernels of every layer; biases do not decay.
        depth_multiplier: Scales the width of every layer but fc8.
        dropout_keep_prob: Probability, in (0, 1], that dropout6 and dropout7 keep a value.
        dtype: float32, bfloat16 or float16, in which all but fc8 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    check_image_side('alexnet', inputs, MIN_IMAGE_SIZE)
    settings = (weight_decay, depth_multiplier, dropout_keep_prob, layer_policy(dtype), seed)
    return _build('alexnet', inputs, num_classes, *settings, conv1_padding='same', normalized=False)


def alexnet_bn(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds the AlexNet of 2012 in one tower, with batch normalisation in place of local response normalisation.

    Batch normalisation follows the activation, and has Keras' momentum, 0.99, and epsilon, 0.001. Weights start as
    Glorot's uniform (https://proceedings.mlr.press/v9/glorot10a.html) and biases at 0, slim's and Keras' default.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 67x67 pixels.
        num_classes: Number of classes; None or 0 leaves out dropout7 and fc8.
        weight_decay: L2 factor of the kernels of every layer; biases, gamma and beta do not decay.
        depth_multiplier: Scales the width of every layer but fc8.
        dropout_keep_prob: Probability, in (0, 1], that dropout6 and dropout7 keep a value.
        dtype: float32, bfloat16 or float16, in which all but fc8 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    check_image_side('alexnet_bn', inputs, BN_MIN_IMAGE_SIZE)
    settings = (weight_decay, depth_multiplier, dropout_keep_prob, layer_policy(dtype), seed)
    return _build('alexnet_bn', inputs, num_classes, *settings, conv1_padding='valid', normalized=True)


def _build(
    net_name: str,
    inputs: keras.KerasTensor,
    num_classes: int | None,
    weight_decay: float,
    depth_multiplier: float,
    dropout_keep_prob: float,
    policy: str,
    seed: int,
    *,
    conv1_padding: str,
    normalized: bool,
) -> tuple[keras.KerasTensor, EndPoints]:
    check_fixed_size(net_name, inputs)
    width = functools.partial(scale_width, depth_multiplier=depth_multiplier)
    # From He's, the loss of 1000 classes begins near 20 instead of 7, and lower learning rates diverge already.
    glorot = functools.partial(
        weights, initializer=keras.initializers.GlorotUniform, weight_decay=weight_decay, seed=seed
    )
    common = {'data_format': 'channels_last', 'dtype': policy}
    conv = functools.partial(Conv2D, activation='relu', **common)
    pool = functools.partial(keras.layers.MaxPooling2D, 3, 2, **common)
    dense = functools.partial(keras.layers.Dense, activation='relu', dtype=policy)
    dropout = functools.partial(Dropout, dropout_keep_prob, dtype=policy)

    def norm(name: str) -> list[keras.Layer]:
        return [BatchNormalization(momentum=0.99, epsilon=0.001, dtype=policy, name=name)] if normalized else []

    layers = [
        conv(width(96), 11, 4, padding=conv1_padding, **glorot('conv1')),
        *norm('bn1'),
        pool(name='pool1'),
        conv(width(256), 5, padding='same', **glorot('conv2')),
        *norm('bn2'),
        pool(name='pool2'),
        conv(width(384), 3, padding='same', **glorot('conv3')),
        conv(width(384), 3, padding='same', **glorot('conv4')),
        conv(width(256), 3, padding='same', **glorot('conv5')),
        pool(name='pool5'),
        keras.layers.Flatten(name='flatten', **common),
        dense(width(4096), **glorot('fc6')),
        dropout(name='dropout6'),
        dense(width(4096), **glorot('fc7')),
    ]
    features = apply_layers(inputs, layers)
    end_points = {f'{net_name}/{name}': output for name, output in features.items() if name != 'dropout6'}
    if not num_classes:
        return features['fc7'], end_points
    net = dropout(name='dropout7')(features['fc7'])
    logits = keras.layers.Dense(num_classes, dtype='float32', **glorot('fc8'))(net)
    end_points[f'{net_name}/fc8'] = logits
    return logits, end_points
