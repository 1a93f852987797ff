"""Inception v1, GoogLeNet, with batch normalisation.

Sources: 'Going Deeper with Convolutions', https://arxiv.org/abs/1409.4842; research/slim/nets/inception_v1.py in
tensorflow/models. As in slim there is no auxiliary head, and windows of 5x5 are of 3x3.
"""

from typing import Any

import keras

from nets.building import EndPoints, truncated_normal
from nets.inception.towers import Layer, apply, block, head, start

MIN_IMAGE_SIZE = 1

# Filters of the towers: 1x1; 1x1, 3x3; 1x1, 3x3; 1x1 after pooling.
_MIXED = {
    'Mixed_3b': (64, 96, 128, 16, 32, 32),
    'Mixed_3c': (128, 128, 192, 32, 96, 64),
    'Mixed_4b': (192, 96, 208, 16, 48, 64),
    'Mixed_4c': (160, 112, 224, 24, 64, 64),
    'Mixed_4d': (128, 128, 256, 24, 64, 64),
    'Mixed_4e': (112, 144, 288, 32, 64, 64),
    'Mixed_4f': (256, 160, 320, 32, 128, 128),
    'Mixed_5b': (256, 160, 320, 32, 128, 128),
    'Mixed_5c': (384, 192, 384, 48, 128, 128),
}
_POOLS = {'Mixed_4b': 'MaxPool_4a_3x3', 'Mixed_5b': 'MaxPool_5a_2x2'}  # before which blocks


def inception_v1(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's inception_v1; arguments and results as those of `head`, and options of `start`."""
    build = start('inception_v1', inputs, initializer=truncated_normal(0.01), is_fixed=False, **options)
    net = apply(build, inputs, 'Conv2d_1a_7x7', 64, strides=2)
    net = apply(build, net, 'MaxPool_2a_3x3', strides=2)
    net = apply(build, net, 'Conv2d_2b_1x1', 64)
    net = apply(build, net, 'Conv2d_2c_3x3', 192)
    net = apply(build, net, 'MaxPool_3a_3x3', strides=2)
    for name, filters in _MIXED.items():
        if name in _POOLS:
            net = apply(build, net, _POOLS[name], strides=2)
        net = block(build, net, name, _mixed(name, *filters))
    names = ('AvgPool_0a_7x7', 'Dropout_0b', 'Conv2d_0c_1x1')
    return head(build, net, num_classes, 'inception_v1', names, 7, spatial_squeeze, global_pool)


def _mixed(name: str, *filters: int) -> list[list[Layer]]:
    last = 'Conv2d_0a_3x3' if name == 'Mixed_5b' else 'Conv2d_0b_3x3'  # so it is in slim's checkpoints
    return [
        [('Conv2d_0a_1x1', filters[0])],
        [('Conv2d_0a_1x1', filters[1]), ('Conv2d_0b_3x3', filters[2])],
        [('Conv2d_0a_1x1', filters[3]), (last, filters[4])],
        [('MaxPool_0a_3x3',), ('Conv2d_0b_1x1', filters[5])],
    ]
