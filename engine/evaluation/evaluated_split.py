"""The split that a run was evaluated on while it was trained, which an evaluation of it then takes by default.

split = evaluated_split('/tmp/run', 'image_folder', '/data/pets')      # "train[80%:]", or None
"""

import os
from typing import Any

import tensorflow as tf
from absl import logging

from configs.options import from_flagfile
from configs.training import TrainConfig
from datasets import dataset_factory, slices
from engine.checkpoints.files import BEST, CONFIG
from support.errors import InputError


def evaluated_split(folder: str, dataset_name: str, dataset_dir: str | None) -> str | None:
    """Returns the run's `--eval_split_name`; None if it had none, or if that split overlaps the training split.

    A split that shares examples with what was trained on is left to be asked for: by default it would pass for a
    measure of what the net has not seen.

    Args:
        folder: That of a checkpoint.
        dataset_name: What is evaluated.
        dataset_dir: Its folder.
    """
    options = _read_options(folder)
    split, trained = options.get('eval_split_name'), options.get('dataset_split_name')
    if split is None or trained is None or options.get('dataset_name') != dataset_name:
        return None
    try:
        collection = dataset_factory.open_collection(dataset_name, dataset_dir)
        is_shared = slices.overlap(split, trained, lambda name: len(collection.open_split(name)))
    except InputError:  # a split that this folder lacks, or no folder: said where it is opened
        return split
    if is_shared:
        logging.warning(
            'the run was evaluated on %s, which shares examples with %s, which it was trained on, so that it is not '
            'taken by default; --dataset_split_name asks for it',
            *(split, trained),
        )
        return None
    logging.info('evaluating on %s, as while it was trained; --dataset_split_name chooses another split', split)
    return split


def _read_options(folder: str) -> dict[str, Any]:
    """Returns the options of a run, nothing where its config.cfg is not there or damaged; `best` is a part of a run."""
    folders = [folder]
    if os.path.basename(folder) == BEST:
        folders.append(os.path.dirname(folder))
    for candidate in folders:
        path = os.path.join(candidate, CONFIG)
        try:
            if tf.io.gfile.exists(path):
                with tf.io.gfile.GFile(path) as file:
                    return from_flagfile(TrainConfig, file.read())
        except (ValueError, tf.errors.OpError):
            return {}
    return {}
