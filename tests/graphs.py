"""Graphs of every net as exporters write them, node by node, with random weights; onnxruntime says what they compute.

write(tmp_path / 'net.onnx', 'bvlc_alexnet', STYLES['zoo'])
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nets import nets_factory

onnx = pytest.importorskip('onnx', reason='the extra `export` is not installed')
onnxruntime = pytest.importorskip('onnxruntime', reason='the extra `export` is not installed')
onnx_helper, numpy_helper = onnx.helper, onnx.numpy_helper

CLASSES = 7
NARROW = 1 / 16

# (operator, width, kernel, stride, padding, groups); what a net has at full width.
Layer = tuple
_LRN = ('LRN', 5, 1e-4)


def _conv(width: int, kernel: int, stride: int = 1, padding: Any = 0, groups: int = 1) -> list[Layer]:
    return [('Conv', width, kernel, stride, padding, groups), ('Relu',)]


def _pool(padding: Sequence[int] = (0, 0, 0, 0), kernel: int = 3) -> Layer:
    return ('MaxPool', kernel, 2, padding)


def _dense(*widths: int) -> list[Layer]:
    return [layer for width in widths for layer in (('Gemm', width), ('Relu',))] + [('Gemm', 0)]


def _caffe(*after_first: Layer) -> list[Layer]:
    return [
        *_conv(96, 11, 4), *after_first, *_conv(256, 5, 1, 2, 2), *after_first, *_conv(384, 3, 1, 1),
        *_conv(384, 3, 1, 1, 2), *_conv(256, 3, 1, 1, 2), _pool((0, 0, 1, 1)), *_dense(4096, 4096),
    ]  # fmt: skip


def _of_2012(padding: Any, *norm: Layer) -> list[Layer]:
    return [
        *_conv(96, 11, 4, padding), *norm, _pool(), *_conv(256, 5, 1, 2), *norm, _pool(),
        *_conv(384, 3, 1, 1), *_conv(384, 3, 1, 1), *_conv(256, 3, 1, 1), _pool(), *_dense(4096, 4096),
    ]  # fmt: skip


ARCHITECTURES: dict[str, list[Layer]] = {
    'alexnet': _of_2012('SAME_UPPER'),
    'alexnet_bn': _of_2012(0, ('BatchNormalization', 0.001)),
    'alexnet_v2': [
        *_conv(64, 11, 4), _pool(), *_conv(192, 5, 1, 2), _pool(), *_conv(384, 3, 1, 1), *_conv(384, 3, 1, 1),
        *_conv(256, 3, 1, 1), _pool(), *_dense(4096, 4096),
    ],
    'bvlc_alexnet': _caffe(_LRN, _pool()),
    'caffenet': _caffe(_pool(), _LRN),
    'cifarnet': [
        *_conv(64, 5, 1, 2), _pool(kernel=2), ('LRN', 9, 0.001), *_conv(64, 5, 1, 2), ('LRN', 9, 0.001),
        _pool(kernel=2), *_dense(384, 192),
    ],
    'lenet': [*_conv(32, 5, 1, 2), _pool(kernel=2), *_conv(64, 5, 1, 2), _pool(kernel=2), *_dense(1024)],
    'torchvision_alexnet': [
        *_conv(64, 11, 4, 2), _pool(), *_conv(192, 5, 1, 2), _pool(), *_conv(384, 3, 1, 1), *_conv(256, 3, 1, 1),
        *_conv(256, 3, 1, 1), _pool(), ('AveragePool',), *_dense(4096, 4096),
    ],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Style:
    """How an exporter writes a graph; the defaults are those of PyTorch's first one.

    Attributes:
        opset: Version of the operators.
        flatten: 'Flatten', 'Reshape' to constants, to an attribute, or to what a chain of nodes computes.
        dense: 'Gemm', 'GemmT' (with transB), 'MatMul' and Add, or 'Conv' over all positions.
        channels_last: Whether images come as [batch, height, width, channels], and are flattened so.
        dynamic: Whether any number of images may come.
        dropout: Whether dropout is in the graph.
        softmax: Whether it ends with one.
        wrapped: Whether weights come through Identity and Transpose nodes, and are stored in another order.
        bias_nodes: Whether biases of convolutions are added by nodes of their own.
    """

    opset: int = 17
    flatten: str = 'Flatten'
    dense: str = 'GemmT'
    channels_last: bool = False
    dynamic: bool = True
    dropout: bool = False
    softmax: bool = False
    wrapped: bool = False
    bias_nodes: bool = False


TORCHSCRIPT = Style()
DYNAMO = Style(opset=18, flatten='Reshape', dense='Gemm', wrapped=True, dynamic=False)
ZOO = Style(opset=9, flatten='Reshape', dynamic=False, dropout=True, softmax=True)
STYLES = {
    'torchscript': TORCHSCRIPT,
    'dynamo': DYNAMO,
    'zoo': ZOO,
    'zoo, 2017': dataclasses.replace(ZOO, opset=3, flatten='attribute'),
    'computed shapes': Style(flatten='computed', dense='MatMul', dropout=True, bias_nodes=True),
    'channels last': Style(channels_last=True, dense='Gemm', softmax=True),
    'convolutions': Style(dense='Conv', wrapped=True),
}


class Writer:
    """Writes a net as a graph, with random weights of which logits are of the order of 1."""

    def __init__(
        self,
        net: str,
        style: Style,
        image_size: int,
        channels: int = 3,
        depth_multiplier: float = NARROW,
        classes: int = CLASSES,
        average_size: int = 1,
    ):
        self._style, self._random = style, np.random.RandomState(0)
        self._depth_multiplier, self._classes, self._average_size = depth_multiplier, classes, average_size
        self._nodes: list[Any] = []
        self._weights: list[tuple[str, np.ndarray]] = []
        self._data = 'images'
        self._shape: tuple[int, ...] = (channels, image_size, image_size)
        self._is_flat = False
        shape = (image_size, image_size, channels) if style.channels_last else self._shape
        self._inputs = [tensor_value('images', ('batch' if style.dynamic else 1, *shape))]
        if style.channels_last:
            self._add('Transpose', perm=[0, 3, 1, 2])
        for layer in ARCHITECTURES[net]:
            getattr(self, f'_write_{layer[0].lower()}')(*layer[1:])
        if style.dense == 'Conv':
            self._add('Flatten')
        if style.softmax:
            self._add('Softmax', axis=1)

    def model(self) -> Any:
        """Returns the ONNX model."""
        values = [numpy_helper.from_array(value.copy(order='C'), name) for name, value in self._weights]
        of_values = [tensor_value(name, value.shape, value.dtype) for name, value in self._weights]
        inputs = [*self._inputs, *(of_values if self._style.opset < 9 else [])]
        outputs = [tensor_value(self._data, ('batch' if self._style.dynamic else 1, self._classes))]
        stored = values[::-1] if self._style.wrapped else values
        graph = onnx_helper.make_graph(self._nodes, 'net', inputs, outputs, stored)
        version = onnx_helper.make_opsetid('', self._style.opset)
        return onnx_helper.make_model(graph, opset_imports=[version], ir_version=3 if self._style.opset < 9 else 8)

    def _add(self, op: str, *inputs: str, **attributes: Any) -> None:
        output = f'{op}_{len(self._nodes)}'
        outputs = [output, f'{output}_mask'] if op == 'Dropout' and self._style.opset < 10 else [output]
        self._nodes.append(onnx_helper.make_node(op, [self._data, *inputs], outputs, **attributes))
        self._data = output

    def _weight(self, shape: Sequence[int], scale: float, shift: float = 0.0) -> str:
        return self._constant((self._random.randn(*shape) * scale + shift).astype(np.float32))

    def _constant(self, value: np.ndarray, wrap: bool = True) -> str:
        name = f'tensor{len(self._weights) * 7919 % 1009}'
        if wrap and self._style.wrapped:
            axes = list(range(value.ndim))[::-1]
            self._weights.append((f'{name}.stored', value.transpose()))
            self._nodes.append(onnx_helper.make_node('Transpose', [f'{name}.stored'], [f'{name}.turned'], perm=axes))
            self._nodes.append(onnx_helper.make_node('Identity', [f'{name}.turned'], [name]))
        else:
            self._weights.append((name, value))
        return name

    def _write_conv(self, width: int, kernel: int, stride: int, padding: Any, groups: int) -> None:
        filters, channels = round(width * self._depth_multiplier), self._shape[0] // groups
        weight = self._weight((filters, channels, kernel, kernel), np.sqrt(2 / (channels * kernel**2)))
        pads = {'auto_pad': padding} if isinstance(padding, str) else {'pads': [padding] * 4}
        attributes = {'kernel_shape': [kernel] * 2, 'strides': [stride] * 2, 'group': groups, **pads}
        if self._style.bias_nodes:
            self._add('Conv', weight, **attributes)
            self._add('Add', self._weight((1, filters, 1, 1), 0.1))
        else:
            self._add('Conv', weight, self._weight((filters,), 0.1), **attributes)
        self._shape = (filters, *(_positions(side, kernel, stride, padding) for side in self._shape[1:]))

    def _write_relu(self) -> None:
        self._add('Relu', **({'consumed_inputs': [0]} if self._style.opset < 6 else {}))
        if self._is_flat and self._style.dropout:
            is_old = self._style.opset < 7
            self._add('Dropout', **({'is_test': 1} if is_old else {'ratio': 0.5} if self._style.opset < 12 else {}))

    def _write_lrn(self, size: int, alpha: float) -> None:
        self._add('LRN', size=size, alpha=alpha, beta=0.75, bias=1.0)

    def _write_batchnormalization(self, epsilon: float) -> None:
        channels = self._shape[0]
        values = [self._weight((channels,), 0.1, shift) for shift in (1.0, 0.0, 0.5, 2.0)]
        self._add('BatchNormalization', *values, epsilon=epsilon)

    def _write_maxpool(self, kernel: int, stride: int, pads: Sequence[int]) -> None:
        self._add('MaxPool', kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=list(pads))
        self._shape = (self._shape[0], *((side + pads[2] - kernel) // stride + 1 for side in self._shape[1:]))

    def _write_averagepool(self) -> None:
        size = [self._average_size] * 2
        self._add('AveragePool', kernel_shape=size, strides=size)
        self._shape = (self._shape[0], *(side // self._average_size for side in self._shape[1:]))

    def _write_gemm(self, width: int) -> None:
        units, inputs = round(width * self._depth_multiplier) or self._classes, int(np.prod(self._shape))
        scale = np.sqrt(2 / inputs)
        if self._style.dense == 'Conv':
            weight = self._weight((units, *self._shape), scale)
            self._add('Conv', weight, self._weight((units,), 0.1), kernel_shape=list(self._shape[1:]))
            self._shape = (units, 1, 1)
            return
        self._flatten()
        is_turned = self._style.dense == 'GemmT'
        weight = self._weight((units, inputs) if is_turned else (inputs, units), scale)
        bias = self._weight((units,), 0.1)
        if self._style.dense == 'MatMul':
            self._add('MatMul', weight)
            self._add('Add', bias)
        else:
            self._add(
                'Gemm', weight, bias, transB=int(is_turned), **({'broadcast': 1} if self._style.opset < 7 else {})
            )
        self._shape = (units, 1, 1)

    def _flatten(self) -> None:
        if self._is_flat:
            return
        self._is_flat = True
        if self._style.channels_last:
            self._add('Transpose', perm=[0, 2, 3, 1])
        size = int(np.prod(self._shape))
        if self._style.flatten == 'Flatten':
            self._add('Flatten', axis=1)
        elif self._style.flatten == 'attribute':
            self._add('Reshape', shape=[1, size])
        elif self._style.flatten == 'Reshape':
            self._add('Reshape', self._node('Constant', value=numpy_helper.from_array(np.array([1, size]))))
        else:
            first, axis, rest = (self._constant(np.array(value), wrap=False) for value in (0, [0], [-1]))
            batch = self._node('Gather', self._node('Shape', self._data), first, axis=0)
            self._add('Reshape', self._node('Concat', self._node('Unsqueeze', batch, axis), rest, axis=0))

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node that the images do not pass through."""
        output = f'{op}_{len(self._nodes)}'
        self._nodes.append(onnx_helper.make_node(op, inputs, [output], **attributes))
        return output


def tensor_value(name: str, shape: Sequence[int | str], dtype: Any = np.float32) -> Any:
    return onnx_helper.make_tensor_value_info(name, onnx_helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))


def _positions(side: int, kernel: int, stride: int, padding: Any) -> int:
    return -(-side // stride) if isinstance(padding, str) else (side + 2 * padding - kernel) // stride + 1


def write(path: Path, net: str, style: Style = TORCHSCRIPT, image_size: int | None = None, **options: Any) -> Path:
    """Writes a graph; returns its file."""
    onnx.save(Writer(net, style, image_size or nets_factory.get_net(net).image_size, **options).model(), path)
    return path


def run_graph(path: Path, images: np.ndarray) -> np.ndarray:
    """Returns the outputs of onnxruntime for images [batch, height, width, channels]."""
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (value,) = session.get_inputs()
    if value.shape[1] == images.shape[-1]:
        images = images.transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {value.name: image[np.newaxis]})[0] for image in images])
