"""VGG of 11, 16 and 19 layers: vgg_a, vgg_16 and vgg_19.

Sources: 'Very Deep Convolutional Networks for Large-Scale Image Recognition', https://arxiv.org/abs/1409.1556;
research/slim/nets/vgg.py in tensorflow/models.
"""

from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, squeeze
from nets.layers import FullyConnectedConv2D

MIN_IMAGE_SIZE = smallest_side([(2, 2)] * 5 + [(7, 1)])  # pool1 to pool5, fc6
CONVOLUTIONS = {'vgg_a': (1, 1, 2, 2, 2), 'vgg_16': (2, 2, 3, 3, 3), 'vgg_19': (2, 2, 4, 4, 4)}

_FILTERS = (64, 128, 256, 512, 512)


def vgg(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    name: str,
    weight_decay: float = 0.0005,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's vgg_a, vgg_16 or vgg_19.

    Args:
        inputs: float32 [batch, height, width, channels] of at least 224x224 pixels; up to 255x255 yields one position.
        num_classes: Number of classes; None or 0 omits dropout7 and fc8.
        name: Key of `CONVOLUTIONS`.
        weight_decay: L2 factor of the kernels.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average fc7 over positions, so that larger images yield one position too.
        **options: Options of `Builder`.

    Returns:
        The logits in float32, or fc7 without classes; and slim's end points by name.

    Raises:
        InputError: The images are too small, or too large to squeeze.
    """
    build = Builder(name, inputs, MIN_IMAGE_SIZE, is_fixed=False, weight_decay=weight_decay, **options)
    net = inputs
    for number, (count, filters) in enumerate(zip(CONVOLUTIONS[name], _FILTERS, strict=True), start=1):
        for i in range(1, count + 1):
            net = build.conv(net, filters, 3, f'conv{number}.conv{number}_{i}')
        net = build.max_pool(net, f'pool{number}', 2)
    net = build.conv(net, 4096, 7, 'fc6', layer=FullyConnectedConv2D)
    net = build.dropout(net, 'dropout6')
    net = build.conv(net, 4096, 1, 'fc7', layer=FullyConnectedConv2D)
    end_points = {f'{name}/{point}': output for point, output in build.without('dropout6').items()}
    if global_pool:
        net = end_points['global_pool'] = build.global_pool(net)
    if not num_classes:
        return net, end_points
    net = build.dropout(net, 'dropout7')
    net = build.conv_logits(net, num_classes, 'fc8')
    if spatial_squeeze:
        net = squeeze(net, name, 'fc8.squeezed')
    return net, {**end_points, f'{name}/fc8': net}
