"""The flowers of slim's walkthrough, as `download_and_convert_flowers.py` writes them: JPEGs of five classes."""

from datasets.spec import DatasetSpec

SPEC = DatasetSpec(splits=('train', 'validation'), file_pattern='flowers_{split}_*.tfrecord', num_classes=5)
