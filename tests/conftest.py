"""What tests start from: a quiet TensorFlow, two logical CPU devices, the numbers recorded from slim."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # read once, when TensorFlow is imported
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'  # the numbers are a CPU's, and two of its devices stand for two GPUs
os.environ['AUTOGRAPH_STRICT_CONVERSION'] = '1'  # what AutoGraph cannot convert is an error, not a log line

import tensorflow as tf

from datasets import digits
from engine import learning
from tests.runs import small_config

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


@pytest.fixture(scope='session')
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the TFRecords of the embedded digits."""
    folder = tmp_path_factory.mktemp('digits')
    digits.write(str(folder))
    return folder


@pytest.fixture(scope='session')
def train_digits(digits_dir: Path) -> Callable[..., learning.TrainResult]:
    """Returns a function that makes a small run, in a folder and with options of its own."""

    def train(train_dir: Path | str, /, **options: Any) -> learning.TrainResult:
        return learning.train(small_config(digits_dir, train_dir, **options))

    return train


@pytest.fixture(scope='session')
def trained(
    tmp_path_factory: pytest.TempPathFactory, train_digits: Callable[..., learning.TrainResult]
) -> learning.TrainResult:
    """A run of 300 steps with moving averages, for tests that only look at it."""
    return train_digits(tmp_path_factory.mktemp('trained'), max_number_of_steps=300, moving_average_decay=0.9)
