"""Caffe's AlexNets, with the two groups and the local response normalisation of 2012: bvlc_alexnet and caffenet.

Sources: models/bvlc_alexnet and models/bvlc_reference_caffenet of BVLC/caffe; for sizes and padding the ONNX model
zoo's bvlcalexnet and caffenet, which take 224 pixels instead of Caffe's 227 and leave out what pool1 and pool2 cannot
cover. Images are those of the caffe preprocessing, blue first.
"""

import functools
import math
from typing import Any

import keras

from nets.layers import (
    Dropout,
    EndPoints,
    GroupedConv2D,
    LocalResponseNormalization,
    apply_layers,
    check_fixed_size,
    check_image_side,
    layer_policy,
    scale_width,
    smallest_side,
    weights,
)

_GROUPS = 2
MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (2, 2)])  # conv1, pool1, pool2, and pool5, which is padded


def bvlc_alexnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds Caffe's replica of the AlexNet of 2012; norm1 and norm2 come before pool1 and pool2.

    Initial weights are Caffe's: normal of standard deviation 0.01 (0.005 of fc6 and fc7), and biases 0 in conv1, conv3
    and fc8, 0.1 elsewhere. Below the whole width they are wider, so that values keep their size from layer to layer.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 51x51 pixels.
        num_classes: Number of classes; None or 0 leaves out dropout7 and fc8.
        weight_decay: L2 factor of the kernels of every layer; biases do not decay.
        depth_multiplier: Scales the width of each group of every layer but fc8.
        dropout_keep_prob: Probability, in (0, 1], that dropout6 and dropout7 keep a value.
        dtype: float32, bfloat16 or float16, in which all but fc8 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    settings = (weight_decay, depth_multiplier, dropout_keep_prob, dtype, seed)
    return _build('bvlc_alexnet', inputs, num_classes, *settings, pool_first=False)


def caffenet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds Caffe's reference net: bvlc_alexnet with pool1 and pool2 before norm1 and norm2.

    Initial weights are those of bvlc_alexnet: from Caffe's own biases, 1 in place of 0.1, the loss may stay flat.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 51x51 pixels.
        num_classes: Number of classes; None or 0 leaves out dropout7 and fc8.
        weight_decay: L2 factor of the kernels of every layer; biases do not decay.
        depth_multiplier: Scales the width of each group of every layer but fc8.
        dropout_keep_prob: Probability, in (0, 1], that dropout6 and dropout7 keep a value.
        dtype: float32, bfloat16 or float16, in which all but fc8 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    settings = (weight_decay, depth_multiplier, dropout_keep_prob, dtype, seed)
    return _build('caffenet', inputs, num_classes, *settings, pool_first=True)


def _build(
    net_name: str,
    inputs: keras.KerasTensor,
    num_classes: int | None,
    weight_decay: float,
    depth_multiplier: float,
    dropout_keep_prob: float,
    dtype: str,
    seed: int,
    *,
    pool_first: bool,
) -> tuple[keras.KerasTensor, EndPoints]:
    check_image_side(net_name, inputs, MIN_IMAGE_SIZE)
    check_fixed_size(net_name, inputs)
    policy = layer_policy(dtype)
    common = {'data_format': 'channels_last', 'dtype': policy}
    gaussian = functools.partial(_gaussian, depth_multiplier=depth_multiplier, weight_decay=weight_decay, seed=seed)
    conv = functools.partial(GroupedConv2D, activation='relu', **common)
    grouped = functools.partial(conv, padding='same', groups=_GROUPS)
    pool = functools.partial(keras.layers.MaxPooling2D, 3, 2, **common)
    dense = functools.partial(keras.layers.Dense, activation='relu', dtype=policy)
    dropout = functools.partial(Dropout, dropout_keep_prob, dtype=policy)

    def width(filters: int) -> int:
        return _GROUPS * scale_width(filters // _GROUPS, depth_multiplier)

    def pool_and_norm(number: int) -> list[keras.Layer]:
        # Caffe's alpha is that of the sum over all five channels.
        norm = LocalResponseNormalization(2, 1.0, 1e-4 / 5, 0.75, dtype=policy, name=f'norm{number}')
        layers = [pool(name=f'pool{number}'), norm]
        return layers if pool_first else layers[::-1]

    layers = [
        conv(width(96), 11, 4, **gaussian('conv1', depth_multiplier=1.0)),
        *pool_and_norm(1),
        grouped(width(256), 5, **gaussian('conv2', bias=0.1)),
        *pool_and_norm(2),
        conv(width(384), 3, padding='same', **gaussian('conv3')),
        grouped(width(384), 3, **gaussian('conv4', bias=0.1)),
        grouped(width(256), 3, **gaussian('conv5', bias=0.1)),
        # Zeros are never above what an activation has made.
        keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name='pad5', **common),
        pool(name='pool5'),
        keras.layers.Flatten(name='flatten', **common),
        dense(width(4096), **gaussian('fc6', stddev=0.005, bias=0.1)),
        dropout(name='dropout6'),
        dense(width(4096), **gaussian('fc7', stddev=0.005, bias=0.1)),
    ]
    features = apply_layers(inputs, layers)
    hidden = ('pad5', 'dropout6')
    end_points = {f'{net_name}/{name}': output for name, output in features.items() if name not in hidden}
    if not num_classes:
        return features['fc7'], end_points
    net = dropout(name='dropout7')(features['fc7'])
    logits = keras.layers.Dense(num_classes, dtype='float32', **gaussian('fc8'))(net)
    end_points[f'{net_name}/fc8'] = logits
    return logits, end_points


def _gaussian(name: str, depth_multiplier: float, stddev: float = 0.01, **options: Any) -> dict[str, Any]:
    """Returns `weights` of a normal distribution; `stddev` is that at the whole width."""
    # With fewer inputs of the same weights, values shrink from layer to layer, and the loss stays where it begins.
    stddev /= math.sqrt(depth_multiplier)
    return weights(name, functools.partial(keras.initializers.RandomNormal, stddev=stddev), **options)
