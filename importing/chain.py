"""A net as a chain of steps in one vocabulary, whichever program has written it.

    chain = Chain(224, 224, 3)
    chain.convolve("node 0 (Conv 'conv1')", (11, 11, 3, 96), strides=(4, 4), values={'kernel': kernel, 'bias': bias})
    chain.relu("node 1 (Relu 'relu1')")
    chain.steps

A graph and a Keras model are walked into a chain each (`onnx_walk`, `keras_walk`); equal chains compute the same. What
can be said in several ways is said in one here: a convolution of its whole input is a fully connected layer, and of
padding counts what lies before the images, and how many positions come out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Pair = tuple[int, int]
Sides = tuple[int, int, int, int]  # top, left, bottom, right, as in ONNX

CONVOLUTION, CONNECTED, RELU = 'convolution', 'fully connected layer', 'ReLU'
MAX_POOL, AVERAGE_POOL, REGIONS = 'max pooling', 'average pooling', 'averages over regions'
RESPONSE_NORM, BATCH_NORM = 'local response normalization', 'batch normalization'
SOFTMAX, OTHER = 'softmax', 'other'
WITH_KERNELS = (CONVOLUTION, CONNECTED)
_NONE: Sides = (0, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation on the images.

    Attributes:
        kind: One of the names above.
        facts: All that decides what it computes, but for its numbers: name -> value. Equal steps have equal facts.
        where: What it is called where it comes from.
        extent: Height, width and channels of what it takes; of flat inputs all in channels.
        values: Its numbers, or the variables for them: kernel [height, width, channels, filters], or [inputs, units]
            of inputs in the order height, width, channels; bias; gamma, beta, moving_mean, moving_variance.
    """

    kind: str
    facts: Mapping[str, Any]
    where: str
    extent: tuple[int, int, int]
    values: dict[str, Any]


class Chain:
    """Steps, as they are added, and the size of the images after the last.

    Attributes:
        steps: So far.
        extent: Height, width and channels of what the last step gives.
    """

    def __init__(self, height: int, width: int, channels: int):
        self.steps: list[Step] = []
        self.extent = (height, width, channels)
        self._zeros = _NONE

    @property
    def size(self) -> int:
        """Numbers in what the last step gives."""
        return int(np.prod(self.extent))

    def pad(self, sides: Sides) -> None:
        """Adds zeros around the images, which the next step takes with its own padding."""
        self._zeros = _sum(self._zeros, sides)

    def convolve(
        self,
        where: str,
        kernel: tuple[int, int, int, int],
        *,
        strides: Pair = (1, 1),
        padding: Sides | str = _NONE,
        groups: int = 1,
        dilations: Pair = (1, 1),
        values: Mapping[str, Any],
    ) -> None:
        """Adds a convolution with a kernel [height, width, channels of a group, filters]."""
        height, width, channels, filters = kernel
        facts = {'filters': filters, 'kernel': (height, width), 'channels': channels, 'groups': groups}
        window = self._window((height, width), strides, padding, dilations)
        facts |= {'dilations': dilations, **window}
        covers_all = (height, width) == self.extent[:2] and facts['padding'] == (0, 0) and facts['output'] == (1, 1)
        if covers_all and groups == 1:
            self._connect(where, height * width * channels, filters, values)
        else:
            self._add(CONVOLUTION, where, facts, (*window['output'], filters), values)

    def connect(self, where: str, inputs: int, units: int, values: Mapping[str, Any]) -> None:
        """Adds a fully connected layer of all that the last step gives."""
        self._connect(where, inputs, units, values)

    def _connect(self, where: str, inputs: int, units: int, values: Mapping[str, Any]) -> None:
        self._add(CONNECTED, where, {'units': units, 'inputs': inputs}, (1, 1, units), values)

    def max_pool(
        self, where: str, size: Pair, strides: Pair, padding: Sides | str, ceil: bool = False, dilations: Pair = (1, 1)
    ) -> None:
        """Adds max pooling; `ceil` lets the last windows begin inside the images and end outside."""
        facts = {'kernel': size, 'dilations': dilations, **self._window(size, strides, padding, dilations, ceil)}
        self._add(MAX_POOL, where, facts, (*facts['output'], self.extent[2]))

    def average_pool(self, where: str, size: Pair, strides: Pair, padding: Sides | str, ceil: bool = False) -> None:
        """Adds average pooling, unless its windows are single positions: that is what an adaptive one then is."""
        facts = {'kernel': size, **self._window(size, strides, padding, (1, 1), ceil)}
        if (size, facts['padding'], facts['output']) != ((1, 1), (0, 0), self.extent[:2]):
            self._add(AVERAGE_POOL, where, facts, (*facts['output'], self.extent[2]))

    def average_regions(self, where: str, rows: int, columns: int) -> None:
        """Adds averages over so many regions, which overlap where they must, as PyTorch's adaptive pooling has them."""
        height, width, channels = self.extent
        if height % rows or width % columns:
            self._add(REGIONS, where, {'regions': (rows, columns)}, (rows, columns, channels))
        else:
            size = (height // rows, width // columns)
            self.average_pool(where, size, size, _NONE)

    def normalize_response(self, where: str, size: int, alpha: float, beta: float, bias: float) -> None:
        """Adds `x / (bias + alpha * mean of squares over size channels) ** beta`, as Caffe and ONNX write it."""
        self._add(RESPONSE_NORM, where, {'size': size, 'alpha': alpha, 'beta': beta, 'bias': bias}, self.extent)

    def normalize_batch(self, where: str, channels: int, epsilon: float, values: Mapping[str, Any]) -> None:
        """Adds batch normalization by moving statistics."""
        self._add(BATCH_NORM, where, {'channels': channels, 'epsilon': epsilon}, self.extent, values)

    def relu(self, where: str) -> None:
        """Adds max(x, 0); of what is at least 0 already, that is nothing."""
        if not (self.steps and self.steps[-1].kind == RELU):
            self._add(RELU, where, {}, self.extent)

    def softmax(self, where: str) -> None:
        """Adds a softmax over the channels."""
        self._add(SOFTMAX, where, {}, self.extent)

    def other(self, where: str, what: str) -> None:
        """Adds what no net of ours has; the walk ends with it."""
        self._add(OTHER, where, {'what': what}, self.extent)

    def add_bias(self, bias: Any) -> bool:
        """Takes a bias that is added behind its kernel; returns whether there is one that has none yet."""
        if not self.steps or self.steps[-1].kind not in WITH_KERNELS or 'bias' in self.steps[-1].values:
            return False
        self.steps[-1].values['bias'] = bias
        return True

    def _add(
        self,
        kind: str,
        where: str,
        facts: Mapping[str, Any],
        extent: tuple[int, int, int],
        values: Mapping[str, Any] | None = None,
    ) -> None:
        if any(self._zeros) and not (kind == CONVOLUTION or (kind == MAX_POOL and self._is_not_negative)):
            facts = {**facts, 'zeros': self._zeros}
        self.steps.append(Step(kind, facts, where, self.extent, dict(values or {})))
        self.extent, self._zeros = extent, _NONE

    @property
    def _is_not_negative(self) -> bool:
        """Whether zeros and nothing are the same to a maximum."""
        last = next((step.kind for step in reversed(self.steps) if step.kind not in (MAX_POOL, RESPONSE_NORM)), None)
        return last == RELU

    def _window(
        self, size: Pair, strides: Pair, padding: Sides | str, dilations: Pair, ceil: bool = False
    ) -> dict[str, Pair]:
        """Returns where the first window begins, how far apart they are, and how many there are."""
        reach = tuple((side - 1) * dilation + 1 for side, dilation in zip(size, dilations, strict=True))
        if isinstance(padding, str):
            padding = self._same(reach, strides, at_end=padding == 'SAME_UPPER')
        top, left, bottom, right = _sum(self._zeros, padding)
        counts = [
            window_count(side, window, stride, before, after, ceil)
            for side, window, stride, before, after in zip(
                self.extent[:2], reach, strides, (top, left), (bottom, right), strict=True
            )
        ]
        return {'strides': strides, 'padding': (top, left), 'output': (counts[0], counts[1])}

    def _same(self, reach: tuple[int, ...], strides: Pair, at_end: bool) -> Sides:
        """Returns the padding with which there is a window for every stride; an odd one is `at_end`."""
        before, after = [], []
        for side, window, stride in zip(self.extent[:2], reach, strides, strict=True):
            total = max((-(-side // stride) - 1) * stride + window - side, 0)
            smaller, larger = total // 2, total - total // 2
            before.append(smaller if at_end else larger)
            after.append(larger if at_end else smaller)
        return (*before, *after)  # type: ignore[return-value]  # two of each


def _sum(one: Sides, other: Sides) -> Sides:
    top, left, bottom, right = (first + second for first, second in zip(one, other, strict=True))
    return top, left, bottom, right


def window_count(side: int, window: int, stride: int, before: int, after: int, ceil: bool) -> int:
    """Returns how many windows fit; with `ceil` the last one may end outside, but must not begin there."""
    room = side + before + after - window
    count = (-(-room // stride) if ceil else room // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= side + before else count
