"""The nodes of a graph, and the weights that it stores, or computes independently of its images.

node = Node('net.onnx', 0, file.model.graph.node[0])
node.get('group', 1)
Constants(file, [node], images={'data'}).weights(node, 1, rank=4)                # float32, finite
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from importing.onnx_file import OnnxFile
from support import optional_packages
from support.errors import InputError, first_line

T = TypeVar('T')

_OWN_DOMAINS = ('', 'ai.onnx')
_MAX_DEPTH = 100
_MAX_NUMBERS = 2**28  # several times the largest layer; a small file can request more than fits in memory
_ADVICE = 'give the file that has them'


class Node:
    """A node of a graph.

    Attributes:
        op: Its operator, with the domain unless that is ONNX' own.
        inputs: Names of its inputs; empty for an omitted optional one.
        outputs: Names of its outputs.
        where: Its description in messages.
        proto: The `onnx.NodeProto`.
    """

    def __init__(self, path: str, number: int, proto: Any):
        self.op = proto.op_type if proto.domain in _OWN_DOMAINS else f'{proto.domain}.{proto.op_type}'
        self.inputs, self.outputs = tuple(proto.input), tuple(proto.output)
        self.where = f'node {number} ({self.op} {(proto.name or self.outputs[0])!r})'
        self._path, self.proto = path, proto

    def get(self, name: str, default: T) -> T:
        """Returns an attribute, or the default if it is omitted.

        Raises:
            InputError: It is damaged, or of another type than the default.
        """
        helper = optional_packages.load('onnx.helper', 'reading ONNX files')
        found = [attribute for attribute in self.proto.attribute if attribute.name == name]
        try:
            value: Any = helper.get_attribute_value(found[-1]) if found else default
        except (ValueError, TypeError) as error:
            raise InputError(f'--source={self._path}: damaged: {self.where}: {first_line(error)}') from error
        if isinstance(default, tuple) and isinstance(value, Sequence):
            value = tuple(value)
        if not isinstance(value, type(default)):
            raise InputError(f'--source={self._path}: damaged: {self.where} has {name} of another type')
        return value

    def has_input(self, position: int) -> bool:
        """Returns whether an optional input is given."""
        return len(self.inputs) > position and bool(self.inputs[position])


def _to_array(tensor: Any) -> np.ndarray:
    return optional_packages.load('onnx.numpy_helper', 'reading ONNX files').to_array(tensor)


# Operators that exporters apply to weights.
_OPERATORS = ('Cast', 'Concat', 'Constant', 'Identity', 'Reshape', 'Squeeze', 'Transpose', 'Unsqueeze')
_EMPTY = ('ConstantOfShape', 'RandomNormal', 'RandomUniform')


class Constants:
    """Values by name, computed on request.

    Args:
        file: The graph.
        nodes: All of its nodes.
        images: Names of the images, and of values that depend on them.
    """

    def __init__(self, file: OnnxFile, nodes: Sequence[Node], images: Collection[str]):
        self._path, self._images = file.path, images
        self._opset = max((each.version for each in file.model.opset_import if each.domain in _OWN_DOMAINS), default=1)
        self._stored = {tensor.name: tensor for tensor in file.model.graph.initializer}
        self._nodes = {output: node for node in nodes for output in node.outputs}
        self._computed: dict[str, np.ndarray | None] = {}

    def weights(self, node: Node, position: int, rank: int | None = None) -> np.ndarray:
        """Returns the weights at an input of a node.

        Raises:
            InputError: They are missing, not float32, not finite, or have another rank.
        """
        name = node.inputs[position] if node.has_input(position) else ''
        value, problem = self._get(name) if name else None, None
        if value is None:
            problem = ', which is computed as weights never are'
        elif value.dtype != np.float32:
            problem = f' in {value.dtype}; float32 is needed'
        elif rank not in (None, value.ndim):
            problem = f' of shape {list(value.shape)}, as weights of the nets here are not'
        elif not np.isfinite(value).all():
            bad = value.size - np.count_nonzero(np.isfinite(value))
            problem = f', in which {bad} of {value.size} numbers are not finite'
        if value is None or problem:
            raise InputError(f'--source={self._path}: {node.where} takes {name!r}{problem}')
        return value

    def _get(self, name: str, depth: int = 0) -> np.ndarray | None:
        """Returns a value, or None if it depends on the images or on an operator outside `_OPERATORS`.

        Raises:
            InputError: The file has no value for it, or a damaged one.
        """
        if name in self._stored:
            try:
                return _to_array(self._stored[name])
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(f'--source={self._path}: damaged: {name!r}: {first_line(error)}') from error
        if name in self._images:
            return None
        node = self._nodes.get(name)
        if node is None:
            raise InputError(f'--source={self._path}: holds no weights, or not all: {name!r} has no value; {_ADVICE}')
        if node.op in _EMPTY:
            raise InputError(f'--source={self._path}: holds no weights: {name!r} is made by {node.op}; {_ADVICE}')
        if name not in self._computed:
            self._computed[name] = self._compute(node, depth)
        return self._computed[name]

    def _compute(self, node: Node, depth: int) -> np.ndarray | None:
        if node.op not in _OPERATORS or depth > _MAX_DEPTH:
            return None
        inputs = {name: self._get(name, depth + 1) for name in node.inputs}
        known = {name: value for name, value in inputs.items() if value is not None}
        if len(known) < len(inputs):
            return None
        try:
            if sum(known[name].size for name in node.inputs) > _MAX_NUMBERS:
                raise ValueError(f'more than {_MAX_NUMBERS} numbers')
            return self._run(node, known)
        except Exception as error:  # from the reference evaluator
            raise InputError(f'--source={self._path}: damaged: {node.where}: {first_line(error)}') from error

    def _run(self, node: Node, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Runs one node in ONNX' reference implementation, with the graph's operator set."""
        onnx = optional_packages.load('onnx', 'reading ONNX files')
        reference = optional_packages.load('onnx.reference', 'reading ONNX files')
        named = [onnx.helper.make_empty_tensor_value_info(name) for name in (*inputs, *node.outputs)]
        graph = onnx.helper.make_graph([node.proto], 'node', named[: len(inputs)], named[len(inputs) :])
        graph.node[0].domain = ''
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', self._opset)])
        return reference.ReferenceEvaluator(model).run(None, dict(inputs))[0]
