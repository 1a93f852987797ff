"""Two chains side by side: the first step in which they differ, in words, and the weights of one in the other.

difference(found.steps, expected.steps, 'bvlc_alexnet')     # None, or what it is
assign(found.steps, expected.steps)
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from importing.chain import (
    AVERAGE_POOL,
    BATCH_NORM,
    CONNECTED,
    CONVOLUTION,
    MAX_POOL,
    OTHER,
    REGIONS,
    RESPONSE_NORM,
    SOFTMAX,
    Step,
)

_SAME = 1e-4  # relative; exporters keep such numbers as float32, and some divide by the size of the window first

# How a step is called: what stands first, and is always said.
_HEADLINES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    CONVOLUTION: lambda facts: f'{facts["filters"]} filters of {_sides(facts["kernel"])}',
    CONNECTED: lambda facts: f'{facts["units"]} units of {facts["inputs"]} inputs',
    MAX_POOL: lambda facts: f'max pooling of {_sides(facts["kernel"])}',
    AVERAGE_POOL: lambda facts: f'average pooling of {_sides(facts["kernel"])}',
    RESPONSE_NORM: lambda facts: f'{RESPONSE_NORM} of {facts["size"]} channels',
    BATCH_NORM: lambda facts: f'{BATCH_NORM} of {facts["channels"]} channels',
    REGIONS: lambda facts: f'averages over {_sides(facts["regions"])} regions',
    OTHER: lambda facts: facts['what'],
}
# The other facts, which are said where they differ.
_FACTS: dict[str, Callable[[Any], str]] = {
    'alpha': lambda value: f'alpha {value:.5g}',
    'beta': lambda value: f'beta {value:.5g}',
    'bias': lambda value: f'bias {value:.5g}',
    'channels': lambda value: f'of {value} channels each',
    'dilations': lambda value: f'dilated by {_sides(value)}',
    'epsilon': lambda value: f'epsilon {value:.5g}',
    'groups': lambda value: f'in {value} group{"s" if value != 1 else ""}',
    'output': lambda value: f'giving {_sides(value)} positions',
    'padding': lambda value: f'padded by {_sides(value)}',
    'strides': lambda value: f'with strides of {_sides(value)}',
    'zeros': lambda value: f'behind zeros {value[0]}, {value[1]}, {value[2]}, {value[3]} at top, left, bottom, right',
}
_IN_HEADLINES = ('filters', 'inputs', 'kernel', 'regions', 'size', 'units', 'what')


def _sides(pair: Sequence[int]) -> str:
    return 'x'.join(map(str, pair))


def without_softmax(steps: Sequence[Step]) -> list[Step]:
    """Returns the steps up to the logits."""
    return list(steps[:-1] if steps and steps[-1].kind == SOFTMAX else steps)


def difference(found: Sequence[Step], expected: Sequence[Step], net: str) -> str | None:
    """Returns in words the first step in which a chain is not a net, whatever its weights; None where it is that net.

    Args:
        found: Steps of the source.
        expected: Steps of the net.
        net: Its name.
    """
    for here, there in itertools.zip_longest(found, expected):
        if there is None:
            return f'{here.where}: {_describe(here)}; {net} ends before that'
        if here is None:
            after = f'ends after {found[-1].where}' if found else 'computes nothing'
            return f'{after}; {net} has {_describe(there)} there ({there.where})'
        names = _differing(here.facts, there.facts) if here.kind == there.kind else []
        names = [name for name in names if name != 'output'] or names  # which follows from the others
        if here.kind != there.kind or names:
            return f'{here.where}: {_describe(here, names)}; {net} has {_describe(there, names)} there ({there.where})'
    return None


def _differing(facts: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys((*facts, *others))
    return [name for name in names if not _is_same(facts.get(name), others.get(name))]


def _is_same(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, int | float):
        return math.isclose(value, other, rel_tol=_SAME)
    return value == other


def _describe(step: Step, names: Sequence[str] = ()) -> str:
    """Returns what a step is, with those of its facts that are named."""
    headline = _HEADLINES[step.kind](step.facts) if step.kind in _HEADLINES else step.kind
    details = [_FACTS[name](step.facts[name]) for name in names if name not in _IN_HEADLINES and name in step.facts]
    return ', '.join([headline, *details])


def assign(found: Sequence[Step], expected: Sequence[Step]) -> tuple[int, int]:
    """Gives the variables of a net the weights of a chain that is the same; returns how many tensors, and numbers."""
    for here, there in zip(found, expected, strict=True):
        fill(there, here.values)
    values = [value for step in found for value in step.values.values()]
    return len(values), sum(value.size for value in values)


def fill(step: Step, values: Mapping[str, np.ndarray]) -> None:
    """Gives the variables of one step of a net their values; a layer that comes without a bias gets zeros."""
    for name, variable in step.values.items():
        variable.assign(np.reshape(values[name], variable.shape) if name in values else np.zeros(variable.shape))
