"""Counting over a split, with whatever weights a model has: for evaluation of checkpoints, and during training.

evaluator = Evaluator(model, dataset, preprocessing, strategy, batch_size=100, recall_at=(5,))
evaluator()['accuracy']
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from configs.evaluation import EvalOptions
from datasets import input_pipeline
from datasets.dataset_factory import Dataset
from datasets.order import Worker
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.evaluation.metrics import ClassificationMetrics, clip_recall_at
from engine.optim import losses
from nets import fast_convolutions
from preprocessing.preprocessing_factory import Preprocessing
from support.progress import Progress

Results = dict[str, float | int | str]
DEFAULT_BATCH_SIZE = EvalOptions().batch_size


class EvaluationStopped(Exception):
    """`should_stop` has said so; nothing was measured."""


class Evaluator:
    """Measures a model on a split, as often as it is called."""

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        preprocessing: Preprocessing,
        strategy: tf.distribute.Strategy,
        *,
        batch_size: int,
        recall_at: tuple[int, ...],
        max_batches: int | None = None,
        xla: bool = False,
        fast_convolutions: bool = False,
        cluster: Cluster = SINGLE_PROCESS,
    ):
        replicas = strategy.num_replicas_in_sync
        self._dataset, self._preprocessing = dataset, preprocessing
        self._batch_size = -(-min(batch_size, dataset.num_examples) // replicas) * replicas
        self._num_examples = min(dataset.num_examples, (max_batches or dataset.num_examples) * self._batch_size)
        self._metrics = ClassificationMetrics(_clip_recall_at(recall_at, dataset.num_classes))
        self._cluster, worker = cluster, Worker(cluster.index, cluster.count)
        self._batches = distribution.distribute(
            strategy,
            lambda: input_pipeline.endless(
                input_pipeline.evaluation_batches(
                    dataset, preprocessing, self._batch_size, self._num_examples, replicas, worker
                )
            ),
        )
        self._count_batch = _make_count_batch(model, preprocessing, strategy, self._metrics, xla, fast_convolutions)

    def __call__(self, should_stop: Callable[[], bool] = lambda: False) -> Results:
        """Counts over the split; returns num_examples, accuracy, recall_at_<k>, loss and images_per_second.

        The loss is the mean cross-entropy, without label smoothing and L2.

        Args:
            should_stop: Asked before every batch, in every worker.

        Raises:
            EvaluationStopped: `should_stop` has said so, in any worker.
            InputError: a record that cannot be used, by file and number; or a lost worker.
        """
        num_batches = -(-self._num_examples // self._batch_size)
        sums = tf.zeros(self._metrics.num_counts + 1, tf.float64)
        start = time.monotonic()
        with Progress('evaluation', total=num_batches, unit='batch') as progress:
            batches = iter(self._batches)
            for done in range(num_batches):
                if self._cluster.any(should_stop()):
                    raise EvaluationStopped
                first, size = done * self._batch_size, self._batch_size
                positions = range(first, min(first + size, self._num_examples))
                with (
                    distribution.naming_lost_workers(self._cluster),
                    input_pipeline.naming_failures(self._dataset, self._preprocessing, positions),
                ):
                    sums += self._count_batch(next(batches))
                    distribution.batches_taken().assign_add(1)
                if self._cluster.is_chief and (done + 1) % max(num_batches // 10, 1) == 0:
                    progress.report(done + 1, f'Evaluation [{done + 1}/{num_batches}]')
        *counts, loss = sums.numpy()
        results: Results = dict(self._metrics.result(np.array(counts)))
        if results['num_examples'] != self._num_examples:
            raise AssertionError(f'counted {results["num_examples"]} of {self._num_examples} examples')
        results['loss'] = float(loss) / self._num_examples
        return {**results, 'images_per_second': round(self._num_examples / (time.monotonic() - start), 1)}


def _clip_recall_at(recall_at: tuple[int, ...], num_classes: int) -> tuple[int, ...]:
    clipped = clip_recall_at(recall_at, num_classes)
    if clipped != tuple(recall_at):
        logging.warning(
            'Recall@k is measured at k = %s: there are %d classes', ','.join(map(str, clipped)), num_classes
        )
    return clipped


def _make_count_batch(
    model: keras.Model,
    preprocessing: Preprocessing,
    strategy: tf.distribute.Strategy,
    metrics: ClassificationMetrics,
    xla: bool,
    is_fast: bool,
) -> Callable[[Any], tf.Tensor]:
    """Returns the compiled function from a distributed batch to its counts and the sum of its losses.

    They are one float64 [counts + 1], which holds whole numbers exactly, so that replicas sum them at once.
    """

    def count(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with fast_convolutions.fast_convolutions(is_fast):
            logits = model(preprocessing.device_eval(batch['image']), training=False)
        loss = tf.cast(losses.softmax_cross_entropy(logits, batch['label']), tf.float64)
        loss = tf.reduce_sum(tf.where(batch['mask'], loss, 0.0))
        counts = metrics.count(logits, batch['label'], batch['mask'])
        return tf.concat([tf.cast(counts, tf.float64), [loss]], axis=0)

    replica_count = tf.function(count, jit_compile=True, autograph=False) if xla else count

    @tf.function(autograph=False)
    def count_batch(batch: Any) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_count, args=(batch,)), axis=None)

    return count_batch
