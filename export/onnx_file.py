"""Export to .onnx, in the ONNX model zoo's style, in float32, float16 or 8 bits.

write(source, '/tmp/net.onnx')
write_sample_test_data(source, '/tmp/net.onnx', sample_folder('/tmp/net.onnx'))
"""

import os
import re

import numpy as np
from absl import logging

from engine.classifiers.onnx_runtime import open_onnx
from export.images import calibration_images, verification_images
from export.source import Source

_ENDING = '.onnx'
_SAMPLE_FILES = ('input_0.pb', 'output_0.pb')  # in each folder of sample data
_SAMPLES = 'test_data_set_{}'
_MODEL = 'model.onnx'


def write(source: Source, path: str) -> None:
    """Writes an ONNX file.

    Raises:
        InputError: ONNX export does not support a layer, the net is too large, or there are no calibration images.
    """
    from export import onnx_layers, onnx_model, onnx_quantization

    onnx_layers.check_layers(source.model)
    quantize = source.options.quantize
    images = calibration_images(source) if quantize in onnx_quantization.FORMATS else None
    model = onnx_model.make_model(source)
    if images is not None:
        folder = os.path.dirname(os.path.abspath(path))
        model = onnx_quantization.quantize(model, images, quantize, source.options.batch_size, folder)
    logging.info('writing %s', 'float32' if quantize == 'none' else quantize)
    onnx_model.save(model, source, path)


def sample_folder(path: str) -> str:
    """Returns the sample data folder of a file: `net.test_data` for `net.onnx`."""
    return f'{path.removesuffix(_ENDING)}.test_data'


def is_sample_folder(folder: str) -> bool:
    """Returns whether a folder contains nothing but earlier sample data."""
    if not os.path.isdir(folder) or os.path.islink(folder):
        return False
    found = (
        os.path.relpath(os.path.join(above, name), folder) for above, _, names in os.walk(folder) for name in names
    )
    files = '|'.join(map(re.escape, _SAMPLE_FILES))
    return all(name == _MODEL or re.fullmatch(rf'{_SAMPLES.format("[0-9]+")}/({files})', name) for name in found)


def write_sample_test_data(source: Source, path: str, folder: str) -> None:
    """Writes `--sample_test_data` sets of images and the file's outputs, as the model zoo does.

    The zoo's tools take a folder with `model.onnx`, here a link to the file, and `test_data_set_<i>`.

    Args:
        source: The source of the export.
        path: The file.
        folder: The folder to write; it must not exist.
    """
    from onnx import numpy_helper

    from export.onnx_model import INPUT

    images = source.interface.prepare(verification_images(source).values, source.preprocessing)
    runtime, batch = open_onnx(path), source.options.batch_size or 1
    os.mkdir(folder)
    os.symlink(os.path.join('..', os.path.basename(path)), os.path.join(folder, _MODEL))
    for number in range(source.options.sample_test_data):
        chosen = images[np.arange(number * batch, (number + 1) * batch) % len(images)]
        data_set = os.path.join(folder, _SAMPLES.format(number))
        os.mkdir(data_set)
        values = ((INPUT, chosen), (source.interface.output, runtime.run(chosen)))
        for file, (name, value) in zip(_SAMPLE_FILES, values, strict=True):
            with open(os.path.join(data_set, file), 'wb') as stream:
                stream.write(numpy_helper.from_array(value, name).SerializeToString())
