"""Inception v3.

Sources: 'Rethinking the Inception Architecture for Computer Vision', https://arxiv.org/abs/1512.00567;
research/slim/nets/inception_v3.py in tensorflow/models, with its names: some say another size than the kernel has.
"""

from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, truncated_normal
from nets.inception.towers import STRIDED, Layer, block, head, start, stem

# (size, stride) of the unpadded windows: the stem, Mixed_6a, Mixed_7a, and Conv2d_2a_5x5 of the auxiliary head.
MIN_IMAGE_SIZE = smallest_side([(3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2), (3, 2)])


def inception_v3(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's inception_v3 with its auxiliary head, the end point AuxLogits.

    Arguments and results are those of `head`, and options those of `start`; without classes there is no auxiliary head.
    """
    options = {'min_depth': 16, **options}
    build = start(
        'inception_v3',
        inputs,
        MIN_IMAGE_SIZE,
        initializer=keras.initializers.VarianceScaling,
        is_fixed=False,
        **options,
    )
    net = stem(build, inputs)
    net = block(build, net, 'Mixed_5b', _mixed_5(32))
    net = block(build, net, 'Mixed_5c', _mixed_5(64, ('Conv2d_0b_1x1', 'Conv_1_0c_5x5')))
    net = block(build, net, 'Mixed_5d', _mixed_5(64))
    net = block(
        build,
        net,
        'Mixed_6a',
        [
            [('Conv2d_1a_1x1', 384, 3, STRIDED)],
            [('Conv2d_0a_1x1', 64), ('Conv2d_0b_3x3', 96), ('Conv2d_1a_1x1', 96, 3, STRIDED)],
            [('MaxPool_1a_3x3', 0, None, STRIDED)],
        ],
    )
    for name, depth in (('Mixed_6b', 128), ('Mixed_6c', 160), ('Mixed_6d', 160), ('Mixed_6e', 192)):
        net = block(build, net, name, _mixed_6(depth))
    features = net
    net = block(
        build,
        net,
        'Mixed_7a',
        [
            [('Conv2d_0a_1x1', 192), ('Conv2d_1a_3x3', 320, None, STRIDED)],
            [
                ('Conv2d_0a_1x1', 192),
                ('Conv2d_0b_1x7', 192),
                ('Conv2d_0c_7x1', 192),
                ('Conv2d_1a_3x3', 192, None, STRIDED),
            ],
            [('MaxPool_1a_3x3', 0, None, STRIDED)],
        ],
    )
    net = block(build, net, 'Mixed_7b', _mixed_7('Conv2d_0b_3x1'))
    net = block(build, net, 'Mixed_7c', _mixed_7('Conv2d_0c_3x1'))
    auxiliary = _auxiliary_head(build, features, num_classes) if num_classes else None
    names = ('AvgPool_1a_8x8', 'Dropout_1b', 'Conv2d_1c_1x1')
    return head(build, net, num_classes, 'inception_v3', names, 8, spatial_squeeze, global_pool, auxiliary)


def _mixed_5(pooled: int, names: tuple[str, str] = ('Conv2d_0a_1x1', 'Conv2d_0b_5x5')) -> list[list[Layer]]:
    return [
        [('Conv2d_0a_1x1', 64)],
        [(names[0], 48), (names[1], 64)],
        [('Conv2d_0a_1x1', 64), ('Conv2d_0b_3x3', 96), ('Conv2d_0c_3x3', 96)],
        [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', pooled)],
    ]


def _mixed_6(depth: int) -> list[list[Layer]]:
    return [
        [('Conv2d_0a_1x1', 192)],
        [('Conv2d_0a_1x1', depth), ('Conv2d_0b_1x7', depth), ('Conv2d_0c_7x1', 192)],
        [
            ('Conv2d_0a_1x1', depth),
            ('Conv2d_0b_7x1', depth),
            ('Conv2d_0c_1x7', depth),
            ('Conv2d_0d_7x1', depth),
            ('Conv2d_0e_1x7', 192),
        ],
        [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', 192)],
    ]


def _mixed_7(second: str) -> list[list[Any]]:
    return [
        [('Conv2d_0a_1x1', 320)],
        [('Conv2d_0a_1x1', 384), [('Conv2d_0b_1x3', 384), (second, 384)]],
        [('Conv2d_0a_1x1', 448), ('Conv2d_0b_3x3', 384), [('Conv2d_0c_1x3', 384), ('Conv2d_0d_3x1', 384)]],
        [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', 192)],
    ]


def _auxiliary_head(build: Builder, features: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    with build.scope('AuxLogits'):
        net = build.average_pool(features, 'AvgPool_1a_5x5', 5, 3, padding='valid')
        net = build.conv(net, 128, 1, 'Conv2d_1b_1x1')
        size = build.reduced(net, 5)
        net = build.conv(net, 768, size, 'Conv2d_2a_5x5', padding='valid', initializer=truncated_normal(0.01))
        net = build.conv_logits(net, num_classes, 'Conv2d_2b_1x1', initializer=truncated_normal(0.001))
        # Of larger images, unlike slim's, the mean over the positions: the loss takes logits of an image.
        return build.mean_logits(net)
