"""Reads an ONNX graph: its layers with weights in order, its images and its logits.

graph = read_graph(file)
graph.layers[0].name, graph.layers[0].shapes      # "node 0 (Conv 'conv1')", {'kernel': (96, 3, 11, 11), 'bias': (96,)}
graph.layout, graph.image_size, graph.logits

Weights are taken from the nodes on the images' path, whatever the names of nodes and values and however they branch.
Nodes without weights are not examined here: running the graph later reveals differences.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from importing.layers import SourceLayer, Values
from importing.onnx_constants import Constants, Node
from importing.onnx_file import OnnxFile
from nets.layers import averaging_matrix
from support.errors import InputError

NCHW, NHWC = 'NCHW', 'NHWC'
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_NO_AXES: tuple[int, ...] = ()
_SAME_NUMBERS = ('Cast', 'Dropout', 'Flatten', 'Identity', 'Reshape', 'Squeeze', 'Transpose', 'Unsqueeze')
_KERNELS = ('Conv', 'Gemm', 'MatMul')
_SOFTMAXES = ('LogSoftmax', 'Softmax')


@dataclasses.dataclass(frozen=True)
class Graph:
    """The content of a graph.

    Attributes:
        layers: Its layers with weights.
        num_nodes: Number of nodes on the images' path.
        layout: 'NCHW' or 'NHWC', of the images.
        image_size: Side of the images; None if the graph takes any.
        channels: Channels of the images.
        logits: Name of the last result, or of the softmax's input if one follows.
        result: Name of the last result.
        softmax: Operator between logits and result, or ''.
    """

    layers: list[SourceLayer]
    num_nodes: int
    layout: str
    image_size: int | None
    channels: int
    logits: str
    result: str
    softmax: str


def read_graph(file: OnnxFile) -> Graph:
    """Reads the layers, images and results of a graph.

    Raises:
        InputError: The file has no weights or damaged ones, or takes images that none of these nets supports.
    """
    nodes = [Node(file.path, number, proto) for number, proto in enumerate(file.model.graph.node)]
    paths = _Paths(file, nodes)
    layout = _find_layout(file, paths)
    image_size, channels = _find_extent(file, layout)
    layers = _Layers(Constants(file, nodes, paths.values), paths).read()
    results = [output.name for output in file.model.graph.output if output.name in paths.makers]
    if not results:
        raise InputError(f'--source={file.path}: damaged: none of its results is computed from its images')
    result = max(results, key=list(paths.makers).index)
    last = paths.maker_behind(result)
    softmax, logits = (last.op, paths.before[last.outputs[0]]) if last and last.op in _SOFTMAXES else ('', result)
    return Graph(layers, len(paths.nodes), layout, image_size, channels, logits, result, softmax)


class _Paths:
    """The path of the images through a graph.

    Attributes:
        nodes: Nodes on the path, in an order in which they can be computed.
        values: Names of the images, and of all values that depend on them.
        makers: Dependent value -> the node that computes it.
        before: Dependent value -> the node's input in `values`; the first, if there are several.
    """

    def __init__(self, file: OnnxFile, nodes: Sequence[Node]):
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.before: dict[str, str] = {}
        self.values = {file.input_name}
        waiting = [node for node in nodes if node.op != 'Shape']  # sizes are known without the images
        while waiting:  # one pass, if nodes are in the order that ONNX requires
            later = []
            for node in waiting:
                data = next((name for name in node.inputs if name in self.values), None)
                if data is None:
                    later.append(node)
                    continue
                if not node.outputs[0] or node.outputs[0] in self.values:
                    raise InputError(f'--source={file.path}: damaged: {node.where} has no result of its own')
                self.nodes.append(node)
                for name in filter(None, node.outputs):
                    self.makers.setdefault(name, node)
                    self.before.setdefault(name, data)
                    self.values.add(name)
            if len(later) == len(waiting):
                break
            waiting = later

    def maker_behind(self, name: str) -> Node | None:
        """Returns the node that computes a value, skipping nodes that only move it; None for the images."""
        node = self.makers.get(name)
        while node is not None and node.op in _SAME_NUMBERS:
            node = self.makers.get(self.before[node.outputs[0]])
        return node

    def is_channels_last(self, name: str) -> bool:
        """Returns whether flat values have the order height, width, channels: a node moved channels last."""
        node = self.makers.get(name)
        while node is not None and node.op not in _KERNELS:
            if node.op == 'Transpose':
                return node.get('perm', _NO_AXES) == _TO_NHWC
            node = self.makers.get(self.before[node.outputs[0]])
        return False


def _find_layout(file: OnnxFile, paths: _Paths) -> str:
    """Returns the layout of the images: NHWC if the graph begins by moving channels first."""
    data = file.input_name
    for node in paths.nodes:
        if data in node.inputs and node.op not in ('Cast', 'Dropout', 'Identity'):
            return NHWC if node.op == 'Transpose' and node.get('perm', _NO_AXES) == _TO_NCHW else NCHW
        data = node.outputs[0] if data in node.inputs else data
    return NCHW


def _find_extent(file: OnnxFile, layout: str) -> tuple[int | None, int]:
    """Returns the side of the images, None if it is not fixed, and their channels."""
    height, width, channels = (file.input_shape[layout.index(axis)] for axis in 'HWC')
    if height and width and height != width:
        raise InputError(f'--source={file.path}: its images are {height}x{width}; the nets here take square ones')
    if channels not in (1, 3):
        raise InputError(
            f'--source={file.path}: its images have {channels or "any number of"} channels ({layout}); the nets here '
            'take 3 or 1'
        )
    return height or width, channels


class _Layers:
    """Reads the layers with weights."""

    def __init__(self, constants: Constants, paths: _Paths):
        self._constants, self._paths = constants, paths
        self._values: dict[str, Values] = {}  # of the layer that computes a value

    def read(self) -> list[SourceLayer]:
        """Returns the layers in the order of the nodes."""
        readers: dict[str, Callable[[Node, str], tuple[Values, dict[str, float]] | None]] = {
            'Add': self._add_bias,
            'BatchNormalization': self._normalize,
            'Conv': self._convolve,
            'Gemm': self._connect,
            'MatMul': self._multiply,
        }
        found = []
        for node in self._paths.nodes:
            data = self._paths.before[node.outputs[0]]
            layer = readers[node.op](node, data) if node.op in readers else None
            if layer is not None:
                self._values[node.outputs[0]] = layer[0]
                found.append((node, data, *layer))
        return [
            SourceLayer(
                node.where,
                {name: value.shape for name, value in values.items()},
                functools.partial(dict, values),
                settings,
                self._paths.is_channels_last(data),
                data,
            )
            for node, data, values, settings in found
        ]

    def _convolve(self, node: Node, _: str) -> tuple[Values, dict[str, float]]:
        values = {'kernel': self._constants.weights(node, 1, rank=4)}
        if node.has_input(2):
            values['bias'] = self._constants.weights(node, 2, rank=1)
        return values, {'groups': node.get('group', 1)}

    def _connect(self, node: Node, _: str) -> tuple[Values, dict[str, float]]:
        kernel = self._constants.weights(node, 1, rank=2)
        values = {'kernel': _scaled(kernel if node.get('transB', 0) else kernel.T, node.get('alpha', 1.0))}
        if node.has_input(2):
            bias = _scaled(self._constants.weights(node, 2), node.get('beta', 1.0)).reshape(-1)
            values['bias'] = np.broadcast_to(bias, values['kernel'].shape[:1]) if bias.size == 1 else bias
        return values, {}

    def _multiply(self, node: Node, data: str) -> tuple[Values, dict[str, float]] | None:
        """Skips averages over regions, which this project exports as products of images with constants."""
        if node.inputs[0] != data or (node.has_input(1) and node.inputs[1] in self._paths.values):
            return None
        kernel = self._constants.weights(node, 1, rank=2).T
        return None if _is_average(kernel) else ({'kernel': kernel}, {})

    def _normalize(self, node: Node, _: str) -> tuple[Values, dict[str, float]]:
        names = ('gamma', 'beta', 'moving_mean', 'moving_variance')
        values = {name: self._constants.weights(node, position, rank=1) for position, name in enumerate(names, start=1)}
        return values, {'epsilon': node.get('epsilon', 1e-5)}

    def _add_bias(self, node: Node, data: str) -> None:
        """Takes the bias of a kernel from a separate Add node, if the kernel has none."""
        kernel = self._paths.maker_behind(data)
        values = self._values.get(kernel.outputs[0], {}) if kernel else {}
        others = [position for position, name in enumerate(node.inputs) if name not in self._paths.values]
        if 'kernel' in values and 'bias' not in values and others:
            values['bias'] = self._constants.weights(node, others[0]).reshape(-1)


def _scaled(values: np.ndarray, factor: float) -> np.ndarray:
    return values if factor == 1 else values * np.float32(factor)


def _is_average(matrix: np.ndarray) -> bool:
    count, side = matrix.shape
    averages = 0 < count <= side and np.allclose(matrix.sum(axis=1), 1, atol=1e-4)
    return averages and np.allclose(matrix, averaging_matrix(side, count), atol=1e-6)
