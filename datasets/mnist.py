"""MNIST as slim's `download_and_convert_mnist.py` writes it: 28x28 gray PNGs in one file a split."""

from datasets.spec import DatasetSpec

SPEC = DatasetSpec(splits=('train', 'test'), file_pattern='mnist_{split}.tfrecord', num_classes=10, channels=1)
