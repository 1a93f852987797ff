"""Caffe's AlexNets, with the two groups and the local response normalisation of 2012: bvlc_alexnet and caffenet.

Sources: models/bvlc_alexnet and models/bvlc_reference_caffenet of BVLC/caffe; sizes and padding are from the ONNX
model zoo's bvlcalexnet and caffenet, which take 224 pixels instead of Caffe's 227 and drop pixels that pool1 and pool2
cannot cover. The nets use the caffe preprocessing, blue first.
"""

import functools
import math
from typing import Any

import keras

from nets.building import Builder, EndPoints, Initializer, smallest_side
from nets.layers import GroupedConv2D, LocalResponseNormalization

MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (2, 2)])  # conv1, pool1, pool2, and pool5, which is padded


def bvlc_alexnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    depth_multiplier: float = 1.0,
    pool_first: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds Caffe's replica of the AlexNet of 2012; norm1 and norm2 come before pool1 and pool2.

    Initial weights are Caffe's: normal with standard deviation 0.01 (0.005 in fc6 and fc7), and biases 0 in conv1,
    conv3 and fc8, 0.1 elsewhere. A depth_multiplier below 1 raises the deviations, so activations keep their scale.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 51x51 pixels.
        num_classes: Number of classes; None or 0 omits dropout7 and fc8.
        weight_decay: L2 factor of the kernels of every layer; biases do not decay.
        depth_multiplier: Scales the width of each group of every layer except fc8.
        pool_first: Whether to build caffenet, Caffe's reference net: pool1 and pool2 before norm1 and norm2. With
            Caffe's own biases, 1 in place of 0.1, its loss may not decrease.
        **options: Options of `Builder`.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    net_name = 'caffenet' if pool_first else 'bvlc_alexnet'
    build = Builder(
        net_name,
        inputs,
        MIN_IMAGE_SIZE,
        groups=2,
        depth_multiplier=depth_multiplier,
        weight_decay=weight_decay,
        **options,
    )
    conv = functools.partial(build.conv, layer=GroupedConv2D)
    grouped = functools.partial(conv, groups=2)

    def gaussian(stddev: float = 0.01, scale: float = depth_multiplier) -> Initializer:
        # With fewer inputs and equal weights, activations shrink from layer to layer, and the loss does not decrease.
        return functools.partial(keras.initializers.RandomNormal, stddev=stddev / math.sqrt(scale))

    def pool_and_norm(net: keras.KerasTensor, number: int) -> keras.KerasTensor:
        # Caffe's alpha applies to the sum over all five channels.
        norm = LocalResponseNormalization(2, 1.0, 1e-4 / 5, 0.75, dtype=build.policy, name=f'norm{number}')
        if pool_first:
            return build.apply(norm, build.max_pool(net, f'pool{number}'))
        return build.max_pool(build.apply(norm, net), f'pool{number}')

    net = conv(inputs, 96, 11, 'conv1', 4, padding='valid', initializer=gaussian(scale=1.0))
    net = pool_and_norm(net, 1)
    net = grouped(net, 256, 5, 'conv2', initializer=gaussian(), bias=0.1)
    net = pool_and_norm(net, 2)
    net = conv(net, 384, 3, 'conv3', initializer=gaussian())
    net = grouped(net, 384, 3, 'conv4', initializer=gaussian(), bias=0.1)
    net = grouped(net, 256, 3, 'conv5', initializer=gaussian(), bias=0.1)
    # Zeros do not change a maximum of ReLU outputs.
    net = build.apply(keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name='pad5', **build.common), net)
    net = build.max_pool(net, 'pool5')
    net = build.flatten(net)
    net = build.dense(net, 4096, 'fc6', initializer=gaussian(0.005), bias=0.1)
    net = build.dropout(net, 'dropout6')
    net = build.dense(net, 4096, 'fc7', initializer=gaussian(0.005), bias=0.1)
    end_points = {f'{net_name}/{name}': output for name, output in build.without('pad5', 'dropout6').items()}
    if not num_classes:
        return net, end_points
    net = build.dropout(net, 'dropout7')
    logits = build.dense_logits(net, num_classes, 'fc8', initializer=gaussian())
    return logits, {**end_points, f'{net_name}/fc8': logits}
