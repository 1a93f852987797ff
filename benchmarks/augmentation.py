"""What each way to vary training images costs on the device: milliseconds an image, beside the preprocessing's own.

PYTHONPATH=. python benchmarks/augmentation.py --image_size=80 --batch_size=128
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import numpy as np
import tensorflow as tf

from configs.config import AugmentOptions
from preprocessing.augmentation import make_augmentation
from preprocessing.preprocessing_factory import get_preprocessing

OPTIONS: dict[str, dict[str, Any]] = {
    'none': {},
    '--random_shift=4': {'random_shift': 4},
    '--rand_augment_ops=1': {'rand_augment_ops': 1},
    '--rand_augment_ops=2': {'rand_augment_ops': 2},
    '--random_erasing_prob=0.25': {'random_erasing_prob': 0.25},
    '--mixup_alpha=0.8 --cutmix_alpha=1': {'mixup_alpha': 0.8, 'cutmix_alpha': 1.0},
}
OPTIONS['all, with two operations'] = {name: value for options in OPTIONS.values() for name, value in options.items()}


def make_stage(
    options: dict[str, Any], name: str, image_size: int, batch_size: int
) -> Callable[[int], tuple[float, float]]:
    """Returns a function that draws for a step, varies its batch, and returns the seconds: of the clock, of the CPU."""
    preprocessing = get_preprocessing(name, image_size, augment=AugmentOptions(**options))
    augmentation = make_augmentation(preprocessing, num_examples=1)
    device_train = tf.function(augmentation.device_train, jit_compile=True, autograph=False)
    batch = np.random.RandomState(0).randint(0, 256, (batch_size, image_size, image_size, 3), np.uint8)
    images = tf.constant(batch)

    @tf.function(autograph=False)
    def run(seed: tf.Tensor) -> tf.Tensor:
        return device_train(images, augmentation.make_draws(seed, batch_size))

    def measure(step: int) -> tuple[float, float]:
        start = time.perf_counter(), time.process_time()
        run(tf.constant([0, step], tf.int64)).numpy()
        return time.perf_counter() - start[0], time.process_time() - start[1]

    return measure


def main() -> None:
    """Measures the ways in turn, round by round, and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--preprocessing_name', default='inception')
    parser.add_argument('--image_size', type=int, default=80)
    parser.add_argument('--batch_size', type=int, default=128)
    parser.add_argument('--rounds', type=int, default=30)
    flags = parser.parse_args()
    stages = {
        name: make_stage(options, flags.preprocessing_name, flags.image_size, flags.batch_size)
        for name, options in OPTIONS.items()
    }
    compiling = {name: measure(0)[0] for name, measure in stages.items()}
    rounds = [{name: measure(step) for name, measure in stages.items()} for step in range(1, flags.rounds + 1)]
    print('| options | ms an image | CPU ms an image | seconds to compile |\n|---|---|---|---|')
    for name in stages:
        wall, cpu = (
            1e3 * statistics.median(times[name][clock] for times in rounds) / flags.batch_size for clock in (0, 1)
        )
        print(f'| {name} | {wall:.3f} | {cpu:.3f} | {compiling[name]:.1f} |')


if __name__ == '__main__':
    main()
