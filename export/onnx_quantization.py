"""ONNX models in 8 bits, by onnxruntime's quantiser, with the ranges that values have on images.

model = quantize(model, images, 'int8')
"""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
from onnxruntime import quantization

# --quantize -> how the file says it: operators of integers, or those of floats between pairs that round.
FORMATS = {'int8': quantization.QuantFormat.QOperator, 'qdq': quantization.QuantFormat.QDQ}

# What is computed in integers. Normalization, averages and softmax are not: they lose more than they save.
_OPERATORS = ['Conv', 'Flatten', 'Gemm', 'MaxPool', 'Relu']
_BATCH = 10


class _Images(quantization.CalibrationDataReader):
    """What the quantiser runs the model on."""

    def __init__(self, name: str, images: np.ndarray):
        self._batches = iter([{name: images[first : first + _BATCH]} for first in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def quantize(model: onnx.ModelProto, images: np.ndarray, quantize: str) -> onnx.ModelProto:
    """Quantises a model: values have 8 bits and no sign, weights 8 bits and a scale for each filter.

    Processors without VNNI add two such products in 16 bits, which cuts off what is larger. Pixels are large where
    images are bright: the first kernel has 7 bits. In all layers these would double the error.

    Args:
        model: Of float32; it is used up.
        images: To measure ranges on, as the model takes them.
        quantize: Key of `FORMATS`.
    """
    first_kernel = next(node.input[1] for node in model.graph.node if node.op_type == 'Conv')
    of_first_kernel = {'quant_type': quantization.QuantType.QInt8, 'axis': 0, 'reduce_range': True}
    with tempfile.TemporaryDirectory(prefix='onnx-') as folder, _quiet():
        path = os.path.join(folder, 'quantised.onnx')
        quantization.quantize_static(
            model,
            path,
            _Images(model.graph.input[0].name, images),
            quant_format=FORMATS[quantize],
            op_types_to_quantize=_OPERATORS,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={'TensorQuantOverrides': {first_kernel: [of_first_kernel]}},
        )
        quantised = onnx.load(path)
    _keep_logits(quantised.graph)
    return quantised


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the quantiser prints from the user: advice for whoever writes such a program."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(disabled)


def _keep_logits(graph: onnx.GraphProto) -> None:
    """Lets the last layer give floats: in 8 bits, logits that are larger than those measured would be cut off."""
    last = [node for node in graph.node if node.op_type in ('Gemm', 'QGemm')][-1]
    rounding, value = [], last.output[0]
    for node in graph.node:
        if node.input[0] == value and node.op_type in ('QuantizeLinear', 'DequantizeLinear'):
            rounding.append(node)
            value = node.output[0]
    last.output[0] = value
    if last.op_type == 'QGemm':
        del last.input[7:]  # scale and zero point of the integers that it gave
    unused = {name for node in rounding for name in node.input}
    for node in rounding:
        graph.node.remove(node)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in unused:
            del graph.initializer[index]
