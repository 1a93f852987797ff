"""A node of a graph, and where a walk through one is: what the operators in `onnx_nodes` look at.

node, state = Node(0, file.model.graph.node[0]), State(Chain(224, 224, 3), Constants(file), layout='NCHW', batch=1)
node.get('group', 1), node.integers('pads'), state.weights(node, 1, rank=4)
"""

import dataclasses
from typing import Any, TypeVar

import numpy as np

from importing.chain import Chain
from importing.onnx_constants import Constants, read_attributes

T = TypeVar('T')

NCHW, NHWC = 'NCHW', 'NHWC'


class OtherNodeError(Exception):
    """A node computes what no net of ours does; says what."""


class Node:
    """A node of a graph.

    Attributes:
        op: Its operator, with the domain if that is not ONNX' own.
        inputs: Names of what it takes; empty where an optional one is left out.
        outputs: Names of what it gives.
        where: What it is called in messages.
    """

    def __init__(self, number: int, proto: Any):
        self.op = proto.op_type if proto.domain in ('', 'ai.onnx') else f'{proto.domain}.{proto.op_type}'
        self.inputs, self.outputs = tuple(proto.input), tuple(proto.output)
        self.where = f'node {number} ({self.op} {(proto.name or self.outputs[0])!r})'
        self._proto = proto

    def get(self, name: str, default: T) -> T:
        """Returns an attribute, or the default where it is left out, of whose type it must be."""
        try:
            value: Any = read_attributes(self._proto).get(name, default)
        except (ValueError, TypeError) as error:
            raise OtherNodeError('has attributes that cannot be read') from error
        if not isinstance(value, type(default)):
            raise OtherNodeError(f'has {name} of another type')
        return value

    def integers(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Returns an attribute that is a list of integers."""
        value = self.get(name, default)
        if not all(isinstance(number, int) for number in value):
            raise OtherNodeError(f'has {name} of another type')
        return value

    def has_input(self, position: int) -> bool:
        """Returns whether an optional input is given."""
        return len(self.inputs) > position and bool(self.inputs[position])


@dataclasses.dataclass
class State:
    """Where a walk through a graph is.

    Attributes:
        chain: What was found so far.
        constants: What the graph says without its images.
        layout: How the values lie now; where they are flat, how they lay before.
        batch: Images in a batch.
        is_flat: Whether the values are [batch, numbers] now.
        columns: Into how many columns the images were averaged, before they are averaged into rows too; else None.
        where: The node that is looked at.
    """

    chain: Chain
    constants: Constants
    layout: str
    batch: int
    is_flat: bool = False
    columns: int | None = None
    where: str = ''

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values now."""
        if self.is_flat:
            return (self.batch, self.chain.size)
        height, width, channels = self.chain.extent
        return (self.batch, channels, height, width) if self.layout == NCHW else (self.batch, height, width, channels)

    def weights(self, node: Node, position: int, rank: int) -> np.ndarray:
        """Returns an input of a node that is weights."""
        if not node.has_input(position):
            raise OtherNodeError(f'has no input {position}')
        value = self.constants.weights(node.inputs[position], self.where)
        if value.ndim != rank:
            raise OtherNodeError(f'takes weights of shape {list(value.shape)}')
        return value

    def numbers(self, node: Node, position: int, attribute: str) -> tuple[int, ...] | None:
        """Returns integers that are an input of a node, in older files its attribute; None where they are not known."""
        if node.has_input(position):
            value = self.constants.get(node.inputs[position])
            return None if value is None else tuple(int(number) for number in value.reshape(-1))
        return node.integers(attribute) or None

    def need_images(self, layout: str = NCHW) -> None:
        """Refuses values that are flat, or lie otherwise."""
        if self.is_flat or self.layout != layout:
            raise OtherNodeError(f'takes {"flat values" if self.is_flat else self.layout}')
