"""What tests start from: a quiet TensorFlow, two logical CPU devices, the numbers recorded from slim."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # read once, when TensorFlow is imported
os.environ['AUTOGRAPH_STRICT_CONVERSION'] = (
    '1'  # what AutoGraph cannot convert is an error instead of a log line
)

import tensorflow as tf

_SHARED = Path(__file__).resolve().parents[2] / 'shared'

# TensorFlow takes this only before it first computes. Two of them stand for two GPUs.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope='session')
def shared_path() -> Callable[[str], Path]:
    """Returns a function from a path under `shared`, beside the clone, to the file; skips without it."""

    def path(relative: str) -> Path:
        if not (_SHARED / relative).exists():
            pytest.skip(f'no ../shared/{relative}: the numbers recorded from slim are not part of the clone')
        return _SHARED / relative

    return path
