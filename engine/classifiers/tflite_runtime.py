"""Runs TFLite files in LiteRT: this project's exports and foreign files, in floats or integers.

runtime = open_tflite('/tmp/net.tflite')
runtime.run(images)
"""

import os
import re
import zipfile
from typing import Any, BinaryIO

import numpy as np

from configs.foreign import ForeignOptions
from engine.checkpoints import METADATA
from engine.classifiers import description
from engine.classifiers.classifier import Batches, Runtime
from engine.classifiers.tflite_trial import refuse_deadly
from support import console, optional_packages
from support.errors import InputError, first_line
from support.processor import usable_cores

_PURPOSE = 'reading TFLite files'
_PIECE = 1 << 22
_MEMBER = re.compile(rb'PK\x03\x04.{26}' + re.escape(METADATA.encode()), re.DOTALL)  # its header in an archive
_INTEGERS = (np.int8, np.uint8)
# Name of a quantization in the options -> a dtype that identifies it in a file without a description.
_TELLING_TYPES = {'float16': np.float16, 'int8': np.int8, 'uint8': np.uint8}


def open_tflite(path: str, foreign: ForeignOptions = ForeignOptions()) -> Runtime:
    """Opens a TFLite file; a file without a checksum is first run in another process.

    Args:
        path: The file.
        foreign: Its `output_name` selects the scores among several outputs.

    Raises:
        InputError: LiteRT is not installed, the file is damaged, or does not map one batch of images to class scores.
    """
    metadata = _read_description(path)
    if description.CHECKSUM not in metadata:
        optional_packages.load('ai_edge_litert.interpreter', _PURPOSE)
        refuse_deadly(path)
    model = _Model(path, foreign.output_name)
    quantize = metadata.get('quantize') or model.quantization()
    return Runtime(
        'TFLite' if quantize == 'none' else f'TFLite {quantize}',
        model.input_shape,
        model.num_classes,
        metadata,
        model.run,
    )


class _Model:
    """A file open in LiteRT's interpreter, with memory allocated for the last batch size."""

    def __init__(self, path: str, output_name: str | None = None) -> None:
        self._path = path
        self._interpreter = _load(path)
        self._input = self._only('takes', self._interpreter.get_input_details())
        self._output = self._only('gives', self._outputs(output_name))
        # -1 is any size; files from before TensorFlow 2.4 have no shape signature.
        shape = self._input['shape_signature'] if len(self._input['shape_signature']) else self._input['shape']
        self.input_shape = tuple(int(size) if size >= 0 else None for size in shape)
        self.num_classes = self._count_classes()
        self.run = Batches(self._invoke, self.input_shape[0] if self.input_shape else None)
        self._shape: tuple[int, ...] = ()

    def quantization(self) -> str:
        """Returns the quantization, derived from the tensors' dtypes; 'none' if all are float32."""
        types = {detail['dtype'] for detail in self._interpreter.get_tensor_details()}
        return next((name for name, kind in _TELLING_TYPES.items() if kind in types), 'none')

    def _invoke(self, images: np.ndarray) -> np.ndarray:
        try:
            if images.shape != self._shape:
                self._resize(images.shape)
            self._interpreter.set_tensor(self._input['index'], _quantized(images, self._input))
            self._interpreter.invoke()
            scores = _dequantized(self._interpreter.get_tensor(self._output['index']), self._output)
            return scores.reshape(len(images), self.num_classes)
        except (ValueError, RuntimeError) as error:
            self._shape = ()
            raise InputError(f'{self._path} cannot be run: {first_line(error)}') from error

    def _resize(self, shape: tuple[int, ...]) -> None:
        self._interpreter.resize_tensor_input(self._input['index'], shape)
        with console.kept_stderr():  # it prints the kernels that it has chosen
            self._interpreter.allocate_tensors()
        self._shape = shape

    def _outputs(self, name: str | None) -> list[dict[str, Any]]:
        """Returns the details of all outputs, or of the named one."""
        details = self._interpreter.get_output_details()
        chosen = [detail for detail in details if name in (None, detail['name'])]
        if not chosen:
            raise InputError(f'--output_name={name}: {self._path} gives {", ".join(each["name"] for each in details)}')
        return chosen

    def _only(self, does: str, details: list[dict[str, Any]]) -> dict[str, Any]:
        if len(details) != 1:
            names = ', '.join(detail['name'] for detail in details)
            advice = '; --output_name chooses one' if does == 'gives' else ''
            raise InputError(
                f'{self._path} {does} {len(details)} tensors, {names}; one of images to one is needed{advice}'
            )
        (detail,) = details
        if detail['dtype'] not in (np.float32, *_INTEGERS):
            raise InputError(
                f'{self._path} {does} {np.dtype(detail["dtype"]).name}; float32, int8 and uint8 are supported'
            )
        return detail

    def _count_classes(self) -> int:
        shape = self._output['shape'].tolist()
        if len(shape) < 2 or np.prod(shape[1:]) != shape[-1]:
            raise InputError(f'{self._path} gives values of {shape}; scores are [batch, classes]')
        return shape[-1]


def _load(path: str) -> Any:
    interpreter = optional_packages.load('ai_edge_litert.interpreter', _PURPOSE)
    try:
        return interpreter.Interpreter(model_path=path, num_threads=usable_cores())
    except (ValueError, RuntimeError) as error:
        raise InputError(f'{path}: not a TFLite file that LiteRT can load: {first_line(error)}') from error


def _quantized(images: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Converts float32 values to the input's dtype; without a scale they are only rounded and clipped."""
    kind = detail['dtype']
    if kind == np.float32:
        return images
    scale, zero_point = detail['quantization']
    values = np.round(images / np.float32(scale or 1)) + zero_point
    limits = np.iinfo(kind)
    return values.clip(limits.min, limits.max).astype(kind)


def _dequantized(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    if detail['dtype'] == np.float32:
        return values
    scale, zero_point = detail['quantization']
    return (values.astype(np.float32) - zero_point) * np.float32(scale or 1)


def _read_description(path: str) -> dict[str, Any]:
    """Returns the description in the zip archive behind the model; {} if there is none, as in foreign files.

    Raises:
        InputError: the description is damaged, or does not belong to the model.
    """
    try:
        with open(path, 'rb') as file:
            if not zipfile.is_zipfile(file):
                _refuse_cut_short(path, file)
                return {}
            with zipfile.ZipFile(file) as archive:
                return _described(path, archive)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f'{path}: damaged: {first_line(error)}') from error


def _described(path: str, archive: zipfile.ZipFile) -> dict[str, Any]:
    if METADATA not in archive.namelist():
        return {}
    info = archive.getinfo(METADATA)
    if info.compress_type != zipfile.ZIP_STORED:  # so a read cannot exceed the size of the file
        raise ValueError(f'{METADATA} in it is compressed, but TFLite metadata must not be')
    with archive.open(info) as member:
        found = description.parse(path, member.read(description.MAX_BYTES + 1))
    start = min(member.header_offset for member in archive.infolist())
    if description.CHECKSUM in found and found[description.CHECKSUM] != description.checksum(path, start):
        raise ValueError('its checksum does not match; export it again')
    return found


def _refuse_cut_short(path: str, file: BinaryIO) -> None:
    """Raises ValueError if the archive is truncated: the file would otherwise be treated as a foreign one."""
    file.seek(-min(os.path.getsize(path), _PIECE), os.SEEK_END)
    if _MEMBER.search(file.read()):
        raise ValueError(f'it ends in the middle of {METADATA}')
