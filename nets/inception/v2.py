"""Inception v2.

Sources: 'Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift',
https://arxiv.org/abs/1502.03167; research/slim/nets/inception_v2.py in tensorflow/models.
"""

from typing import Any

import keras

from nets.building import EndPoints, truncated_normal
from nets.inception.towers import Layer, apply, block, head, start

MIN_IMAGE_SIZE = 1

_STEM_MULTIPLIER = 8  # filters of the first convolution for each channel
_STRIDED = {'strides': 2}
# Filters of the towers: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3; 1x1 after pooling. Blocks that halve the sides have no first one.
_MIXED: dict[str, tuple[int, ...]] = {
    'Mixed_3b': (64, 64, 64, 64, 96, 96, 32),
    'Mixed_3c': (64, 64, 96, 64, 96, 96, 64),
    'Mixed_4a': (128, 160, 64, 96, 96),
    'Mixed_4b': (224, 64, 96, 96, 128, 128, 128),
    'Mixed_4c': (192, 96, 128, 96, 128, 128, 128),
    'Mixed_4d': (160, 128, 160, 128, 160, 160, 96),
    'Mixed_4e': (96, 128, 192, 160, 192, 192, 96),
    'Mixed_5a': (128, 192, 192, 256, 256),
    'Mixed_5b': (352, 192, 320, 160, 224, 224, 128),
    'Mixed_5c': (352, 192, 320, 192, 224, 224, 128),
}


def inception_v2(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's inception_v2; arguments and results as those of `head`, and options of `start`.

    Its first convolution, a separable one, is not normalised and does not decay.
    """
    options = {'min_depth': 16, **options}
    build = start('inception_v2', inputs, initializer=keras.initializers.VarianceScaling, is_fixed=False, **options)
    multiplier = min(build.width(64) // inputs.shape[-1], _STEM_MULTIPLIER)
    net = build.separable(
        inputs, 64, 7, 'Conv2d_1a_7x7', 2, depth_multiplier=multiplier, norm=False, initializer=truncated_normal(1.0)
    )
    net = apply(build, net, 'MaxPool_2a_3x3', strides=2)
    net = apply(build, net, 'Conv2d_2b_1x1', 64, initializer=truncated_normal(0.1))
    net = apply(build, net, 'Conv2d_2c_3x3', 192)
    net = apply(build, net, 'MaxPool_3a_3x3', strides=2)
    for name, filters in _MIXED.items():
        net = block(build, net, name, (_reduction if len(filters) == 5 else _mixed)(name, *filters))
    names = ('AvgPool_1a_7x7', 'Dropout_1b', 'Conv2d_1c_1x1')
    return head(build, net, num_classes, 'inception_v2', names, 7, spatial_squeeze, global_pool)


def _mixed(name: str, *filters: int) -> list[list[Layer]]:
    fine = {'initializer': truncated_normal(0.09)}
    return [
        [('Conv2d_0a_1x1', filters[0])],
        [('Conv2d_0a_1x1', filters[1], None, fine), ('Conv2d_0b_3x3', filters[2])],
        [
            ('Conv2d_0a_1x1', filters[3], None, fine),
            ('Conv2d_0b_3x3', filters[4]),
            ('Conv2d_0c_3x3', filters[5]),
        ],
        [
            ('MaxPool_0a_3x3' if name == 'Mixed_5c' else 'AvgPool_0a_3x3',),
            ('Conv2d_0b_1x1', filters[6], None, {'initializer': truncated_normal(0.1)}),
        ],
    ]


def _reduction(name: str, *filters: int) -> list[list[Layer]]:
    fine = {'initializer': truncated_normal(0.09)}
    return [
        [('Conv2d_0a_1x1', filters[0], None, fine), ('Conv2d_1a_3x3', filters[1], None, _STRIDED)],
        [
            ('Conv2d_0a_1x1', filters[2], None, fine),
            ('Conv2d_0b_3x3', filters[3]),
            ('Conv2d_1a_3x3', filters[4], None, _STRIDED),
        ],
        [('MaxPool_1a_3x3', 0, None, _STRIDED)],
    ]
