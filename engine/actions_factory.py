"""What happens between the steps of a run, made from its config.

actions = make_actions(config, state, dataset, preprocessing, strategy, progress, saver, best, signals)
"""

import math

import tensorflow as tf

from configs.config import TrainConfig
from configs.progress import Progress
from datasets import dataset_factory, decoded
from datasets.dataset_factory import Dataset
from engine import checkpoints, distribution, evaluation
from engine.actions import Action, Evaluate, Log, NextImages, Save, Summarize
from engine.best_checkpoint import BestCheckpoint
from engine.intervals import Interval
from engine.signals import TrainingSignals
from engine.train_input import cache_mode
from engine.train_state import TrainState
from preprocessing.preprocessing_factory import Preprocessing


def make_actions(
    config: TrainConfig,
    state: TrainState,
    dataset: Dataset,
    preprocessing: Preprocessing,
    strategy: tf.distribute.Strategy,
    progress: Progress,
    saver: checkpoints.Saver,
    best: BestCheckpoint,
    signals: TrainingSignals,
) -> list[Action]:
    """Makes what happens between steps, in the order in which it happens."""
    log, checks, train_dir = config.log, config.evaluation, config.checkpoint.train_dir
    save_interval = Interval(steps=config.checkpoint.save_interval_steps, seconds=config.checkpoint.save_interval_secs)
    is_new = checkpoints.latest_checkpoint(train_dir) is None
    at_start = is_new and config.checkpoint.recover_from_nonfinite > 0
    actions: list[Action] = [Log(log, progress), Save(save_interval, saver, state, progress, at_start)]
    if checks.is_wanted:
        measured = dataset_factory.get_dataset(
            dataset.name, dataset.dataset_dir or None, checks.eval_split_name, dataset.labels_offset, 'eval_split_name'
        )
        split = measured.split
        measured = decoded.with_cache(measured, cache_mode(config), preprocessing.source_channels, math.inf)
        evaluator = evaluation.Evaluator(
            state.model,
            measured,
            preprocessing,
            strategy,
            batch_size=evaluation.DEFAULT_BATCH_SIZE,
            recall_at=checks.recall_at,
            xla=distribution.use_xla(config.devices, strategy),
        )
        epochs = checks.eval_every_epochs * dataset.num_examples / config.data.batch_size
        interval = Interval(steps=checks.eval_every_steps or epochs)
        eval_dir = evaluation.eval_dir(train_dir, split, averages=state.averages is not None)
        actions.append(Evaluate(interval, evaluator, state, eval_dir, measured.num_examples, best, signals.is_set))
    if log.save_summaries_secs or log.save_summaries_steps:
        next_images = NextImages(config, dataset, preprocessing)
        actions.append(Summarize(log, state, preprocessing, next_images, train_dir))
    return actions
