"""AlexNet v2: one tower, no normalisation, fully connected layers as convolutions.

Sources: 'One weird trick', https://arxiv.org/abs/1404.5997; research/slim/nets/alexnet.py in
tensorflow/models.
"""

import functools
from typing import Any

import keras

from nets.building import Builder, EndPoints, smallest_side, truncated_normal
from nets.layers import FullyConnectedConv2D
from support.errors import InputError

# (size, stride) of the unpadded windows: conv1, pool1, pool2, pool5, fc6.
MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2), (5, 1)])


def alexnet_v2(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's alexnet_v2.

    Args:
        inputs: float32 [batch, height, width, channels] of at least 195x195 pixels; up to 226x226 yields one
            position.
        num_classes: Number of classes; None or 0 omits dropout7 and fc8.
        weight_decay: L2 factor of the weights of every layer.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average fc7 over positions, so that larger images yield one position too.
        **options: Options of `Builder`.

    Returns:
        The logits in float32, or fc7 [batch, height, width, 4096] without classes; and slim's end points by
        name.

    Raises:
        InputError: The images are too small, or too large to squeeze.
    """
    build = Builder('alexnet_v2', inputs, MIN_IMAGE_SIZE, is_fixed=False, **options)
    decayed = functools.partial(build.weights, weight_decay=weight_decay)
    glorot = functools.partial(decayed, initializer=keras.initializers.GlorotUniform, bias=0.1)
    normal = functools.partial(decayed, initializer=truncated_normal(0.005))
    features = build.apply(
        [
            build.conv(64, 11, 4, padding='valid', **glorot('conv1')),
            build.pool('pool1'),
            build.conv(192, 5, **glorot('conv2')),
            build.pool('pool2'),
            build.conv(384, 3, **glorot('conv3')),
            build.conv(384, 3, **glorot('conv4')),
            build.conv(256, 3, **glorot('conv5')),
            build.pool('pool5'),
            build.conv(4096, 5, layer=FullyConnectedConv2D, **normal('fc6', bias=0.1)),
            build.dropout('dropout6'),
            build.conv(4096, 1, layer=FullyConnectedConv2D, **normal('fc7', bias=0.1)),
        ]
    )
    net = features['fc7']
    end_points = {f'alexnet_v2/{name}': output for name, output in features.items() if name != 'dropout6'}
    if global_pool:
        net = keras.layers.GlobalAveragePooling2D(keepdims=True, name='global_pool', **build.common)(net)
        end_points['global_pool'] = net
    if not num_classes:
        return net, end_points
    net = build.dropout('dropout7')(net)
    net = FullyConnectedConv2D(num_classes, 1, dtype='float32', **normal('fc8'))(net)
    if spatial_squeeze:
        net = _squeeze(net)
    end_points['alexnet_v2/fc8'] = net
    return net, end_points


def _squeeze(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Reshapes [batch, 1, 1, classes] to [batch, classes]; raises InputError for any other height and width."""
    height, width, classes = logits.shape[1:]
    if (height, width) != (1, 1):
        raise InputError(
            f'alexnet_v2 gives logits at {height}x{width} positions for images of this size, and not one for each '
            'image: give --global_pool, which averages over them, or smaller images (in Python: pass global_pool=True '
            'to make_model, or spatial_squeeze=False to keep them)'
        )
    return keras.layers.Reshape((classes,), dtype='float32', name='fc8.squeezed')(logits)
