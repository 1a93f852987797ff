"""An ONNX graph under construction, as a chain of operators.

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

# Operators whose output is not negative if their input is not.
_KEEPING_SIGNS = ('AveragePool', 'Cast', 'Flatten', 'LRN', 'MaxPool', 'Pad', 'Transpose')


class Graph:
    """Nodes and constants, and the state that the next node depends on.

    Attributes:
        nodes: The nodes so far, each of which takes the output of the one before.
        constants: `TensorProto`s by name.
        value: Name of the last node's output.
        dtype: Type of that output and of constants added: float32 or float16.
        padding: Zeros around the images that the next node must add.
        is_reversed: Whether the first kernel must reverse its input channels.
        flattened: Height, width and channels of images flattened channels first; None if not flattened.
        opset: Version of the operator set.
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
        """Adds a node with the last value, and constants or earlier values, as inputs; returns its output's name."""
        return self.combine(operator, name, self.value, *constants, **attributes)

    def combine(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with named inputs; returns its output's name."""
        output = f'{self.scope}/{name}'
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        self.value = output
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds a constant, converted to `dtype` if it has floats; returns its name."""
        value = np.asarray(value)
        if np.issubdtype(value.dtype, np.floating):
            with np.errstate(over='ignore'):  # the final comparison finds infinite weights
                value = value.astype(self.dtype)
        full_name = f'{self.scope}/{name}'
        self.constants[full_name] = numpy_helper.from_array(np.ascontiguousarray(value), full_name)
        return full_name

    def cast(self, dtype: Any, name: str) -> None:
        """Casts the last value, and later constants, to a type; adds nothing if it has the type already."""
        if self.dtype != np.dtype(dtype):
            self.dtype = np.dtype(dtype)
            self.add('Cast', name, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    @contextlib.contextmanager
    def in_float32(self, name: str) -> Iterator[None]:
        """Makes nodes added inside it compute in float32."""
        dtype = self.dtype
        self.cast(np.float32, f'{name}/float32')
        yield
        self.cast(dtype, f'{name}/{dtype}')

    def take_padding(self) -> Sides:
        """Returns `padding` and clears it; the caller adds it."""
        taken, self.padding = self.padding, NO_SIDES
        return taken

    def write_padding(self) -> None:
        """Adds a Pad node for `padding`, if there is any."""
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
        """Names the last value, the graph's output."""
        self.nodes[-1].output[0] = self.value = name
