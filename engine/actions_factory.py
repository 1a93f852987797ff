"""What happens between the steps of a run, made from its config.

actions = make_actions(config, state, dataset, preprocessing, strategy, progress, saver, best, signals, cluster)
"""

import math

import tensorflow as tf

from configs.config import TrainConfig
from configs.progress import Progress
from datasets import dataset_factory, decoded
from datasets.dataset_factory import Dataset
from engine import checkpoints, distribution, evaluation
from engine.actions import (
    Action,
    Evaluate,
    LeftToChief,
    Log,
    NextImages,
    Save,
    Scalars,
    Summarize,
    log_interval,
)
from engine.best_checkpoint import BestCheckpoint
from engine.cluster.cluster import Cluster
from engine.evaluator import DEFAULT_BATCH_SIZE, Evaluator
from engine.intervals import Interval
from engine.signals import TrainingSignals
from engine.summaries import SummaryWriter
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
    cluster: Cluster,
) -> list[Action]:
    """Makes what happens between steps, in the order in which it happens.

    All workers have the same list, for the chief says by its places what is due.
    """
    log, checks, train_dir = config.log, config.evaluation, config.checkpoint.train_dir
    save_interval = Interval(steps=config.checkpoint.save_interval_steps, seconds=config.checkpoint.save_interval_secs)
    actions: list[Action] = [Log(log, progress)]
    if cluster.is_chief:
        is_new = checkpoints.latest_checkpoint(train_dir) is None
        at_start = is_new and config.checkpoint.recover_from_nonfinite > 0
        actions.append(Save(save_interval, saver, state, progress, at_start))
    else:
        actions.append(LeftToChief(save_interval, Save.on_request))
    if checks.is_wanted:
        offset = dataset.labels_offset
        measured = cluster.after_chief(
            lambda: dataset_factory.get_dataset(
                dataset.name,
                dataset.dataset_dir or None,
                checks.eval_split_name,
                offset,
                'eval_split_name',
                record_names=dataset.record_names,
            )
        )
        cluster.check_same({'examples to evaluate': measured.identity()})
        split = measured.split
        measured = decoded.with_cache(measured, cache_mode(config), preprocessing.source_channels, math.inf)
        evaluator = Evaluator(
            state.model,
            measured,
            preprocessing,
            strategy,
            batch_size=DEFAULT_BATCH_SIZE,
            recall_at=checks.recall_at,
            xla=distribution.use_xla(config.devices, strategy),
            fast_convolutions=distribution.use_fast_convolutions(config.devices, strategy),
            cluster=cluster,
        )
        epochs = checks.eval_every_epochs * dataset.num_examples / config.data.examples_per_step
        interval = Interval(steps=checks.eval_every_steps or epochs)
        writer = SummaryWriter(evaluation.eval_dir(train_dir, split, averages=state.averages is not None))
        count = measured.num_examples
        actions.append(Evaluate(interval, evaluator, state, writer, count, best, signals.is_set, cluster))
    if log.save_summaries_secs or log.save_summaries_steps:
        interval = Interval(steps=log.save_summaries_steps, seconds=log.save_summaries_secs)
        if cluster.is_chief:
            writer = SummaryWriter(train_dir)
            scalars = Scalars(log_interval(log), writer)
            next_images = NextImages(config, dataset, preprocessing)
            actions += [scalars, Summarize(interval, log, state, preprocessing, next_images, writer, scalars)]
        else:
            actions += [LeftToChief(log_interval(log)), LeftToChief(interval)]
    return actions
