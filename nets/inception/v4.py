"""Inception v4.

Sources: 'Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning',
https://arxiv.org/abs/1602.07261; research/slim/nets/inception_v4.py in tensorflow/models.
"""

from typing import Any

import keras

from nets.building import EndPoints, smallest_side
from nets.inception.towers import STRIDED, apply, auxiliary_head, block, dense_head, start

# (size, stride) of the unpadded windows: the stem, Mixed_3a, Mixed_4a, Mixed_5a, Mixed_6a, Mixed_7a.
MIN_IMAGE_SIZE = smallest_side([(3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2), (3, 2)])

_VALID = {'padding': 'valid'}
_MIXED_3A: list[Any] = [[('MaxPool_0a_3x3', 0, None, STRIDED)], [('Conv2d_0a_3x3', 96, None, STRIDED)]]
_MIXED_4A: list[Any] = [
    [('Conv2d_0a_1x1', 64), ('Conv2d_1a_3x3', 96, None, _VALID)],
    [('Conv2d_0a_1x1', 64), ('Conv2d_0b_1x7', 64), ('Conv2d_0c_7x1', 64), ('Conv2d_1a_3x3', 96, None, _VALID)],
]
_MIXED_5A: list[Any] = [[('Conv2d_1a_3x3', 192, None, STRIDED)], [('MaxPool_1a_3x3', 0, None, STRIDED)]]
_A: list[Any] = [
    [('Conv2d_0a_1x1', 96)],
    [('Conv2d_0a_1x1', 64), ('Conv2d_0b_3x3', 96)],
    [('Conv2d_0a_1x1', 64), ('Conv2d_0b_3x3', 96), ('Conv2d_0c_3x3', 96)],
    [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', 96)],
]
_MIXED_6A: list[Any] = [
    [('Conv2d_1a_3x3', 384, None, STRIDED)],
    [('Conv2d_0a_1x1', 192), ('Conv2d_0b_3x3', 224), ('Conv2d_1a_3x3', 256, None, STRIDED)],
    [('MaxPool_1a_3x3', 0, None, STRIDED)],
]
_B: list[Any] = [
    [('Conv2d_0a_1x1', 384)],
    [('Conv2d_0a_1x1', 192), ('Conv2d_0b_1x7', 224), ('Conv2d_0c_7x1', 256)],
    [
        ('Conv2d_0a_1x1', 192),
        ('Conv2d_0b_7x1', 192),
        ('Conv2d_0c_1x7', 224),
        ('Conv2d_0d_7x1', 224),
        ('Conv2d_0e_1x7', 256),
    ],
    [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', 128)],
]
_MIXED_7A: list[Any] = [
    [('Conv2d_0a_1x1', 192), ('Conv2d_1a_3x3', 192, None, STRIDED)],
    [
        ('Conv2d_0a_1x1', 256),
        ('Conv2d_0b_1x7', 256),
        ('Conv2d_0c_7x1', 320),
        ('Conv2d_1a_3x3', 320, None, STRIDED),
    ],
    [('MaxPool_1a_3x3', 0, None, STRIDED)],
]
_C: list[list[Any]] = [
    [('Conv2d_0a_1x1', 256)],
    [('Conv2d_0a_1x1', 384), [('Conv2d_0b_1x3', 256), ('Conv2d_0c_3x1', 256)]],
    [
        ('Conv2d_0a_1x1', 384),
        ('Conv2d_0b_3x1', 448),
        ('Conv2d_0c_1x3', 512),
        [('Conv2d_0d_1x3', 256), ('Conv2d_0e_3x1', 256)],
    ],
    [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', 256)],
]
_BLOCKS: list[tuple[str, list[list[Any]]]] = [
    ('Mixed_3a', _MIXED_3A),
    ('Mixed_4a', _MIXED_4A),
    ('Mixed_5a', _MIXED_5A),
    *((f'Mixed_5{letter}', _A) for letter in 'bcde'),
    ('Mixed_6a', _MIXED_6A),
    *((f'Mixed_6{letter}', _B) for letter in 'bcdefgh'),
    ('Mixed_7a', _MIXED_7A),
    *((f'Mixed_7{letter}', _C) for letter in 'bcd'),
]


def inception_v4(
    inputs: keras.KerasTensor, num_classes: int | None = 1001, **options: Any
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's inception_v4 with its auxiliary head, the end point AuxLogits.

    Arguments and results are those of `dense_head`, and options those of `start`; the size of the images must be known.
    """
    build = start('inception_v4', inputs, MIN_IMAGE_SIZE, initializer=keras.initializers.VarianceScaling, **options)
    net = apply(build, inputs, 'Conv2d_1a_3x3', 32, **STRIDED)
    net = apply(build, net, 'Conv2d_2a_3x3', 32, padding='valid')
    net = apply(build, net, 'Conv2d_2b_3x3', 64)
    for name, towers in _BLOCKS:
        net = block(build, net, name, towers)
    if not num_classes:
        return dense_head(build, net, None, None)
    auxiliary = auxiliary_head(
        build, build.outputs['Mixed_6h'], num_classes, ('AvgPool_1a_5x5', 'Conv2d_1b_1x1', 'Conv2d_2a', 'Aux_logits')
    )
    return dense_head(build, net, num_classes, auxiliary)
