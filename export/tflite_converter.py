"""Runs TensorFlow's converter in a separate process, because it prints a lot and never frees a net's memory.

run([Job('/tmp/saved_model', '/tmp/net.tflite', 'float16')])                    # one process for all jobs

The process, `python -m export.tflite_converter`, reads the jobs as JSON from standard input.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from support.errors import InputError

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LACKING = re.compile(r'"([^"]*)@[^"]*"\].*\'tf\.(\w+)\' op is neither a custom op nor a flex op')


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to convert.

    Attributes:
        saved_model: Folder of a SavedModel with the signature `serving_default`.
        output: The file.
        quantize: Value of `--quantize`.
        inference_type: For int8, type of the file's input and output: 'int8', 'uint8' or 'float32'.
        calibration: For int8, a .npy file of batches for the signature, float32 [batches, images, ...].
    """

    saved_model: str
    output: str
    quantize: str = 'none'
    inference_type: str = 'float32'
    calibration: str = ''


def run(jobs: Sequence[Job]) -> None:
    """Converts in a separate process.

    Raises:
        InputError: TFLite lacks an operator, or the process failed otherwise.
    """
    paths = os.pathsep.join(filter(None, (_ROOT, os.environ.get('PYTHONPATH'))))
    # Conversion needs no GPU, and would take all its memory from the process that compares.
    environment = {**os.environ, 'PYTHONPATH': paths, 'CUDA_VISIBLE_DEVICES': '-1', 'TF_CPP_MIN_LOG_LEVEL': '3'}
    process = subprocess.run(
        [sys.executable, '-P', '-m', 'export.tflite_converter'],
        input=json.dumps([dataclasses.asdict(job) for job in jobs]),
        capture_output=True,
        text=True,
        errors='replace',
        env=environment,
    )
    if process.returncode:
        raise InputError(f'--format=tflite: {_reason(process.stderr, process.returncode)}')


def _reason(stderr: str, status: int) -> str:
    """Returns the reason for the failure of the process, in one line."""
    lacking = _LACKING.search(stderr)
    if lacking:
        return f'TFLite lacks the operator {lacking[2]} of {lacking[1]}; the net cannot be exported so'
    if status < 0:
        return f'the converter was ended by signal {-status}; it may have lacked memory'
    errors = [line for line in stderr.splitlines() if re.match(r'[\w.]+(Error|Exception)\b', line)]
    return f'the converter failed with status {status}: {errors[-1] if errors else stderr.strip()[-200:]}'


def convert(job: Job) -> None:
    """Converts in this process."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(job.saved_model, signature_keys=['serving_default'])
    if job.quantize != 'none':
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.quantize == 'float16':
        converter.target_spec.supported_types = [tf.float16]
    if job.quantize == 'int8':
        batches = np.load(job.calibration, mmap_mode='r')
        converter.representative_dataset = lambda: ([batch] for batch in batches)
        # Operators without an integer kernel (local response normalisation) stay between DEQUANTIZE and QUANTIZE.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(job.inference_type)
    content = converter.convert()
    with open(job.output, 'wb') as file:
        file.write(content)


if __name__ == '__main__':
    for values in json.load(sys.stdin):
        convert(Job(**values))
