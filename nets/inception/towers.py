"""What the Inception nets share: blocks of parallel towers, each a list of layers.

    net = block(build, net, 'Mixed_3b', [[('Conv2d_0a_1x1', 64)], [('MaxPool_0a_3x3',), ('Conv2d_0b_1x1', 32)]])

A layer is slim's name, which ends in the size of its window, the filters of a convolution, and other arguments: the
size where the name has another one, or Branch for branches of its own.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras

from nets.building import Builder

Layer = tuple[Any, ...]


def block(build: Builder, net: keras.KerasTensor, name: str, towers: Sequence[Sequence[Layer]]) -> keras.KerasTensor:
    """Applies towers, Branch_0 and so on, to `net` and joins their channels."""
    with build.scope(name):
        outputs = [tower(build, net, f'Branch_{i}', layers) for i, layers in enumerate(towers)]
        joined = keras.layers.Concatenate(name=build.scoped('concat'), dtype=build.policy)(outputs)
    return build.add(name, joined)


def tower(build: Builder, net: keras.KerasTensor, scope: str, layers: Sequence[Layer]) -> keras.KerasTensor:
    """Applies layers one after another; a list of layers in their place is applied in parallel and joined."""
    with build.scope(scope):
        for layer in layers:
            if isinstance(layer, list):
                parts = [apply(build, net, *each) for each in layer]
                name = f'{layer[0][0]}.concat'
                net = keras.layers.Concatenate(name=build.scoped(name), dtype=build.policy)(parts)
            else:
                net = apply(build, net, *layer)
    return net


def apply(
    build: Builder,
    net: keras.KerasTensor,
    name: str,
    filters: int = 0,
    size: int | None = None,
    changed: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> keras.KerasTensor:
    """Applies a convolution or pooling by slim's name; `changed` holds options too."""
    options = {**changed, **options}
    height, width = map(int, re.search(r'_(\d+)x(\d+)$', name).groups())  # type: ignore[union-attr]  # all end so
    window = size or (height, width)
    if name.startswith('MaxPool'):
        return build.max_pool(net, name, window, **{'strides': 1, 'padding': 'same', **options})
    if name.startswith('AvgPool'):
        return build.average_pool(net, name, window, **options)
    return build.conv(net, filters, window, name, **options)
