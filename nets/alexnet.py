"""AlexNet v2: one tower, no normalisation, and fully connected layers that are convolutions.

Sources: 'One weird trick', https://arxiv.org/abs/1404.5997; research/slim/nets/alexnet.py in
tensorflow/models.
"""

import functools

import keras

from nets.layers import (
    Conv2D,
    Dropout,
    EndPoints,
    FullyConnectedConv2D,
    apply_layers,
    check_image_side,
    layer_policy,
    scale_width,
    smallest_side,
    truncated_normal,
    weights,
)
from support.errors import InputError

# (size, stride) of what is not padded: conv1, pool1, pool2, pool5, fc6.
MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2), (5, 1)])


def alexnet_v2(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float = 0.5,
    spatial_squeeze: bool = True,
    global_pool: bool = False,
    dtype: str = 'float32',
    seed: int = 0,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's alexnet_v2.

    Args:
        inputs: float32 [batch, height, width, channels] of at least 195x195 pixels; up to 226x226 gives one
            position.
        num_classes: Number of classes; None or 0 leaves out dropout7 and fc8.
        weight_decay: L2 factor of the weights of every layer.
        depth_multiplier: Scales the width of every layer but fc8.
        dropout_keep_prob: Probability, in (0, 1], that dropout6 and dropout7 keep a value.
        spatial_squeeze: Return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Average fc7 over its positions, so that larger images give one position too.
        dtype: float32, bfloat16 or float16, in which all but fc8 computes.
        seed: Seed of the initial weights.

    Returns:
        The logits in float32, or fc7 [batch, height, width, 4096] without classes; and slim's end points by
        name.

    Raises:
        InputError: The images are too small, or are too large to squeeze.
    """
    check_image_side('alexnet_v2', inputs, MIN_IMAGE_SIZE)
    policy = layer_policy(dtype)
    width = functools.partial(scale_width, depth_multiplier=depth_multiplier)
    decayed = functools.partial(weights, weight_decay=weight_decay, seed=seed)
    glorot = functools.partial(decayed, initializer=keras.initializers.GlorotUniform, bias=0.1)
    normal = functools.partial(decayed, initializer=truncated_normal(0.005))
    common = {'data_format': 'channels_last', 'dtype': policy}
    conv = functools.partial(Conv2D, padding='same', activation='relu', **common)
    pool = functools.partial(keras.layers.MaxPooling2D, 3, 2, **common)
    fc = functools.partial(FullyConnectedConv2D, activation='relu', dtype=policy)
    dropout = functools.partial(Dropout, dropout_keep_prob, dtype=policy)

    layers = [
        conv(width(64), 11, 4, padding='valid', **glorot('conv1')),
        pool(name='pool1'),
        conv(width(192), 5, **glorot('conv2')),
        pool(name='pool2'),
        conv(width(384), 3, **glorot('conv3')),
        conv(width(384), 3, **glorot('conv4')),
        conv(width(256), 3, **glorot('conv5')),
        pool(name='pool5'),
        fc(width(4096), 5, **normal('fc6', bias=0.1)),
        dropout(name='dropout6'),
        fc(width(4096), 1, **normal('fc7', bias=0.1)),
    ]
    features = apply_layers(inputs, layers)
    net = features['fc7']
    end_points = {f'alexnet_v2/{name}': output for name, output in features.items() if name != 'dropout6'}
    if global_pool:
        net = keras.layers.GlobalAveragePooling2D(keepdims=True, name='global_pool', **common)(net)
        end_points['global_pool'] = net
    if not num_classes:
        return net, end_points
    net = dropout(name='dropout7')(net)
    net = FullyConnectedConv2D(num_classes, 1, dtype='float32', **normal('fc8'))(net)
    if spatial_squeeze:
        net = _squeeze(net)
    end_points['alexnet_v2/fc8'] = net
    return net, end_points


def _squeeze(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Returns [batch, classes] of [batch, 1, 1, classes], and refuses any other height and width."""
    height, width, classes = logits.shape[1:]
    if (height, width) != (1, 1):
        raise InputError(
            f'alexnet_v2 gives logits at {height}x{width} positions for images of this size, and not one for each '
            'image: give --global_pool, which averages over them, or smaller images (in Python: pass global_pool=True '
            'to make_model, or spatial_squeeze=False to keep them)'
        )
    return keras.layers.Reshape((classes,), dtype='float32', name='fc8.squeezed')(logits)
