"""An .onnx file: the net as the ONNX model zoo has such nets, in float32, float16 or 8 bits.

write(source, '/tmp/net.onnx')
write_sample_test_data(source, '/tmp/net.onnx', '/tmp')
"""

import os

from absl import logging

from engine import extras
from engine.classifiers.onnx_runtime import open_onnx
from export import verification
from export.images import calibration_images, verification_images
from export.source import Source

ENDING = '.onnx'
SAMPLE_FILES = ('input_0.pb', 'output_0.pb')  # of each folder of sample data
_PURPOSE = '--format=onnx'


def check() -> None:
    """Raises InputError if what the export needs is not installed."""
    for package in ('onnx', 'onnxruntime'):
        extras.load(package, _PURPOSE)


def write(source: Source, path: str) -> None:
    """Writes the file.

    Raises:
        InputError: the net has a layer that ONNX export does not know, is too large, or has no images to measure on.
    """
    from export import onnx_model, onnx_quantization

    quantize = source.options.quantize
    images = calibration_images(source) if quantize in onnx_quantization.FORMATS else None
    model = onnx_model.make_model(source)
    if images is not None:
        logging.info('measuring ranges on %d images, and quantising', len(images))
        model = onnx_quantization.quantize(model, images, quantize)
    logging.info('writing %s', 'float32' if quantize == 'none' else quantize)
    onnx_model.save(model, source, path)


def verify(source: Source, path: str) -> list[str]:
    """Runs the file and the checkpoint on the same images; returns lines that say how they compare."""
    return verification.compare_probabilities(source, path)


def write_sample_test_data(source: Source, path: str, folder: str) -> None:
    """Writes `--sample_test_data` folders with an image and the file's results for it, as the model zoo has them.

    Args:
        source: Of the export.
        path: The file.
        folder: Where `test_data_set_0`, ... are made.
    """
    from onnx import numpy_helper

    from export.onnx_model import INPUT

    images = source.interface.prepare(verification_images(source).values, source.preprocessing)
    runtime = open_onnx(path)
    for number in range(source.options.sample_test_data):
        image = images[number % len(images)][None]
        data_set = os.path.join(folder, f'test_data_set_{number}')
        os.makedirs(data_set)
        values = ((INPUT, image), (source.interface.output, runtime.run(image)))
        for file, (name, value) in zip(SAMPLE_FILES, values, strict=True):
            with open(os.path.join(data_set, file), 'wb') as stream:
                stream.write(numpy_helper.from_array(value, name).SerializeToString())
