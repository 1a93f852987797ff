"""Accuracy and recall at k, by counting.

    metrics = ClassificationMetrics(clip_recall_at((1, 5), num_classes))
    counts = tf.zeros(metrics.num_counts, tf.int64)
    counts += metrics.count(logits, labels, mask)      # sum over batches and replicas
    metrics.result(counts)                             # num_examples, accuracy, recall_at_1, recall_at_5

Counts add up exactly, so every split of the examples into batches and replicas gives the same result.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from absl import logging

from preprocessing.mixing import Targets


def clip_recall_at(recall_at: Iterable[int], num_classes: int, *, warn: bool = False) -> tuple[int, ...]:
    """Returns the values of k, those above the number of classes lowered to it, each once, in order."""
    given = tuple(recall_at)
    clipped = tuple(dict.fromkeys(min(k, num_classes) for k in given))
    if warn and clipped != given:
        shown = ','.join(map(str, clipped))
        logging.warning('Recall@k is measured at k = %s: there are %d classes', shown, num_classes)
    return clipped


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Slim's metrics: `Accuracy` by `tf.argmax`, `Recall_k` by `tf.nn.in_top_k`.

    Attributes:
        recall_at: The values of k.
    """

    recall_at: tuple[int, ...] = (5,)

    @property
    def num_counts(self) -> int:
        """How many counts there are: examples, right ones, and hits for each k."""
        return 2 + len(self.recall_at)

    def count(self, logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Counts one batch, on one replica.

        A label is among the top k if fewer than k classes have a greater logit, so ties count in. As in
        `tf.nn.in_top_k` a label that is no class, or a row with a logit that is not finite, is always a miss.

        Args:
            logits: float32 [batch, classes].
            labels: Integers [batch].
            mask: bool [batch]; False for examples that only fill the batch.

        Returns:
            int64 [num_counts], to be summed.
        """
        labels, mask = tf.cast(labels, tf.int64), tf.cast(mask, tf.bool)
        right = tf.argmax(logits, axis=-1) == labels
        ranks = _ranks(logits, labels)
        hits = [mask, right, *(ranks < k for k in self.recall_at)]
        return tf.stack([tf.math.count_nonzero(hit & mask) for hit in hits])

    def result(self, counts: tf.Tensor | np.ndarray) -> dict[str, float]:
        """Returns num_examples, accuracy and recall_at_<k>; of no examples, the shares are NaN.

        Args:
            counts: int64 [num_counts], summed over batches and replicas.
        """
        examples, *hits = (int(count) for count in np.asarray(counts))
        names = ('accuracy', *(f'recall_at_{k}' for k in self.recall_at))
        shares = [hit / examples if examples else float('nan') for hit in hits]
        return {'num_examples': examples, **dict(zip(names, shares, strict=True))}


def count_recognised(logits: tf.Tensor, targets: Targets) -> tf.Tensor:
    """Counts the examples of a training batch whose greatest logit is that of their label.

    A mixed image is recognised as the label with the larger share, as for Keras' `CategoricalAccuracy`.

    Args:
        logits: float32 [batch, classes].
        targets: Labels, and those that they are mixed with.

    Returns:
        int64 scalar.
    """
    labels = targets.labels
    if targets.others is not None and targets.shares is not None:
        labels = tf.where(targets.shares >= 0.5, labels, targets.others)
    return tf.math.count_nonzero(tf.argmax(logits, axis=-1) == tf.cast(labels, tf.int64))


def _ranks(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    # One pass for all k; what cannot be ranked gets a rank beyond every k.
    classes = tf.shape(logits, tf.int64)[-1]
    rankable = (labels >= 0) & (labels < classes) & tf.reduce_all(tf.math.is_finite(logits), axis=-1)
    targets = tf.gather(logits, tf.clip_by_value(labels, 0, classes - 1), axis=-1, batch_dims=1)
    ranks = tf.math.count_nonzero(logits > targets[:, tf.newaxis], axis=-1)
    return tf.where(rankable, ranks, tf.int64.max)
