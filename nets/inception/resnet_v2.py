"""Inception-ResNet v2.

Sources: 'Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning',
https://arxiv.org/abs/1602.07261; research/slim/nets/inception_resnet_v2.py in tensorflow/models.
"""

from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side
from nets.inception.towers import STRIDED, apply, auxiliary_head, block, dense_head, join, start, stem

# (size, stride) of the unpadded windows: the stem, Mixed_6a, Mixed_7a.
MIN_IMAGE_SIZE = smallest_side([(3, 2), (3, 1), (3, 2), (3, 1), (3, 2), (3, 2), (3, 2)])

_MIXED_5B: list[Any] = [
    [('Conv2d_1x1', 96)],
    [('Conv2d_0a_1x1', 48), ('Conv2d_0b_5x5', 64)],
    [('Conv2d_0a_1x1', 64), ('Conv2d_0b_3x3', 96), ('Conv2d_0c_3x3', 96)],
    [('AvgPool_0a_3x3',), ('Conv2d_0b_1x1', 64)],
]
_BLOCK35: list[Any] = [
    [('Conv2d_1x1', 32)],
    [('Conv2d_0a_1x1', 32), ('Conv2d_0b_3x3', 32)],
    [('Conv2d_0a_1x1', 32), ('Conv2d_0b_3x3', 48), ('Conv2d_0c_3x3', 64)],
]
_MIXED_6A: list[Any] = [
    [('Conv2d_1a_3x3', 384, None, STRIDED)],
    [('Conv2d_0a_1x1', 256), ('Conv2d_0b_3x3', 256), ('Conv2d_1a_3x3', 384, None, STRIDED)],
    [('MaxPool_1a_3x3', 0, None, STRIDED)],
]
_BLOCK17: list[Any] = [[('Conv2d_1x1', 192)], [('Conv2d_0a_1x1', 128), ('Conv2d_0b_1x7', 160), ('Conv2d_0c_7x1', 192)]]
_MIXED_7A: list[Any] = [
    [('Conv2d_0a_1x1', 256), ('Conv2d_1a_3x3', 384, None, STRIDED)],
    [('Conv2d_0a_1x1', 256), ('Conv2d_1a_3x3', 288, None, STRIDED)],
    [('Conv2d_0a_1x1', 256), ('Conv2d_0b_3x3', 288), ('Conv2d_1a_3x3', 320, None, STRIDED)],
    [('MaxPool_1a_3x3', 0, None, STRIDED)],
]
_BLOCK8: list[Any] = [[('Conv2d_1x1', 192)], [('Conv2d_0a_1x1', 192), ('Conv2d_0b_1x3', 224), ('Conv2d_0c_3x1', 256)]]


def inception_resnet_v2(
    inputs: keras.KerasTensor, num_classes: int | None = 1001, *, weight_decay: float = 4e-5, **options: Any
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's inception_resnet_v2 with its auxiliary head; biases decay as kernels do.

    Arguments and results are those of `dense_head`, and options those of `start`; the size of the images must be known.
    """
    options |= {'weight_decay': weight_decay, 'bias_decay': weight_decay}
    build = start('inception_resnet_v2', inputs, MIN_IMAGE_SIZE, **options)
    net = stem(build, inputs)
    net = block(build, net, 'Mixed_5b', _MIXED_5B)
    for i in range(1, 11):
        net = _residual(build, net, f'Repeat.block35_{i}', _BLOCK35, 0.17)
    net = block(build, net, 'Mixed_6a', _MIXED_6A)
    for i in range(1, 21):
        net = _residual(build, net, f'Repeat_1.block17_{i}', _BLOCK17, 0.10)
    build.outputs['PreAuxLogits'] = features = net
    net = block(build, net, 'Mixed_7a', _MIXED_7A)
    for i in range(1, 10):
        net = _residual(build, net, f'Repeat_2.block8_{i}', _BLOCK8, 0.20)
    net = _residual(build, net, 'Block8', _BLOCK8, 1.0, activation=None)
    net = apply(build, net, 'Conv2d_7b_1x1', 1536)
    if not num_classes:
        return dense_head(build, net, None, None)
    names = ('Conv2d_1a_3x3', 'Conv2d_1b_1x1', 'Conv2d_2a_5x5', 'Logits')
    return dense_head(build, net, num_classes, auxiliary_head(build, features, num_classes, names))


def _residual(
    build: Builder,
    net: keras.KerasTensor,
    scope: str,
    towers: list[list[Any]],
    scale: float,
    activation: str | None = 'relu',
) -> keras.KerasTensor:
    with build.scope(scope):
        mixed = join(build, net, towers)
        up = build.conv_to(mixed, net.shape[-1], 1, 'Conv2d_1x1', norm=False, activation=False)
        scaled = keras.layers.Rescaling(scale, name=build.scoped('scale'), dtype=build.policy)(up)
        net = build.sum([net, scaled])
        return build.activate(net, 'add', activation)
