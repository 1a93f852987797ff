"""Running a graph as it came, to compare its logits with those of the net that was filled from it."""

from typing import Any

import keras
import numpy as np

from configs.errors import InputError, first_line
from engine import extras
from engine.model_spec import ModelSpec
from importing.onnx_file import OnnxFile
from importing.onnx_walk import Walked

_IMAGES = 4
_TOLERANCE = 1e-4  # of the largest logit
_OLDEST = 7  # version of the operators that onnxruntime still has
# What operators had before, and is now either how they always are or an input.
_RETIRED = {
    'BatchNormalization': ('is_test', 'spatial', 'consumed_inputs'),
    'Dropout': ('is_test', 'consumed_inputs'),
    'Gemm': ('broadcast',),
    'Add': ('broadcast', 'axis', 'consumed_inputs'),
    'Relu': ('consumed_inputs',),
}


def compare_logits(file: OnnxFile, walked: Walked, model: keras.Model, spec: ModelSpec) -> str:
    """Runs a graph and a net on the same images; returns a line that says how their logits compare.

    The graph is run up to its logits: a softmax behind them would hide what differs.

    Args:
        file: The graph; it is changed for this.
        walked: What was found in it.
        model: The net.
        spec: How its images are prepared.

    Raises:
        InputError: they differ, or the graph cannot be run.
    """
    images = _make_images(spec)
    expected = _run_graph(file, walked, images)
    found = np.asarray(model(images, training=False)).reshape(expected.shape)
    largest, difference = float(np.abs(expected).max()), float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE * largest:
        raise InputError(
            f'--source={file.path}: the logits of {spec.model_name} with its weights differ by {difference:.3g} from '
            f'those of the graph, whose largest is {largest:.3g}; nothing was written'
        )
    return (
        f'compared {expected.size} logits of {_IMAGES} images with onnxruntime: largest difference {difference:.3g}, '
        f'largest logit {largest:.3g}'
    )


def _make_images(spec: ModelSpec) -> np.ndarray:
    """Returns random pixels as the net takes them, float32 [images, height, width, channels]."""
    preprocessing = spec.make_preprocessing()
    shape = (_IMAGES, spec.image_size, spec.image_size, preprocessing.source_channels)
    pixels = np.random.RandomState(0).uniform(0, preprocessing.host_range, shape).astype(np.float32)
    return np.asarray(preprocessing.device_eval(pixels))


def _run_graph(file: OnnxFile, walked: Walked, images: np.ndarray) -> np.ndarray:
    """Returns the logits of the graph, float32 [images, classes]."""
    onnxruntime = extras.load('onnxruntime', 'comparing with an ONNX file')
    if walked.layout == 'NCHW':
        images = images.transpose(0, 3, 1, 2)
    batch = file.input_shape[0] or 1
    try:
        session = _open_session(onnxruntime, file, walked.logits_name)
        results = [
            session.run(None, {file.input_name: np.repeat(image[np.newaxis], batch, axis=0)})[0][0] for image in images
        ]
    except Exception as error:  # onnxruntime's have no class of their own in common
        raise InputError(f'--source={file.path}: onnxruntime cannot run it: {first_line(error)}') from error
    return np.stack(results).reshape(len(images), -1)


def _open_session(onnxruntime: Any, file: OnnxFile, output: str) -> Any:
    onnx = extras.load('onnx', 'reading ONNX files')
    _modernise(onnx, file.model)
    del file.model.graph.output[:]
    file.model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns of graphs that it then runs
    return onnxruntime.InferenceSession(file.model.SerializeToString(), options, providers=['CPUExecutionProvider'])


def _modernise(onnx: Any, model: Any) -> None:
    """Rewrites operators of before 2018, as they are in the first files of the model zoo."""
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
