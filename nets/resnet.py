"""ResNets of 50 to 200 layers: resnet_v1, and resnet_v2, which normalises and activates before each convolution.

Sources: 'Deep Residual Learning for Image Recognition', https://arxiv.org/abs/1512.03385; 'Identity Mappings in Deep
Residual Networks', https://arxiv.org/abs/1603.05027; research/slim/nets/resnet_v1.py, resnet_v2.py and resnet_utils.py
in tensorflow/models. As in slim, the last unit of a block has its stride, not the first.
"""

from collections.abc import Iterator
from typing import Any

import keras

from nets.building import Builder, EndPoints, Norm, squeeze
from support.errors import InputError

MIN_IMAGE_SIZE = 1
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}

_STRIDES = (2, 2, 2, 1)  # of the blocks
_BASE_DEPTH = 64  # of the first block's bottlenecks; it doubles with each block
_NORM = Norm(momentum=0.997, epsilon=1.001e-5, scale=True)


def resnet(
    inputs: keras.KerasTensor,
    num_classes: int | None = None,
    *,
    version: int,
    depth: int,
    weight_decay: float = 0.0001,
    spatial_squeeze: bool = True,
    global_pool: bool = True,
    output_stride: int | None = None,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's resnet_v<version>_<depth>.

    Args:
        inputs: float32 [batch, height, width, channels].
        num_classes: Number of classes; None or 0 returns the features.
        version: 1 or 2.
        depth: Number of layers, a key of `UNITS`.
        weight_decay: L2 factor of the kernels.
        spatial_squeeze: Whether to return logits [batch, num_classes] instead of [batch, height, width, num_classes].
        global_pool: Whether to average over positions before the logits.
        output_stride: Ratio of the sides of images and features, a multiple of 4; None is 32. Beyond it, convolutions
            are dilated instead of strided.
        **options: Options of `Builder`.

    Returns:
        The logits in float32, or the features without classes; and slim's end points by name.

    Raises:
        InputError: `output_stride` is not possible, or without `global_pool` there are several positions to squeeze.
    """
    name = f'resnet_v{version}_{depth}'
    build = Builder(
        name,
        inputs,
        MIN_IMAGE_SIZE,
        initializer=keras.initializers.VarianceScaling,
        weight_decay=weight_decay,
        norm=_NORM,
        is_fixed=False,
        **{'min_depth': 8, **options},
    )
    if output_stride is not None and output_stride % 4:
        raise InputError(f'output_stride={output_stride}: must be a multiple of 4')
    root: dict[str, Any] = (
        {'norm': False, 'activation': False} if version == 2 else {}
    )  # slim: the first unit normalises
    net = _same(build, inputs, 64, 7, 'conv1', 2, **root)
    net = build.max_pool(net, 'pool1', padding='same')
    unit = _unit_v1 if version == 1 else _unit_v2
    for scope, depth_of_unit, stride, rate, is_last in _units(UNITS[depth], output_stride):
        block = scope.split('.')[0]
        with build.scope(f'{scope}.bottleneck_v{version}'):
            net = unit(build, net, depth_of_unit, stride, rate)
        build.outputs[scope.replace('.', '/') + f'/bottleneck_v{version}'] = net
        if is_last:
            build.outputs[block] = net
    if version == 2:
        net = build.activate(build.batch_norm(net, 'postnorm', _NORM), 'postnorm', 'relu')
    end_points = {f'{name}/{point}': output for point, output in build.without('pool1').items()}
    if global_pool:
        net = end_points['global_pool'] = build.global_pool(net, 'pool5')
    if not num_classes:
        return net, end_points
    net = end_points[f'{name}/logits'] = build.conv_logits(net, num_classes, 'logits')
    if spatial_squeeze:
        net = end_points[f'{name}/spatial_squeeze'] = squeeze(net, name, 'SpatialSqueeze')
    return net, {**end_points, 'predictions': build.predictions(net, 'predictions')}


def _units(counts: tuple[int, ...], output_stride: int | None) -> Iterator[tuple[str, int, int, int, bool]]:
    """Yields scope, bottleneck depth, stride and rate of each unit, and whether it ends its block."""
    current, rate = 4, 1  # of conv1 and pool1
    for number, (count, block_stride) in enumerate(zip(counts, _STRIDES, strict=True), start=1):
        for i in range(1, count + 1):
            stride = block_stride if i == count else 1
            if output_stride is not None and current * stride > output_stride:
                yield f'block{number}.unit_{i}', _BASE_DEPTH << (number - 1), 1, rate, i == count
                rate *= stride
            else:
                yield f'block{number}.unit_{i}', _BASE_DEPTH << (number - 1), stride, rate, i == count
                current *= stride


def _unit_v1(build: Builder, net: keras.KerasTensor, depth: int, stride: int, rate: int) -> keras.KerasTensor:
    if net.shape[-1] == build.width(4 * depth):
        shortcut = _subsample(build, net, stride)
    else:
        shortcut = build.conv(net, 4 * depth, 1, 'shortcut', stride, activation=False)
    residual = build.conv(net, depth, 1, 'conv1')
    residual = _same(build, residual, depth, 3, 'conv2', stride, rate)
    residual = build.conv(residual, 4 * depth, 1, 'conv3', activation=False)
    total = build.sum([shortcut, residual])
    return build.activate(total, 'add', 'relu')


def _unit_v2(build: Builder, net: keras.KerasTensor, depth: int, stride: int, rate: int) -> keras.KerasTensor:
    linear: dict[str, Any] = {'norm': False, 'activation': False}
    before = build.activate(build.batch_norm(net, 'preact', _NORM), 'preact', 'relu')
    if net.shape[-1] == build.width(4 * depth):
        shortcut = _subsample(build, net, stride)
    else:
        shortcut = build.conv(before, 4 * depth, 1, 'shortcut', stride, **linear)
    residual = build.conv(before, depth, 1, 'conv1')
    residual = _same(build, residual, depth, 3, 'conv2', stride, rate)
    residual = build.conv(residual, 4 * depth, 1, 'conv3', **linear)
    return build.sum([shortcut, residual])


def _subsample(build: Builder, net: keras.KerasTensor, stride: int) -> keras.KerasTensor:
    if stride == 1:
        return net
    return keras.layers.MaxPooling2D(1, stride, name=build.scoped('subsample'), **build.common)(net)


def _same(
    build: Builder,
    net: keras.KerasTensor,
    filters: int,
    size: int,
    name: str,
    stride: int,
    rate: int = 1,
    **options: Any,
) -> keras.KerasTensor:
    """Convolves with padding that does not depend on the image's size, as slim's conv2d_same, where strided."""
    if stride == 1:
        return build.conv(net, filters, size, name, rate=rate, **options)
    total = (size - 1) * rate
    padding = (total // 2, total - total // 2)
    net = keras.layers.ZeroPadding2D((padding, padding), name=build.scoped(f'{name}.pad'), **build.common)(net)
    return build.conv(net, filters, size, name, stride, padding='valid', rate=rate, **options)
