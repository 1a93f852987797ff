"""Trains an image classifier: `python train_image_classifier.py --model_name=alexnet_v2 --dataset_dir=...`.

The flags are slim's. `--flagfile=configs/alexnet_v2_digits.cfg` reads a recipe; `--help` lists the flags.
"""

import os
import signal
import sys

from absl import logging

from configs import cli, early
from configs.retired_flags import RETIRED_TRAIN_FLAGS
from configs.training import TrainConfig
from engine.distributed import launching, tasks

EXAMPLE = 'python train_image_classifier.py --flagfile=configs/alexnet_v2_digits.cfg --train_dir=/tmp/digits'
USUAL = (
    'dataset_name',
    'dataset_dir',
    'model_name',
    'train_dir',
    'batch_size',
    'num_epochs',
    'optimizer',
    'learning_rate',
    'checkpoint_path',
    'eval_every_epochs',
)


def main(config: TrainConfig) -> int:
    """Trains as `config` says; TensorFlow is imported only once the flags are known to be right.

    Returns:
        The exit status: 0, or as a shell counts it for the signal that stopped training; that of the worker that failed
        first with `--launch_workers`.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # which asks for a checkpoint, once there is one to save
    if config.plan.plan:  # before workers are launched, each of which would print it; nothing is trained
        early.check_names(config)
        from engine.training import plan

        plan.print_plan(config)
        return 0
    if config.log.summary:
        early.check_names(config)
        from engine.training import summary

        summary.print_summary(config)
        return 0
    is_worker = tasks.is_worker(config.cluster, os.environ)
    if not is_worker:  # the others would wait for a worker that ends here: it joins them, and says then what is wrong
        early.check_training(config)
    if config.cluster.launch_workers:
        return launching.launch(config.cluster.launch_workers, sys.argv, os.environ)
    logging.info('loading TensorFlow')  # which takes seconds in which nothing else is said
    if is_worker:
        cli.silence_tensorflow()
    from engine import training

    stopped_by = training.train(config).stopped_by
    return 128 + stopped_by if stopped_by else 0


if __name__ == '__main__':
    cli.run(TrainConfig, main, RETIRED_TRAIN_FLAGS, usual=USUAL, example=EXAMPLE)
