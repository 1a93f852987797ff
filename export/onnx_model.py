"""A net as an ONNX model with metadata.

model = make_model(source)
save(model, source, '/tmp/net.onnx')
"""

import json
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper

from configs.export import DEFAULT_OPSET
from engine.checkpoints import METADATA
from engine.classifiers.description import CHECKSUM
from engine.classifiers.interface import Interface
from engine.classifiers.onnx_content import BYTES, CONTENT, checksums
from export.onnx_graph import Graph
from export.onnx_layers import write_layers
from export.source import Source
from preprocessing import batches
from preprocessing.base import Normalization
from support.errors import InputError

INPUT = 'images'
_PRODUCER = 'tf-slim-image-classification'
_MOST_BYTES = 2**31 - 2**20  # a protocol buffer file is limited to 2 GiB
_PREPROCESSING = 'preprocessing'
_PIXEL_AXES = (1, 2, 3)
_AXES_AS_INPUT = 18  # the first opset in which ReduceMean takes axes as an input


def make_model(source: Source) -> onnx.ModelProto:
    """Returns the ONNX model of a net, in float16 if requested, otherwise float32.

    Returns:
        From `images`, float32 of `--batch_size` or any batch, to `logits` or `probabilities`, float32 [batch, classes].

    Raises:
        InputError: ONNX export does not support a layer, or the net is too large.
    """
    dtype = np.dtype(np.float16 if source.options.quantize == 'float16' else np.float32)
    _check_size(source, dtype)
    interface, net = source.interface, source.model
    graph = Graph(net.name, INPUT, source.options.opset or DEFAULT_OPSET)
    _write_images(graph, interface, source.preprocessing.normalization, net.input_shape[1:])
    graph.cast(dtype, f'Cast_to_{dtype}')
    write_layers(graph, net)
    graph.cast(np.float32, 'Cast_to_float32')
    if interface.output == 'probabilities':
        if interface.temperature != 1:
            graph.add('Div', 'Calibrated', graph.constant('temperature', np.array(interface.temperature)))
        graph.add('Softmax', 'Predictions', axis=1)
    graph.finish(interface.output)
    return _close(source, graph)


def _check_size(source: Source, dtype: np.dtype) -> None:
    size = source.model.count_params() * dtype.itemsize
    if size > _MOST_BYTES:
        raise InputError(
            f'--format=onnx: an ONNX file holds less than 2 GiB, but the weights are {size / 2**30:.1f} GiB; '
            '--format=saved_model has no such limit'
        )


def _close(source: Source, graph: Graph) -> onnx.ModelProto:
    """Returns the model of a graph, with the shapes of all values."""
    # Shapes are inferred without the weights, which would be copied three times.
    weights = [value for value in graph.constants.values() if value.data_type != TensorProto.INT64]
    batch = source.options.batch_size or 'batch'
    images = (batch, *source.interface.input_shape(source.preprocessing))
    opset = helper.make_opsetid('', graph.opset)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            source.spec.model_name,
            [
                helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, images),
                *(helper.make_tensor_value_info(value.name, value.data_type, value.dims) for value in weights),
            ],
            [helper.make_tensor_value_info(graph.value, TensorProto.FLOAT, (batch, source.spec.num_classes))],
            [value for value in graph.constants.values() if value.data_type == TensorProto.INT64],
        ),
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),  # lowest version, so that old programs can read it
    )
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    del model.graph.input[1:]
    model.graph.initializer.extend(weights)
    return model


def _write_images(graph: Graph, interface: Interface, normalization: Normalization, shape: tuple[int, ...]) -> None:
    """Adds nodes from the file's images to the net's input of `shape` [height, width, channels]."""
    if interface.layout == 'NHWC':
        graph.add('Transpose', f'{_PREPROCESSING}/Transpose', perm=(0, 3, 1, 2))
    # Channels are not reversed in the graph; the first kernel and these constants are.
    graph.is_reversed = interface.channel_order != normalization.channel_order
    if not interface.include_preprocessing:
        return
    if normalization.to_grayscale:
        weights = batches.to_grayscale(np.eye(3, dtype=np.float32)).numpy()[:, 0]
        _scale(graph, 'Mul', 'luma_weights', weights[::-1] if interface.channel_order == 'BGR' else weights)
        graph.add('ReduceSum', f'{_PREPROCESSING}/luma', graph.constant(f'{_PREPROCESSING}/luma/axes', np.array([1])))
    step = -1 if graph.is_reversed else 1
    if any(normalization.mean):
        _scale(graph, 'Sub', 'mean', np.asarray(normalization.mean)[::step])
    if set(normalization.std) != {1.0}:
        _scale(graph, 'Div', 'std', np.asarray(normalization.std)[::step])
    if normalization.per_image:
        _standardise(graph, int(np.prod(shape)))


def _scale(graph: Graph, operator: str, what: str, values: np.ndarray) -> None:
    """Adds an operator with one constant per channel."""
    constant = graph.constant(f'{_PREPROCESSING}/{what}', values.reshape(1, -1, 1, 1))
    graph.add(operator, f'{_PREPROCESSING}/{operator}_{what}', constant)


def _standardise(graph: Graph, size: int) -> None:
    """Adds `tf.image.per_image_standardization`: (x - mean) / max(deviation, 1 / sqrt(size))."""
    name = f'{_PREPROCESSING}/standardise'
    images = graph.value
    mean = _average(graph, f'{name}/mean')
    centred = graph.combine('Sub', f'{name}/centred', images, mean)
    graph.combine('Mul', f'{name}/squares', centred, centred)
    _average(graph, f'{name}/variance')
    graph.add('Sqrt', f'{name}/deviation')
    least = graph.constant(f'{name}/least_deviation', np.array(size**-0.5))
    deviation = graph.add('Max', f'{name}/Max', least)
    graph.combine('Div', name, centred, deviation)


def _average(graph: Graph, name: str) -> str:
    """Adds the mean over all values of an image."""
    if graph.opset < _AXES_AS_INPUT:
        return graph.add('ReduceMean', name, axes=_PIXEL_AXES)
    return graph.add('ReduceMean', name, graph.constant(f'{name}/axes', np.array(_PIXEL_AXES)))


def save(model: onnx.ModelProto, source: Source, path: str) -> None:
    """Writes a model with its description as `slim.json` and readable metadata.

    The description and a checksum are appended: a protocol buffer file may be a concatenation of parts.
    """
    _describe(model, source)
    body = model.SerializeToString()
    onnx.checker.check_model(body)
    content = checksums(model)
    description = {**source.description(), CONTENT: content, BYTES: len(body), CHECKSUM: zlib.crc32(body)}
    part = onnx.ModelProto()
    helper.set_model_props(part, {METADATA: json.dumps(description)})
    with open(path, 'wb') as file:
        file.write(body)
        file.write(part.SerializeToString())


def _describe(model: onnx.ModelProto, source: Source) -> None:
    spec, interface, normalization = source.spec, source.interface, source.preprocessing.normalization
    facts = {
        'model_name': spec.model_name,
        'labels': '\n'.join(spec.label_names),
        'image_size': str(spec.image_size),
        'layout': interface.layout,
        'channel_order': interface.channel_order,
        'temperature': f'{interface.temperature:.8g}' if interface.temperature != 1 else '',
    }
    if not interface.include_preprocessing:  # otherwise readers would scale twice
        step = -1 if interface.reverses_channels(source.preprocessing) else 1
        facts |= {
            'mean': ','.join(f'{value:g}' for value in normalization.mean[::step]),
            'std': ','.join(f'{value:g}' for value in normalization.std[::step]),
            'per_image_standardization': 'yes' if normalization.per_image else '',
        }
    helper.set_model_props(model, {name: value for name, value in facts.items() if value})
    model.producer_name, model.producer_version = _PRODUCER, ''
    model.model_version = source.step
    model.graph.name = spec.model_name
