"""What a graph says without its images: weights, and the shapes that it reshapes to.

constants = Constants(file)
constants.weights('conv1_w')            # float32, finite
constants.get('shape')                  # whatever it is, or None where it depends on the images
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from configs.errors import InputError, first_line
from engine import extras
from importing.onnx_file import OnnxFile

Attributes = Mapping[str, Any]
_MAX_DEPTH = 100
_MAX_NUMBERS = 2**28  # several times the largest layer; a small file can ask for more than there is memory
_ADVICE = 'give the file that has them'


def read_attributes(node: Any) -> dict[str, Any]:
    """Returns the attributes of a node: numbers, tuples of numbers, str, or an array."""
    onnx = extras.load('onnx', 'reading ONNX files')
    read = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: _plain(value) for name, value in read.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors='replace')
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(value)
    return _to_array(value) if hasattr(value, 'data_type') else value


def _to_array(tensor: Any) -> np.ndarray:
    return extras.load('onnx.numpy_helper', 'reading ONNX files').to_array(tensor)


def _constant(_: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    (value,) = attributes.values()  # called value, value_float, value_ints, ...
    return np.asarray(value, np.float32 if isinstance(value, float) else None)


def _cast(inputs: Sequence[np.ndarray], attributes: Attributes) -> np.ndarray:
    onnx = extras.load('onnx', 'reading ONNX files')
    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes['to']))


def _gather(inputs: Sequence[np.ndarray], _: Attributes) -> np.ndarray:
    sizes, chosen = inputs
    if sizes.ndim != 1:
        raise ValueError('Gather is known only of the sizes in a shape')
    return sizes[chosen]


def _axes(inputs: Sequence[np.ndarray], attributes: Attributes) -> tuple[int, ...] | None:
    """Returns the axes, which were an attribute before opset 13."""
    return tuple(inputs[1].tolist()) if len(inputs) > 1 else attributes.get('axes')


# What exporters compute with constants: layouts of weights, and shapes.
_OPERATIONS: dict[str, Callable[[Sequence[np.ndarray], Attributes], np.ndarray]] = {
    'Cast': _cast,
    'Concat': lambda inputs, attributes: np.concatenate(inputs, attributes['axis']),
    'Constant': _constant,
    'Gather': _gather,
    'Identity': lambda inputs, _: inputs[0],
    'Reshape': lambda inputs, _: inputs[0].reshape(inputs[1]),
    'Squeeze': lambda inputs, attributes: np.squeeze(inputs[0], _axes(inputs, attributes)),
    'Transpose': lambda inputs, attributes: np.transpose(inputs[0], attributes.get('perm')),
    'Unsqueeze': lambda inputs, attributes: np.expand_dims(inputs[0], _axes(inputs, attributes) or ()),
}
_EMPTY = ('ConstantOfShape', 'RandomNormal', 'RandomUniform')


class Constants:
    """Values by name, computed when they are asked for.

    Attributes:
        shapes: Shape of what depends on the images, by name; whoever walks the graph says it.
    """

    def __init__(self, file: OnnxFile):
        graph = file.model.graph
        self._path = file.path
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = {output: node for node in graph.node for output in node.output}
        self._computed: dict[str, np.ndarray | None] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def weights(self, name: str, where: str) -> np.ndarray:
        """Returns the numbers of a layer.

        Args:
            name: Of the value in the graph.
            where: The node that takes them, for messages.

        Raises:
            InputError: there are none, or they are not float32, or not finite.
        """
        value = self.get(name)
        if value is None:
            raise InputError(f'{self._start(where)} takes {name!r}, which is computed as weights never are')
        if value.dtype != np.float32:
            raise InputError(f'{self._start(where)} takes {name!r} in {value.dtype}; float32 is needed')
        bad = value.size - np.count_nonzero(np.isfinite(value))
        if bad:
            problem = f'{bad} of {value.size} numbers are not finite'
            raise InputError(f'{self._start(where)} takes {name!r}, in which {problem}')
        return value

    def get(self, name: str, depth: int = 0) -> np.ndarray | None:
        """Returns a value, or None if it depends on the images or is computed by what is not in the table.

        Raises:
            InputError: the file holds no value for it, or a damaged one.
        """
        if name in self._stored:
            try:
                return _to_array(self._stored[name])
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f'--source={self._path}: damaged: {name!r}: {first_line(error)}') from error
        if name in self.shapes:
            return None
        node = self._nodes.get(name)
        if node is None:
            raise InputError(f'--source={self._path}: holds no weights, or not all: {name!r} has no value; {_ADVICE}')
        if node.op_type in _EMPTY:
            raise InputError(f'--source={self._path}: holds no weights: {name!r} is made by {node.op_type}; {_ADVICE}')
        if name not in self._computed:
            self._computed[name] = self._compute(node, depth)
        return self._computed[name]

    def _compute(self, node: Any, depth: int) -> np.ndarray | None:
        if node.op_type == 'Shape':
            shape = self.shapes.get(node.input[0])
            return None if shape is None else np.asarray(shape, np.int64)
        operation = _OPERATIONS.get(node.op_type)
        if operation is None or depth > _MAX_DEPTH:
            return None
        inputs = [self.get(name, depth + 1) for name in node.input]
        known = [value for value in inputs if value is not None]
        if len(known) < len(inputs):
            return None
        try:
            if sum(value.size for value in known) > _MAX_NUMBERS:
                raise ValueError(f'more than {_MAX_NUMBERS} numbers')
            return operation(known, read_attributes(node))
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            where = f'node {node.op_type} {node.name or node.output[0]!r}'
            raise InputError(f'--source={self._path}: damaged: {where}: {first_line(error)}') from error

    def _start(self, where: str) -> str:
        return f'--source={self._path}: {where}'
