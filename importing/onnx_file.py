"""ONNX files: the graph, its images, and its constants; damaged or empty files are refused.

file = load('bvlcalexnet-12.onnx')
file.model.graph.node, file.input_name, file.input_shape          # (1, 3, 224, 224); None is any size
"""

import dataclasses
import json
import os
from typing import Any

import numpy as np

from engine import checkpoints
from engine.classifiers import onnx_content
from support import optional_packages
from support.errors import InputError, first_line

# Prefixes of the operators that compute with integers.
_QUANTISED = ('QLinear', 'QGemm', 'Quantize', 'Dequantize', 'DynamicQuantize', 'ConvInteger', 'MatMulInteger')
_FLOAT = 1  # onnx.TensorProto.FLOAT
_OTHER_FORMATS = {b'PK\x03\x04': 'a zip archive', b'\x80': 'a pickle', b'\x89HDF': 'an HDF5 file'}


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """A graph with its weights.

    Attributes:
        path: The file.
        model: The `onnx.ModelProto`, with external data included and 16-bit numbers widened to float32.
        input_name: Name of its images.
        input_shape: Shape of the images, four sizes; None is any size.
        description: This project's description of an export; empty in foreign files.
    """

    path: str
    model: Any
    input_name: str
    input_shape: tuple[int | None, ...]
    description: dict[str, Any]


def load(path: str) -> OnnxFile:
    """Reads an ONNX file, with its external weights.

    Raises:
        InputError: It is not an ONNX file, damaged, quantised, or does not take images.
    """
    onnx = optional_packages.load('onnx', 'reading ONNX files')
    model = _read(onnx, path)
    described = _read_description(path, model)
    if model.functions:
        model = optional_packages.load('onnx.inliner', 'reading ONNX files').inline_local_functions(model)
    _refuse_quantised(path, model.graph)
    try:
        _widen(model)
    except ValueError as error:
        raise InputError(f'--source={path}: damaged: {first_line(error)}') from error
    name, shape = _find_images(path, model.graph)
    return OnnxFile(path, model, name, shape, described)


def _read(onnx: Any, path: str) -> Any:
    protobuf_error = optional_packages.load('google.protobuf.message', 'reading ONNX files').DecodeError
    advice = 'copy or download it again'
    try:
        with open(path, 'rb') as file:
            start = file.read(4)
        found = next((what for magic, what in _OTHER_FORMATS.items() if start.startswith(magic)), None)
        if found:
            raise InputError(f'--source={path}: {found}, not an ONNX file')
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise InputError(f'--source={path}: {error.strerror or first_line(error)}') from error
    except protobuf_error as error:
        raise InputError(f'--source={path}: not an ONNX file, or damaged; {advice}') from error
    if not model.graph.node:
        raise InputError(f'--source={path}: no graph in it, so not an ONNX file, or damaged; {advice}')
    if not _is_whole(model.graph):
        raise InputError(f'--source={path}: damaged: nodes without results, or names that are no text; {advice}')
    try:
        onnx.load_external_data_for_model(model, os.path.dirname(os.path.abspath(path)))
    except (onnx.checker.ValidationError, OSError, ValueError, RuntimeError) as error:
        raise InputError(f'--source={path}: the file with its weights cannot be read: {first_line(error)}') from error
    return model


def _is_whole(graph: Any) -> bool:
    """Returns whether all nodes are complete; protobuf returns bytes for text that is not UTF-8."""
    names = [value.name for value in graph.input]
    names += [name for node in graph.node for name in (node.op_type, node.domain, node.name, *node.input, *node.output)]
    return all(isinstance(name, str) for name in names) and all(node.output for node in graph.node)


def _refuse_quantised(path: str, graph: Any) -> None:
    for node in graph.node:
        if node.op_type.startswith(_QUANTISED):
            raise InputError(
                f'--source={path}: quantised ({node.op_type} {node.name or node.output[0]!r}); use the float32 '
                'file that it was quantised from'
            )


def _widen(model: Any) -> None:
    """Converts a graph from 16-bit numbers to float32, without loss.

    Raises:
        ValueError: A tensor is damaged; with its name.
    """
    proto = optional_packages.load('onnx', 'reading ONNX files').TensorProto
    short = (proto.FLOAT16, proto.BFLOAT16)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type in short:
            _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField('t') and attribute.t.data_type in short:
                _widen_tensor(attribute.t)
            elif node.op_type == 'Cast' and attribute.name == 'to' and attribute.i in short:
                attribute.i = proto.FLOAT
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in short:
            value.type.tensor_type.elem_type = proto.FLOAT


def _widen_tensor(tensor: Any) -> None:
    helper = optional_packages.load('onnx.numpy_helper', 'reading ONNX files')
    name = tensor.name
    try:
        values = np.asarray(helper.to_array(tensor), np.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{name!r}: {error}') from error
    tensor.CopyFrom(helper.from_array(values, name))


def _find_images(path: str, graph: Any) -> tuple[str, tuple[int | None, ...]]:
    """Returns name and shape of the only input that is a node's first; weights may be inputs too, but not first."""
    values = {tensor.name for tensor in graph.initializer}
    first = {node.input[0] for node in graph.node if node.input}
    inputs = [value for value in graph.input if value.name in first - values]
    if len(inputs) != 1 or len(inputs[0].type.tensor_type.shape.dim) != 4:
        names = ', '.join(repr(value.name) for value in inputs) or 'nothing'
        raise InputError(
            f'--source={path}: must take one batch of images, [batch, channels, height, width] or [batch, height, '
            f'width, channels]; its inputs: {names}'
        )
    (images,) = inputs
    tensor = images.type.tensor_type
    if tensor.elem_type != _FLOAT:
        raise InputError(f'--source={path}: its images {images.name!r} are not floats; use the float32 file')
    return images.name, tuple(_size(size) for size in tensor.shape.dim)


def _read_description(path: str, model: Any) -> dict[str, Any]:
    texts = [entry.value for entry in model.metadata_props if entry.key == checkpoints.METADATA]
    try:
        found = dict(json.loads(texts[0])) if texts else {}
    except (ValueError, TypeError, RecursionError) as error:
        problem = f'what it says of its net ({checkpoints.METADATA}) is damaged'
        raise InputError(f'--source={path}: {problem}: {first_line(error)}') from error
    if found:
        try:
            onnx_content.check(path, found, model)
        except InputError as error:
            raise InputError(f'--source={error}') from error
    return found


def _size(size: Any) -> int | None:
    return size.dim_value if size.HasField('dim_value') and size.dim_value > 0 else None
