"""An ONNX graph as it grows, one operator behind the other.

graph = Graph('alexnet_v2', 'images')
graph.add('Conv', 'conv1', graph.constant('conv1/weights', kernel), strides=(4, 4))      # alexnet_v2/conv1/weights
graph.add('Relu', 'conv1/Relu')
graph.finish('logits')
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from configs.export import DEFAULT_OPSET

Sides = tuple[int, int, int, int]  # top, left, bottom, right
NO_SIDES: Sides = (0, 0, 0, 0)

# What makes no negative values of others.
_KEEPING_SIGNS = ('AveragePool', 'Cast', 'Flatten', 'LRN', 'MaxPool', 'Pad', 'Transpose')


class Graph:
    """Nodes and constants, and what the next node has to know of those before.

    Attributes:
        nodes: So far, each of which takes what the one before gives.
        constants: `TensorProto`s by the names that the nodes know them by.
        value: Name of what the last node gives.
        dtype: Of that, and of the constants that are added: float32 or float16.
        padding: Zeros around the images that the next node has to add.
        is_reversed: Whether the first kernel has to take the channels of the images from the last to the first.
        flattened: Height, width and channels of images whose numbers are in one row, channels first; None of others.
        opset: Version of the operators.
    """

    def __init__(self, scope: str, value: str, opset: int = DEFAULT_OPSET):
        self.scope, self.value, self.opset = scope, value, opset
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.dtype = np.dtype(np.float32)
        self.padding = NO_SIDES
        self.is_reversed = False
        self.flattened: tuple[int, int, int] | None = None

    def add(self, operator: str, name: str, *constants: str, **attributes: Any) -> str:
        """Adds a node that takes the last value, and constants or earlier values; returns the name of what it gives."""
        return self.combine(operator, name, self.value, *constants, **attributes)

    def combine(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node that takes values by their names; returns the name of what it gives."""
        output = f'{self.scope}/{name}'
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        self.value = output
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a constant, of `dtype` if it is of floats; returns its name."""
        value = np.asarray(value)
        if np.issubdtype(value.dtype, np.floating):
            with np.errstate(over='ignore'):  # infinite weights are found where the file is compared
                value = value.astype(self.dtype)
        full_name = f'{self.scope}/{name}'
        self.constants[full_name] = numpy_helper.from_array(np.ascontiguousarray(value), full_name)
        return full_name

    def cast(self, dtype: Any, name: str) -> None:
        """Makes the last value, and what follows, of another type; adds nothing if it is of it."""
        if self.dtype != np.dtype(dtype):
            self.dtype = np.dtype(dtype)
            self.add('Cast', name, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    @contextlib.contextmanager
    def in_float32(self, name: str) -> Iterator[None]:
        """Lets what is added inside it compute in float32."""
        dtype = self.dtype
        self.cast(np.float32, f'{name}/float32')
        yield
        self.cast(dtype, f'{name}/{dtype}')

    def take_padding(self) -> Sides:
        """Returns `padding`, which the caller adds."""
        taken, self.padding = self.padding, NO_SIDES
        return taken

    def write_padding(self) -> None:
        """Adds `padding` as a node of its own, if there is any."""
        if any(self.padding):
            top, left, bottom, right = self.take_padding()
            sides = np.array([0, 0, top, left, 0, 0, bottom, right])
            name = f'Pad_{len(self.nodes)}'
            self.add('Pad', name, self.constant(f'{name}/sides', sides))

    @property
    def is_not_negative(self) -> bool:
        """Whether the last value is known to have no negative numbers."""
        return next((node.op_type for node in reversed(self.nodes) if node.op_type not in _KEEPING_SIGNS), '') == 'Relu'

    def finish(self, name: str) -> None:
        """Gives the last value the name of the graph's result."""
        self.nodes[-1].output[0] = self.value = name
