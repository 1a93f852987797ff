"""Which kernels compute: what the last bits of results depend on beside the data and the options.

describe_kernels(strategy)        # 'TensorFlow 2.21.0 with oneDNN, AVX-512 BF16, 2 threads'
warn_of_slow_precision('bfloat16', strategy)
"""

import tensorflow as tf
from absl import logging
from tensorflow.python.util import _pywrap_util_port

from configs.cores import usable_cores
from configs.processor import this_processor
from engine import distribution


def describe_kernels(strategy: tf.distribute.Strategy) -> str:
    """Returns TensorFlow's version, and what computes: the GPUs, or the processor's instructions and the threads."""
    version = f'TensorFlow {tf.__version__}'
    if distribution.is_on_gpus(strategy):
        gpus = tf.config.list_physical_devices('GPU')
        names = {tf.config.experimental.get_device_details(gpu).get('device_name', 'GPU') for gpu in gpus}
        return f'{version} on {", ".join(sorted(names))}'
    # What TensorFlow does, not what it was told: a notebook may have imported it before this project.
    library = 'with' if _pywrap_util_port.IsMklEnabled() else 'without'
    threads = tf.config.threading.get_intra_op_parallelism_threads() or usable_cores()
    return f'{version} {library} oneDNN, {this_processor().name}, {threads} threads'


def warn_of_slow_precision(mixed_precision: str, strategy: tf.distribute.Strategy) -> None:
    """Warns where `--mixed_precision` makes a step slower than float32, as there is no arithmetic for it."""
    if distribution.is_on_gpus(strategy):
        return
    processor = this_processor()
    if mixed_precision == 'float16':
        logging.warning('--mixed_precision=float16 is very slow on CPUs; %s is not', _faster(processor.has_bfloat16))
    elif mixed_precision == 'bfloat16' and not processor.has_bfloat16:
        logging.warning(
            '--mixed_precision=bfloat16: this processor (%s) has no arithmetic for it: a step takes about %.2g times '
            'as long as with --mixed_precision=float32',
            processor.name, 1 / processor.choices.bfloat16_speed,
        )  # fmt: skip


def _faster(has_bfloat16: bool) -> str:
    return 'bfloat16' if has_bfloat16 else 'float32'
