"""Trains a net on TFRecords: `python train_image_classifier.py --model_name=alexnet_v2 --dataset_dir=...`.

The flags are slim's; `--help` lists them, `--flagfile=configs/alexnet_v2_digits.cfg` takes a recipe.
"""

from configs import cli
from configs.config import RETIRED_TRAIN_FLAGS, TrainConfig


def main(config: TrainConfig) -> None:
    """Trains as `config` says; TensorFlow is imported only once the flags are known to be right."""
    with cli.quiet_import():
        from engine import learning

    learning.train(config)


if __name__ == '__main__':
    cli.run(TrainConfig, main, RETIRED_TRAIN_FLAGS)
