"""Graphs in float16 or bfloat16 as graphs in float32: every number of theirs is one of float32's too.

widen(model)         # weights, constants, casts and the types of values
"""

from typing import Any

import numpy as np

from engine import extras

_PURPOSE = 'reading ONNX files'


def widen(model: Any) -> None:
    """Makes a graph compute in float32 what it computed in 16 bits; one in float32 stays as it is.

    Raises:
        ValueError: a tensor is damaged; its name.
    """
    proto = extras.load('onnx', _PURPOSE).TensorProto
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
    helper = extras.load('onnx.numpy_helper', _PURPOSE)
    name = tensor.name
    try:
        values = np.asarray(helper.to_array(tensor), np.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{name!r}: {error}') from error
    tensor.CopyFrom(helper.from_array(values, name))
