"""How much faster two processes convert than one, on raw ILSVRC images that are there many times.

The time is what the converter says, from when its processes are ready: starting TensorFlow takes four seconds before.

measure_conversion('../shared/data/imagenet_raw_mini', 'build/bench/conversion')
# {'images_per_second': {'1 process': 700.0, '2 processes': 1350.0}, 'ratio': {'median': 1.9, ...}}
"""

import glob
import os
import shutil
import statistics

from photographs import convert

COPIES = 100
ROUNDS = 5
ASK = 1.8


def measure_conversion(raw_dir: str, folder: str) -> dict:
    """Converts the training images with 1 and 2 processes in turn; returns speeds and their ratio."""
    source_dir, dataset_dir = os.path.join(folder, 'source'), os.path.join(folder, 'records')
    num_images = copy_images(raw_dir, source_dir)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for processes, taken in seconds.items():
            shutil.rmtree(dataset_dir, ignore_errors=True)
            flags = (f'--num_processes={processes}', '--train_shards=16')
            taken.append(convert('imagenet', source_dir, dataset_dir, *flags))
    shutil.rmtree(folder)
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    return {
        'images_per_second': {
            '1 process': num_images / statistics.median(seconds[1]),
            '2 processes': num_images / statistics.median(seconds[2]),
        },
        'ratio': {'median': statistics.median(ratios), 'low': min(ratios), 'high': max(ratios), 'ask': ASK},
    }


def copy_images(raw_dir: str, source_dir: str) -> int:
    """Copies each training image many times; returns how many there are then."""
    shutil.rmtree(source_dir, ignore_errors=True)
    images = glob.glob(os.path.join(raw_dir, 'train', '*', '*'))
    for path in images:
        wnid, name = path.split(os.sep)[-2:]
        class_dir = os.path.join(source_dir, 'train', wnid)
        os.makedirs(class_dir, exist_ok=True)
        stem, suffix = os.path.splitext(name)
        for copy in range(COPIES):
            shutil.copyfile(path, os.path.join(class_dir, f'{stem}{copy:03}{suffix}'))
    return len(images) * COPIES
