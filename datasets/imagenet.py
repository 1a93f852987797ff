"""ILSVRC2012 as slim's `build_imagenet_data.py` writes it: labels 1 to 1000, class 0 is an unused background."""

from datasets.spec import DatasetSpec

SPEC = DatasetSpec(splits=('train', 'validation'), file_pattern='{split}-*', num_classes=1001)
