"""Export to .tflite for LiteRT, in float32, float16, with 8-bit weights, or in integers.

write(source, '/tmp/net.tflite')
"""

import os
import re
import tempfile

import numpy as np

from export import serving, tflite_converter, tflite_graph, tflite_metadata
from export.images import batches_of, calibration_images
from export.source import Source
from export.tflite_converter import Job
from support.errors import InputError

_MOST_BYTES = 2**31 - 2**20  # the converter passes graphs as protocol buffers, limited to 2 GiB


def write(source: Source, path: str) -> None:
    """Writes a TFLite file.

    Raises:
        InputError: The net is too large, TFLite lacks an operator, or there are no calibration images.
    """
    # Beside the output, so that the next export deletes it after a kill.
    beside = os.path.dirname(os.path.abspath(path))
    is_readable = not re.search(r'[\[\\]', beside)  # TensorFlow takes the name for a pattern
    with tempfile.TemporaryDirectory(prefix='tflite-', dir=beside if is_readable else None) as folder:
        job = make_job(source, os.path.join(folder, 'net'))
        tflite_converter.run([job])
        tflite_metadata.finish(job.output, source, path)


def _check_size(source: Source) -> None:
    size = source.model.count_params() * 4
    if size > _MOST_BYTES:
        raise InputError(
            f'--format=tflite: the converter takes less than 2 GiB, but the weights are {size / 2**30:.1f} GiB; '
            '--format=saved_model has no such limit'
        )


def make_job(source: Source, prefix: str) -> Job:
    """Returns the converter's job, and writes its input to files that begin with `prefix`."""
    _check_size(source)
    signature = serving.image_signature(source, tflite_graph.make_computation(source))
    serving.save(source, prefix, {serving.DEFAULT_SIGNATURE: signature})
    options, output = source.options, f'{prefix}.tflite'
    if options.quantize != 'int8':
        return Job(prefix, output, options.quantize)
    images = calibration_images(source)
    if source.interface.include_preprocessing:
        images.flat[0], images.flat[-1] = 0, 255  # so that one integer step of the file is exactly one of a pixel
    np.save(f'{prefix}.npy', batches_of(images, options.batch_size or 1))
    return Job(prefix, output, options.quantize, options.inference_type, f'{prefix}.npy')
