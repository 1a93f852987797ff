"""MobileNet v2.

Sources: 'MobileNetV2: Inverted Residuals and Linear Bottlenecks', https://arxiv.org/abs/1801.04381;
research/slim/nets/mobilenet/mobilenet_v2.py in tensorflow/models.
"""

import functools
from typing import Any

import keras

from nets.building import EndPoints
from nets.mobilenet import blocks
from nets.mobilenet.blocks import Bottleneck, Conv

_block = functools.partial(Bottleneck, activation='relu6')
_TABLE: tuple[Any, ...] = (
    Conv(32, 3, 2, activation='relu6'),
    _block(1, 16),
    _block(6, 24, stride=2),
    _block(6, 24),
    _block(6, 32, stride=2),
    *[_block(6, 32)] * 2,
    _block(6, 64, stride=2),
    *[_block(6, 64)] * 3,
    *[_block(6, 96)] * 3,
    _block(6, 160, stride=2),
    *[_block(6, 160)] * 2,
    _block(6, 320),
    Conv(1280, activation='relu6'),
)


def mobilenet_v2(
    inputs: keras.KerasTensor,
    num_classes: int | None = 1001,
    *,
    weight_decay: float = 4e-5,
    depth_multiplier: float = 1.0,
    multiplier: float = 1.0,
    fine_grained: bool = False,
    output_stride: int | None = None,
    **options: Any,
) -> tuple[keras.KerasTensor, EndPoints]:
    """Builds slim's mobilenet_v2; arguments and results as in `blocks.mobilenet`."""
    return blocks.mobilenet(
        'mobilenet_v2',
        _TABLE,
        inputs,
        num_classes,
        weight_decay=weight_decay,
        depth_multiplier=multiplier * depth_multiplier,
        fine_grained=fine_grained,
        output_stride=output_stride,
        **options,
    )
