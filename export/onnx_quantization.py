"""8-bit ONNX models by onnxruntime's quantiser, calibrated on images.

model = quantize(model, images, 'int8', batch_size=None, folder='/tmp')
"""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization

from export.images import batches_of

# --quantize -> format in the file: integer operators, or float operators between Quantize and Dequantize pairs.
FORMATS = {'int8': quantization.QuantFormat.QOperator, 'qdq': quantization.QuantFormat.QDQ}

# Operators in integers. Normalization, averages and softmax stay in float: integers lose more there than they save.
_OPERATORS = ['Conv', 'Flatten', 'Gemm', 'MaxPool', 'Relu']
_BATCH = 10
_LARGEST = 127  # of a weight, and of the sum of two before rounding


class _Images(quantization.CalibrationDataReader):
    """Feeds the calibration images to the quantiser."""

    def __init__(self, name: str, images: np.ndarray, batch_size: int | None):
        if batch_size is None:
            parts = [images[first : first + _BATCH] for first in range(0, len(images), _BATCH)]
        else:
            parts = batches_of(images, batch_size)
        self._batches = iter([{name: part} for part in parts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(
    model: onnx.ModelProto, images: np.ndarray, quantize: str, batch_size: int | None, folder: str
) -> onnx.ModelProto:
    """Quantises a model: unsigned 8-bit values, 8-bit weights with a scale per filter.

    Args:
        model: A float32 model; it is modified.
        images: Calibration images in the model's input format.
        quantize: Key of `FORMATS`.
        batch_size: The model's batch size; None is any.
        folder: Folder for temporary files, as large as the net.
    """
    with tempfile.TemporaryDirectory(prefix='onnx-', dir=folder) as temporary, _quiet():
        path = os.path.join(temporary, 'quantised.onnx')
        quantization.quantize_static(
            model,
            path,
            _Images(model.graph.input[0].name, images, batch_size),
            quant_format=FORMATS[quantize],
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={'TensorQuantOverrides': _scales(model.graph)},
        )
        quantised = onnx.load(path)
    _keep_logits(quantised.graph)
    return quantised


def _scales(graph: onnx.GraphProto) -> dict[str, list[dict[str, Any]]]:
    """Returns the scales per filter in the quantiser's format, by the name of the weights.

    Processors without VNNI add two neighbouring products, each of a value up to 255 and a weight, in 16 bits, and
    saturate. So the weights of a pair add up to at most 128. That costs a filter less than one bit of precision, where
    7-bit weights would cost all of them a whole bit.
    """
    weights = {initializer.name: initializer for initializer in graph.initializer}
    scales = {}
    for node in graph.node:
        if node.op_type not in ('Conv', 'Gemm'):
            continue
        transposed = any(attribute.name == 'transB' and attribute.i for attribute in node.attribute)
        axis = 0 if node.op_type == 'Conv' or transposed else 1
        filters = np.moveaxis(onnx.numpy_helper.to_array(weights[node.input[1]]), axis, 0)
        pairs = neighbours(filters)
        largest = np.maximum(np.abs(pairs.sum(axis=-1)), np.abs(pairs).max(axis=-1)).max(axis=-1)
        scales[node.input[1]] = [
            {
                'quant_type': quantization.QuantType.QInt8,
                'axis': axis,
                'scale': np.float32(value / _LARGEST or 1),
                'zero_point': np.int8(0),
            }
            for value in largest
        ]
    return scales


def neighbours(filters: np.ndarray) -> np.ndarray:
    """Returns the pairs of weights whose products onnxruntime adds.

    Args:
        filters: [filters, channels, height, width], paired along channels, or [filters, inputs].

    Returns:
        [filters, pairs, 2]; an odd one is paired with 0.
    """
    rows = np.moveaxis(filters, 1, -1).reshape(len(filters), -1)
    return np.pad(rows, [(0, 0), (0, rows.shape[1] % 2)]).reshape(len(filters), -1, 2)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the quantiser's output, which addresses developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(disabled)


def _keep_logits(graph: onnx.GraphProto) -> None:
    """Makes the last layer return floats: 8 bits would saturate logits larger than those calibrated."""
    last = [node for node in graph.node if node.op_type in ('Gemm', 'QGemm')][-1]
    rounding, value = [], last.output[0]
    for node in graph.node:
        if node.input[0] == value and node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            rounding.append(node)
            value = node.output[0]
    last.output[0] = value
    if last.op_type == 'QGemm':
        del last.input[7:]  # scale and zero point of its integer output
    unused = {name for node in rounding for name in node.input}
    for node in rounding:
        graph.node.remove(node)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in unused:
            del graph.initializer[index]
