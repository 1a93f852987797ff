"""Describes the kernels, on which the last bits of results depend, and sets their precision.

set_precision('bfloat16', strategy)
describe_kernels(strategy)        # 'TensorFlow 2.21.0 with oneDNN, AVX-512 BF16, 2 threads'
"""

import os
import platform

import tensorflow as tf
from absl import logging
from tensorflow.python.util import _pywrap_util_port

from engine.distributed import distribution
from support.processor import UNKNOWN, this_processor, usable_cores

_THREADS = 'TF_NUM_INTRAOP_THREADS'  # TensorFlow's own variable


def describe_kernels(strategy: tf.distribute.Strategy) -> str:
    """Describes TensorFlow's version and the GPUs, or the processor's instruction set and the number of threads."""
    version = f'TensorFlow {tf.__version__}'
    if distribution.is_on_gpus(strategy):
        gpus = tf.config.list_physical_devices('GPU')
        names = {tf.config.experimental.get_device_details(gpu).get('device_name', 'GPU') for gpu in gpus}
        return f'{version} on {", ".join(sorted(names))}'
    # The actual state, not the variable: a notebook may have imported TensorFlow before this project.
    library = 'with' if _pywrap_util_port.IsMklEnabled() else 'without'
    number = os.environ.get(_THREADS, '')
    asked = tf.config.threading.get_intra_op_parallelism_threads() or int(number if number.isdecimal() else 0)
    threads = asked or usable_cores()
    name = this_processor().name
    processor = platform.machine() if name == UNKNOWN else name
    return f'{version} {library} oneDNN, {processor}, {threads} {"thread" if threads == 1 else "threads"}'


def set_precision(mixed_precision: str, strategy: tf.distribute.Strategy) -> None:
    """Disables TensorFloat-32 on GPUs for `float32`; warns if `mixed_precision` is slower than float32.

    TensorFloat-32 rounds the factors of matrix products to 10 bits. TensorFlow's default allows it, which would change
    a float32 net's results by 1e-3.
    """
    tf.config.experimental.enable_tensor_float_32_execution(mixed_precision != 'float32')
    if distribution.is_on_gpus(strategy):
        return
    processor = this_processor()
    if mixed_precision == 'float16':
        faster = 'bfloat16' if processor.has_bfloat16 else 'float32'
        logging.warning('--mixed_precision=float16 is very slow on CPUs; %s is not', faster)
    elif mixed_precision == 'bfloat16' and not processor.has_bfloat16 and processor.name != UNKNOWN:
        logging.warning(
            '--mixed_precision=bfloat16: this processor (%s) has no bfloat16 arithmetic: bfloat16 takes about %.2g '
            'times as long as float32; give --mixed_precision=float32',
            processor.name, 1 / processor.choices.bfloat16_speed,
        )  # fmt: skip
