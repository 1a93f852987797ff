"""The AlexNet of 2012 in one tower: alexnet, without normalisation, and alexnet_bn, with batch normalisation.

Source: 'ImageNet Classification with Deep Convolutional Neural Networks',
https://papers.nips.cc/paper/4824-imagenet-classification-with-deep-convolutional-neural-networks. Two towers, local
response normalisation and Caffe's weights are in `nets.caffe`.
"""

from typing import Any

import keras

from nets.building import Builder, EndPoints, Norm, smallest_side

# (size, stride) of conv1, pool1, pool2, pool5; alexnet's conv1 is padded, so one pixel of input is enough for it.
MIN_IMAGE_SIZE = smallest_side([(1, 4), (3, 2), (3, 2), (3, 2)])
BN_MIN_IMAGE_SIZE = smallest_side([(11, 4), (3, 2), (3, 2), (3, 2)])


def alexnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1000,
    *,
    weight_decay: float = 0.0005,
    batch_norm: bool = False,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds the AlexNet of 2012 in one tower, without its normalisation and with a padded conv1 for small images.

    Its layers are 3, 8, 12, 12, 8, 128 and 128 units wide, of 32 filters each; depth_multiplier 1/2, 1/4, 1/8 and 1/16
    make that 16, 8, 4 and 2 filters. Weights start as Glorot's uniform
    (https://proceedings.mlr.press/v9/glorot10a.html) and biases at 0, slim's and Keras' default.

    Args:
        inputs: float32 [batch, height, width, channels] of a known size of at least 57x57 pixels (alexnet_bn: 67x67).
        num_classes: Number of classes; None or 0 omits dropout7 and fc8.
        weight_decay: L2 factor of the kernels of every layer; biases, gamma and beta do not decay.
        batch_norm: Whether to build alexnet_bn, whose conv1 is not padded and which has batch normalisation in place of
            local response normalisation: after the activation, with Keras' momentum, 0.99, and epsilon, 0.001.
        **options: Options of `Builder`.

    Returns:
        The logits, float32 [batch, num_classes], or fc7 [batch, 4096] without classes; and the end points by name.

    Raises:
        InputError: The image size is too small or unknown.
    """
    net_name, smallest = ('alexnet_bn', BN_MIN_IMAGE_SIZE) if batch_norm else ('alexnet', MIN_IMAGE_SIZE)
    # With He's, the loss of 1000 classes starts near 20 instead of 7, and training diverges at lower learning rates.
    build = Builder(net_name, inputs, smallest, weight_decay=weight_decay, **options)
    norm = Norm(momentum=0.99, epsilon=0.001, scale=True)

    def normalized(net: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return build.add(name, build.batch_norm(net, name, norm)) if batch_norm else net

    net = build.conv(inputs, 96, 11, 'conv1', 4, padding='valid' if batch_norm else 'same')
    net = normalized(net, 'bn1')
    net = build.max_pool(net, 'pool1')
    net = build.conv(net, 256, 5, 'conv2')
    net = normalized(net, 'bn2')
    net = build.max_pool(net, 'pool2')
    net = build.conv(net, 384, 3, 'conv3')
    net = build.conv(net, 384, 3, 'conv4')
    net = build.conv(net, 256, 3, 'conv5')
    net = build.max_pool(net, 'pool5')
    net = build.flatten(net)
    net = build.dense(net, 4096, 'fc6')
    net = build.dropout(net, 'dropout6')
    net = build.dense(net, 4096, 'fc7')
    end_points = {f'{net_name}/{name}': output for name, output in build.without('dropout6').items()}
    if not num_classes:
        return net, end_points
    net = build.dropout(net, 'dropout7')
    logits = build.dense_logits(net, num_classes, 'fc8')
    return logits, {**end_points, f'{net_name}/fc8': logits}
