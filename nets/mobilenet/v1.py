"""MobileNet v1, of any width.

Sources: 'MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications',
https://arxiv.org/abs/1704.04861; research/slim/nets/mobilenet_v1.py in tensorflow/models.
"""

from typing import Any

import keras

from nets.building import Builder, EndPoints, Norm, squeeze, truncated_normal

MIN_IMAGE_SIZE = 1

# Stride and filters of each depthwise separable convolution.
_LAYERS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    *[(1, 512)] * 5,
    (2, 1024),
    (1, 1024),
)


def mobilenet_v1(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 4e-5,
    depth_multiplier: float = 1.0,
    multiplier: float = 1.0,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's mobilenet_v1; depthwise kernels do not decay.

    Args:
        inputs: float32 [batch, height, width, channels].
        num_classes: Number of classes; None or 0 returns the features.
        weight_decay: L2 factor of the other kernels.
        depth_multiplier: Scales the filters of every layer but the logits; at least 8 are left.
        multiplier: Of the net's name, which `depth_multiplier` multiplies.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average over all positions before the logits, and not over 7x7.
        **options: Options of `Builder`.

    Returns:
        The logits in float32, or the features without classes; and slim's end points by name.

    Raises:
        InputError: The images are too large to squeeze.
    """
    build = Builder(
        'mobilenet_v1',
        inputs,
        MIN_IMAGE_SIZE,
        initializer=truncated_normal(0.09),
        weight_decay=weight_decay,
        depth_multiplier=multiplier * depth_multiplier,
        norm=Norm(scale=True),
        activation='relu6',
        is_fixed=False,
        **{'min_depth': 8, 'dropout_keep_prob': 0.999, **options},
    )
    net = build.conv(inputs, 32, 3, 'Conv2d_0', 2)
    for number, (stride, filters) in enumerate(_LAYERS, start=1):
        net = build.depthwise(net, 3, f'Conv2d_{number}_depthwise', stride)
        net = build.conv(net, filters, 1, f'Conv2d_{number}_pointwise')
    end_points = dict(build.outputs)
    with build.scope('Logits'):
        if global_pool:
            net = end_points['global_pool'] = build.global_pool(net)
        else:
            net = end_points['AvgPool_1a'] = build.window_pool(net, 'AvgPool_1a', 7)
        if not num_classes:
            return net, end_points
        net = build.dropout(net, 'Dropout_1b')
        net = build.conv_logits(net, num_classes, 'Conv2d_1c_1x1')
        if spatial_squeeze:
            net = squeeze(net, 'mobilenet_v1', build.scoped('SpatialSqueeze'))
    return net, {**end_points, 'Logits': net, 'Predictions': build.predictions(net)}
