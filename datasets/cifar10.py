"""CIFAR-10 as slim's `download_and_convert_cifar10.py` writes it: 32x32 PNGs in one file a split."""

from datasets.spec import DatasetSpec

SPEC = DatasetSpec(splits=('train', 'test'), file_pattern='cifar10_{split}.tfrecord', num_classes=10)
