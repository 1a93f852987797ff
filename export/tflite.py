"""A .tflite file for LiteRT, in float32, float16, with weights of 8 bits, or in integers.

write(source, '/tmp/net.tflite')
write_all([(source, '/tmp/a.tflite'), (another, '/tmp/b.tflite')])      # by one process of the converter
"""

import os
import re
import tempfile
from collections.abc import Sequence

import numpy as np

from engine.classifiers.interface import Interface
from export import serving, tflite_converter, tflite_graph, tflite_metadata, verification
from export.images import calibration_images
from export.source import Source
from export.tflite_converter import Job
from support import optional_packages
from support.errors import InputError

ENDING = '.tflite'
_MOST_BYTES = 2**31 - 2**20  # the converter hands on graphs as protocol buffers, which end at 2 GiB


def check() -> None:
    """Raises InputError if what the export needs is not installed."""
    optional_packages.load('ai_edge_litert.interpreter', '--format=tflite')


def write(source: Source, path: str) -> None:
    """Writes the file.

    Raises:
        InputError: the net is too large, TFLite lacks an operator of it, or there are no images to measure ranges on.
    """
    write_all([(source, path)])


def write_all(exports: Sequence[tuple[Source, str]]) -> None:
    """Writes several files; see `write`. One net in several quantizations is handed over once."""
    # There, after a kill, the next export deletes them.
    beside = os.path.dirname(os.path.abspath(exports[0][1]))
    is_readable = not re.search(r'[\[\\]', beside)  # by TensorFlow, which takes a name for a pattern
    with tempfile.TemporaryDirectory(prefix='tflite-', dir=beside if is_readable else None) as folder:
        jobs: list[Job] = []
        saved: dict[tuple[int, Interface, int | None], str] = {}
        for number, (source, _) in enumerate(exports):
            _check_size(source)
            key = (id(source.model), source.interface, source.options.batch_size)
            if key not in saved:
                saved[key] = os.path.join(folder, f'net-{number}')
                signature = serving.image_signature(source, tflite_graph.make_computation(source))
                serving.save(source, saved[key], {serving.DEFAULT_SIGNATURE: signature})
            jobs.append(_make_job(source, saved[key], os.path.join(folder, str(number))))
        tflite_converter.run(jobs)
        for job, (source, path) in zip(jobs, exports, strict=True):
            tflite_metadata.finish(job.output, source, path)


def _check_size(source: Source) -> None:
    size = source.model.count_params() * 4
    if size > _MOST_BYTES:
        raise InputError(
            f'--format=tflite: the converter takes less than 2 GiB, but the weights are {size / 2**30:.1f} GiB; '
            '--format=saved_model has no such limit'
        )


def _make_job(source: Source, saved_model: str, prefix: str) -> Job:
    """Returns the converter's job, and writes its calibration images to files that begin with `prefix`."""
    options, output = source.options, f'{prefix}.tflite'
    if options.quantize != 'int8':
        return Job(saved_model, output, options.quantize)
    images = calibration_images(source)
    if source.interface.include_preprocessing:
        images.flat[0], images.flat[-1] = 0, 255  # so that a step of the file's integers is exactly one of pixels
    np.save(f'{prefix}.npy', images)
    batch = options.batch_size or 1
    return Job(saved_model, output, options.quantize, options.inference_type, f'{prefix}.npy', batch)


def verify(source: Source, path: str) -> list[str]:
    """Runs the file and the checkpoint on the same images; returns lines that say how they compare."""
    return verification.compare_probabilities(source, path)
