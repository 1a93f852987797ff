"""MobileNet v3, large and small, their minimalistic forms, and MobileNet EdgeTPU.

Sources: 'Searching for MobileNetV3', https://arxiv.org/abs/1905.02244; research/slim/nets/mobilenet/mobilenet_v3.py in
tensorflow/models. The minimalistic forms have neither hard swish, nor squeeze and excitation, nor kernels of 5x5.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras

from nets.building import EndPoints
from nets.mobilenet import blocks
from nets.mobilenet.blocks import Bottleneck, Conv, Pool

Layers = Sequence[Conv | Bottleneck | Pool]

_swish = functools.partial(Bottleneck, activation='hard_swish')
_LARGE: Layers = (
    Conv(16, 3, 2, activation='hard_swish'),
    Bottleneck(1, 16),
    Bottleneck(4, 24, stride=2),
    Bottleneck(3, 24),
    Bottleneck(3, 40, 5, 2, squeeze=True),
    *[Bottleneck(3, 40, 5, squeeze=True)] * 2,
    _swish(6, 80, stride=2),
    _swish(2.5, 80),
    *[_swish(184 / 80, 80)] * 2,
    *[_swish(6, 112, squeeze=True)] * 2,
    _swish(6, 160, 5, 2, squeeze=True),
    *[_swish(6, 160, 5, squeeze=True)] * 2,
    Conv(960, activation='hard_swish'),
    Pool(),
    Conv(1280, norm=False, activation='hard_swish'),
)
_SMALL: Layers = (
    Conv(16, 3, 2, activation='hard_swish'),
    Bottleneck(1, 16, stride=2, squeeze=True),
    Bottleneck(72 / 16, 24, stride=2),
    Bottleneck(88 / 24, 24),
    _swish(4, 40, 5, 2, squeeze=True),
    *[_swish(6, 40, 5, squeeze=True)] * 2,
    *[_swish(3, 48, 5, squeeze=True)] * 2,
    _swish(6, 96, 5, 2, squeeze=True),
    *[_swish(6, 96, 5, squeeze=True)] * 2,
    Conv(576, activation='hard_swish'),
    Pool(),
    Conv(1024, norm=False, activation='hard_swish'),
)
_fused = functools.partial(Bottleneck, fused=True)
_EDGETPU: Layers = (
    Conv(32, 3, 2),
    _fused(1, 16),
    _fused(8, 32, stride=2),
    *[_fused(4, 32)] * 3,
    _fused(8, 48, stride=2),
    *[_fused(4, 48)] * 3,
    Bottleneck(8, 96, stride=2),
    *[Bottleneck(4, 96)] * 3,
    Bottleneck(8, 96, residual=False),
    *[Bottleneck(4, 96)] * 3,
    Bottleneck(8, 160, 5, 2),
    *[Bottleneck(4, 160, 5)] * 3,
    Bottleneck(8, 192),
    Conv(1280),
)


def _minimalistic(layers: Layers) -> Layers:
    """Returns the layers with ReLU and kernels of at most 3x3, without squeeze and excitation."""
    plain: list[Conv | Bottleneck | Pool] = []
    for layer in layers:
        if isinstance(layer, Bottleneck):
            layer = dataclasses.replace(layer, size=3, activation='relu', squeeze=False)
        elif isinstance(layer, Conv):
            layer = dataclasses.replace(layer, activation='relu')
        plain.append(layer)
    return plain


TABLES = {
    'mobilenet_v3_large': _LARGE,
    'mobilenet_v3_small': _SMALL,
    'mobilenet_v3_large_minimalistic': _minimalistic(_LARGE),
    'mobilenet_v3_small_minimalistic': _minimalistic(_SMALL),
    'mobilenet_edgetpu': _EDGETPU,
}


def mobilenet_v3(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1001,
    *,
    name: str,
    weight_decay: float = 4e-5,
    depth_multiplier: float = 1.0,
    multiplier: float = 1.0,
    fine_grained: bool = False,
    output_stride: int | None = None,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's net of a name, a key of `TABLES`; other arguments and results as in `blocks.mobilenet`."""
    return blocks.mobilenet(
        name,
        TABLES[name],
        inputs,
        num_classes,
        weight_decay=weight_decay,
        depth_multiplier=multiplier * depth_multiplier,
        fine_grained=fine_grained,
        output_stride=output_stride,
        **options,
    )
