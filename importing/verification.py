"""Compares the logits of the original graph with those of the net filled from it."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from engine.classifiers.interface import softmax
from engine.classifiers.model_spec import ModelSpec
from importing.layers import Pairs
from importing.onnx_file import OnnxFile
from importing.onnx_graph import NCHW, Graph
from support import optional_packages
from support.errors import InputError, first_line

_IMAGES, _SQUARES = 4, 5  # images of each kind; squares along a side
_TOLERANCE = 1e-4  # relative to the largest logit
_OLDEST = 7  # oldest operator set that onnxruntime supports
# Attributes of old operators that are now fixed or an input.
_RETIRED = {
    'BatchNormalization': ('is_test', 'spatial', 'consumed_inputs'),
    'Dropout': ('is_test', 'consumed_inputs'),
    'Gemm': ('broadcast',),
    'Add': ('broadcast', 'axis', 'consumed_inputs'),
    'Relu': ('consumed_inputs',),
}


@np.errstate(invalid='ignore')  # values that are not finite are refused below
def compare_logits(file: OnnxFile, graph: Graph, pairs: Pairs, model: keras.Model, spec: ModelSpec) -> str:
    """Runs a graph and a net on the same images; returns a line with the difference of their logits.

    The graph is run up to its logits, because a softmax after them would hide differences.

    Args:
        file: The graph's file; it is modified.
        graph: The content read from the file.
        pairs: Layers of the graph and of the net.
        model: The net, with the weights of the graph.
        spec: Description of the net's images.

    Raises:
        InputError: The logits differ, or the graph cannot be run; the message names the first difference.
    """
    images = _make_images(spec)
    expected, results = _run_graph(file, graph, images, graph.logits, graph.result)
    expected, results = expected.reshape(len(images), -1), results.reshape(len(images), -1)
    found = np.concatenate([model(part, training=False) for part in np.split(images, 2)]).reshape(len(images), -1)
    start, end = f'--source={file.path}: the', 'give the --model_name of a net that computes this; nothing was written'
    if found.shape != expected.shape:
        sizes = f'graph gives {expected.shape[1]} results and {spec.model_name} {found.shape[1]} logits'
        raise InputError(f'{start} {sizes}; {end}')
    for kind in (slice(_IMAGES, None), slice(_IMAGES)):  # the figures of the last kind are printed
        largest, difference = np.abs(expected[kind]).max(), np.abs(found[kind] - expected[kind]).max()
        if not difference <= _TOLERANCE * largest:
            where = _first_difference(file, graph, pairs, model, images[kind])
            raise InputError(
                f'{start} logits of {spec.model_name} with its weights differ by {difference:.3g} from those of the '
                f'graph, whose largest is {largest:.3g}: {where}; {end}'
            )
    likely = np.log(softmax(expected)) if graph.softmax == 'LogSoftmax' else softmax(expected)
    if graph.softmax and not np.abs(likely - results).max() <= _TOLERANCE:
        raise InputError(f'{start} {graph.softmax} after the logits is not over the classes; {end}')
    return (
        f'compared {expected[kind].size} logits of {_IMAGES} images with onnxruntime: largest difference '
        f'{difference:.3g}, largest logit {largest:.3g}'
    )


def _first_difference(file: OnnxFile, graph: Graph, pairs: Pairs, model: keras.Model, images: np.ndarray) -> str:
    """Describes the first layer with weights whose input differs between graph and net."""
    behind_others = [(source, layer) for source, layer in pairs if source.data != file.input_name]
    taken = _run_graph(file, graph, images, *(source.data for source, _ in behind_others))
    layers = [model.get_layer(layer.name) for _, layer in behind_others]
    ours = keras.Model(model.inputs, [layer.input for layer in layers])([images], training=False)
    before = pairs[0][1].name
    for (source, layer), here, there in zip(behind_others, taken, ours, strict=True):
        # Sorted, as one may be flat and the other not.
        values, expected = (np.sort(np.ravel(each)) for each in (here, there))
        tolerance = _TOLERANCE * np.abs(expected).max()
        if values.shape != expected.shape or not np.abs(values - expected).max() <= tolerance:
            where = f'what {source.name} takes is not what {layer.name} takes, which comes behind {before}'
            return f'{where}; strides, padding, pooling, normalization or activations differ there'
        before = layer.name
    return f'what comes behind {before} differs'


def _make_images(spec: ModelSpec) -> np.ndarray:
    """Returns random pixels, then random squares, as input of the net: float32 [images, height, width, channels].

    In noise all places look alike to a convolution, so noise alone would hide a ReLU before a pooling.
    """
    preprocessing = spec.make_preprocessing()
    size, channels = spec.image_size, preprocessing.source_channels
    random, highest = np.random.RandomState(0), preprocessing.host_range
    pixels = random.uniform(0, highest, (_IMAGES, size, size, channels))
    squares = random.uniform(0, highest, (_IMAGES, _SQUARES, _SQUARES, channels)).repeat(-(-size // _SQUARES), 1)
    squares = squares.repeat(-(-size // _SQUARES), 2)[:, :size, :size]
    return np.asarray(preprocessing.device_eval(np.concatenate([pixels, squares]).astype(np.float32)))


def _run_graph(file: OnnxFile, graph: Graph, images: np.ndarray, *names: str) -> list[np.ndarray]:
    """Returns values of the graph, float32 [images, ...]."""
    onnxruntime = optional_packages.load('onnxruntime', 'comparing with an ONNX file')
    if graph.layout == NCHW:
        images = images.transpose(0, 3, 1, 2)
    batch = file.input_shape[0] or 1
    try:
        session = _open_session(onnxruntime, file, names)
        batches = [np.repeat(image[np.newaxis], batch, axis=0) for image in images]
        runs = [[value[0] for value in session.run(names, {file.input_name: images})] for images in batches]
    except Exception as error:  # onnxruntime's exceptions have no common class
        raise InputError(f'--source={file.path}: onnxruntime cannot run it: {first_line(error)}') from error
    return [np.stack(values) for values in zip(*runs, strict=True)]


def _open_session(onnxruntime: Any, file: OnnxFile, names: Sequence[str]) -> Any:
    onnx = optional_packages.load('onnx', 'reading ONNX files')
    _modernise(onnx, file.model)
    del file.model.graph.output[:]
    for name in dict.fromkeys(names):
        file.model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # no warnings about graphs that it can run
    return onnxruntime.InferenceSession(file.model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def _modernise(onnx: Any, model: Any) -> None:
    """Updates operators from before 2018, as in the oldest files of the model zoo."""
    versions = [opset for opset in model.opset_import if opset.domain in ('', 'ai.onnx') and opset.version < _OLDEST]
    if not versions:
        return
    for node in model.graph.node:
        kept = [attribute for attribute in node.attribute if attribute.name not in _RETIRED.get(node.op_type, ())]
        if node.op_type == 'Reshape' and len(node.input) == 1:
            shape = onnx.numpy_helper.from_array(np.asarray(kept.pop().ints), f'{node.output[0]}_shape')
            model.graph.initializer.append(shape)
            node.input.append(shape.name)
        del node.attribute[:]
        node.attribute.extend(kept)
    for opset in versions:
        opset.version = _OLDEST
