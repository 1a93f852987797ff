"""Runs ONNX files in onnxruntime: this project's exports and foreign files.

runtime = open_onnx('/tmp/net.onnx')
runtime.run(images)                 # float32 [batch, classes]
"""

import contextlib
import io
import re
from typing import Any

import numpy as np

from configs.foreign import ForeignOptions
from engine.checkpoints import METADATA
from engine.classifiers import description, onnx_content
from engine.classifiers.classifier import Batches, Runtime
from support import optional_packages
from support.errors import InputError, first_line

_SILENT = 4  # onnxruntime also warns about graphs that it can run
_PROVIDERS = ('CUDAExecutionProvider', 'CPUExecutionProvider')
_DTYPES = {
    'tensor(float)': np.float32,
    'tensor(float16)': np.float16,
    'tensor(double)': np.float64,
    'tensor(uint8)': np.uint8,
}
# Patterns in onnxruntime's errors -> their meaning.
_REASONS = {
    r'Protobuf parsing failed|No graph was found': 'it is no ONNX file, or damaged; copy or download it again',
    r'External|[Ee]xternal data': 'the file with its weights, which belongs beside it, is missing or cut short: {}',
    r'(?:No Op registered for|find an implementation for) (\w+)': 'its operator {} is not in this onnxruntime',
    r'([\w.]+:\w+)\S* is not a registered function/op': 'its operator {} is not in this onnxruntime',
    r'(Opset \d+) is under development': 'it is of {}, newer than this onnxruntime: pip install -U onnxruntime',
    r'Unsupported model (IR version: \d+)': 'it is of {}, newer than this onnxruntime: pip install -U onnxruntime',
}


def open_onnx(path: str, foreign: ForeignOptions = ForeignOptions()) -> Runtime:
    """Opens an ONNX file.

    Args:
        path: The file.
        foreign: Its `output_name` selects the scores among several outputs.

    Raises:
        InputError: the file is damaged, does not map images to one value per class, or has an operator that onnxruntime
            lacks.
    """
    model = _Model(path, foreign.output_name)
    metadata = _read_metadata(path, model.session)
    quantize = metadata.get('quantize', 'none')
    return Runtime(
        'ONNX' if quantize == 'none' else f'ONNX {quantize}', model.input_shape, model.num_classes, metadata, model.run
    )


class _Model:
    """A file open in onnxruntime, on a GPU if onnxruntime supports it."""

    def __init__(self, path: str, output_name: str | None = None) -> None:
        self._path = path
        self.session = _open_session(path)
        try:
            self._input, self._output = self._only_input(), self._find_output(output_name)
            self.input_shape = tuple(size if isinstance(size, int) and size > 0 else None for size in self._input.shape)
            self._batch = self.input_shape[0] if self.input_shape else None
            self.run = Batches(self._run, self._batch)
            self.num_classes = self._count_classes()
        except UnicodeDecodeError as error:
            raise InputError(f'{path}: a name in it is not UTF-8: damaged, or not valid ONNX') from error

    def _run(self, images: np.ndarray) -> np.ndarray:
        values = self._call(images)
        if values.size != len(images) * self.num_classes:
            raise InputError(
                f'{self._path} gives {list(values.shape)} for {len(images)} images; it said {self.num_classes} '
                'values for each'
            )
        return values.reshape(len(images), self.num_classes).astype(np.float32)

    def _call(self, images: np.ndarray) -> np.ndarray:
        dtype = _DTYPES[self._input.type]
        if dtype is np.uint8:
            images = np.clip(np.rint(images), 0, 255)
        try:
            return np.asarray(self.session.run([self._output.name], {self._input.name: images.astype(dtype)})[0])
        except Exception as error:  # as in _open_session
            shape = list(images.shape)
            raise InputError(f'{self._path} cannot be run on images of shape {shape}: {_reason(error)}') from error

    def _only_input(self) -> Any:
        inputs = self.session.get_inputs()  # without inputs that are also initializers
        if len(inputs) != 1:
            names = ', '.join(repr(value.name) for value in inputs) or 'none'
            raise InputError(f'{self._path} must have images as its only input; its inputs: {names}')
        if inputs[0].type not in _DTYPES:
            raise InputError(f'{self._path} takes {inputs[0].type}; supported: {", ".join(_DTYPES)}')
        return inputs[0]

    def _find_output(self, name: str | None) -> Any:
        """Returns the output with the scores: the one named by the flag, else the first."""
        outputs = {output.name: output for output in self.session.get_outputs()}
        if name is not None and name not in outputs:
            raise InputError(f'--output_name={name}: {self._path} gives {", ".join(outputs)}')
        return outputs[name] if name is not None else next(iter(outputs.values()))

    def _count_classes(self) -> int:
        """Returns the number of values per image, from the declared output shape, else from a trial run."""
        kind, shape = self._output.type, self._output.shape
        sizes = shape[1:] if kind.startswith('tensor(') else []
        if kind.startswith('tensor(') and not (sizes and all(isinstance(size, int) for size in sizes)):
            sizes = self._try_out()
        if not sizes or sum(size != 1 for size in sizes) > 1:
            raise InputError(
                f'{self._path} gives {self._output.name!r}, {kind} {shape}; a classifier gives one value for each class'
                f'{self._others()}'
            )
        return int(np.prod(sizes))

    def _others(self) -> str:
        names = [output.name for output in self.session.get_outputs() if output.name != self._output.name]
        return f'; it also gives {", ".join(names)}, of which --output_name chooses' if names else ''

    def _try_out(self) -> list[int]:
        """Runs the file once; returns the output's shape for one image."""
        sizes = [size for size in self.input_shape[1:] if size is not None]
        if len(sizes) != len(self.input_shape) - 1:
            raise InputError(
                f'{self._path} does not say how many values it gives: {self._output.name!r} is {self._output.shape}'
            )
        batch = self._batch or 1
        shape = list(self._call(np.zeros([batch, *sizes], np.float32)).shape)
        return shape[1:] if shape[:1] == [batch] and len(shape) > 1 else shape


def _open_session(path: str) -> Any:
    onnxruntime = optional_packages.load('onnxruntime', f'{path}: running ONNX files')
    onnxruntime.set_default_logger_severity(_SILENT)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    # Otherwise its threads spin for a while after each call on the cores where TensorFlow prepares the next image:
    # without spinning, an image of alexnet_v2 takes 15 ms instead of 17 on 2 cores.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    providers = [name for name in _PROVIDERS if name in onnxruntime.get_available_providers()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints about its second try
            return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise InputError(f'{path} cannot be opened: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Returns the meaning of an onnxruntime error, or its text without numbers and source locations."""
    text = first_line(error)
    plain = re.sub(r'^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed:)?', '', text)
    for pattern, meaning in _REASONS.items():
        found = re.search(pattern, text)
        if found:
            return meaning.format(found[1] if found.groups() else plain)
    return plain


def _read_metadata(path: str, session: Any) -> dict[str, Any]:
    """Returns the description at the end of an export; {} for foreign files.

    Raises:
        InputError: the description, or the file before it, is damaged.
    """
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    except UnicodeDecodeError as error:
        raise InputError(f'{path}: a text in its metadata_props is not UTF-8: damaged, or not valid ONNX') from error
    if text is None:
        return {}
    metadata = description.parse(path, text.encode())
    onnx_content.check(path, metadata)
    return metadata
