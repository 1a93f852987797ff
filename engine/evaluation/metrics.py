"""Accuracy, recall at k and loss, from exact counts.

counts = Counts(clip_recall_at((1, 5), num_classes))
counts.observe(batch)                      # called by `measure` with each batch
counts.results()                           # num_examples, accuracy, recall_at_1, recall_at_5, loss
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from engine.optim.losses import softmax_cross_entropy
from preprocessing.mixing import Targets


def clip_recall_at(recall_at: Iterable[int], num_classes: int, *, warn: bool = False) -> tuple[int, ...]:
    """Lowers values of k above the number of classes to it; returns each value once, in the given order."""
    given = tuple(recall_at)
    clipped = tuple(dict.fromkeys(min(k, num_classes) for k in given))
    if warn and clipped != given:
        shown = ','.join(map(str, clipped))
        logging.warning('Recall@k is measured at k = %s: there are %d classes', shown, num_classes)
    return clipped


@dataclasses.dataclass(frozen=True)
class ScoredBatch:
    """A scored batch for observers, without the padding of the last batch.

    What several observers need is computed once, at the first call.

    Attributes:
        numbers: int64 [examples], the position of each in its split.
        labels: int32 [examples], in the net's numbering of classes.
        scores: float32 [examples, classes] for each classifier.
        outputs: 'logits' or 'probabilities' for each classifier.
        right: bool [examples, classes], the right classes, if the label need not be the only one; one at least.
        temperatures: For each classifier; probabilities are softmax(logits / temperature). Without any, 1 each.
    """

    numbers: np.ndarray
    labels: np.ndarray
    scores: tuple[np.ndarray, ...]
    outputs: tuple[str, ...]
    right: np.ndarray | None = None
    temperatures: tuple[float, ...] = ()
    _computed: dict[tuple[str, int], np.ndarray] = dataclasses.field(default_factory=dict, init=False, compare=False)

    def predictions(self, index: int) -> np.ndarray:
        """Returns the classes with the highest scores, int64 [examples]; of equal scores the lowest index.

        As in `tf.argmax`, NaN is below every number.
        """
        scores = self.scores[index]
        return self._once('predictions', index, lambda: np.where(np.isnan(scores), -np.inf, scores).argmax(axis=-1))

    def targets(self, index: int) -> np.ndarray:
        """Returns the right class of each example, int [examples]: its label; of several, that of the highest score.

        Of equal scores it is the lowest index, as in `predictions`: a prediction is right if it is the target.
        """
        return self._once('targets', index, lambda: self._best_right(index))

    def _best_right(self, index: int) -> np.ndarray:
        if self.right is None:
            return self.labels
        scores = self.scores[index]
        of_right = np.where(self.right & ~np.isnan(scores), scores, -np.inf)
        first = self.right.argmax(axis=-1)
        return np.where(np.isneginf(of_right.max(axis=-1)), first, of_right.argmax(axis=-1))

    def are_correct(self, index: int) -> np.ndarray:
        """Returns whether predictions are right, bool [examples]."""
        return self.predictions(index) == self.targets(index)

    def ranks(self, index: int) -> np.ndarray:
        """Returns `label_ranks` of the targets, int64 [examples]."""
        return self._once('ranks', index, lambda: label_ranks(self.scores[index], self.targets(index)))

    def probabilities(self, index: int, classes: np.ndarray) -> np.ndarray:
        """Returns probabilities, by a softmax of logits divided by the temperature.

        Args:
            index: The classifier.
            classes: Integers [examples, k], classes of each example.

        Returns:
            float64 [examples, k]; NaN for all classes of an example with scores that are not finite.
        """
        scores = self.scores[index]
        chosen = np.take_along_axis(scores, classes, axis=-1).astype(np.float64)
        if self.outputs[index] == 'logits':
            temperature = self.temperatures[index] if self.temperatures else 1.0
            normalizers = self._once('normalizers', index, lambda: _log_sum_exp(scores, temperature))
            chosen = np.exp(chosen / temperature - normalizers[:, np.newaxis])
        return np.where(self.are_finite(index)[:, np.newaxis], chosen, np.nan)

    def are_finite(self, index: int) -> np.ndarray:
        """Returns whether all scores of an example are finite, bool [examples]."""
        return self._once('finite', index, lambda: np.isfinite(self.scores[index]).all(axis=-1))

    def _once(self, name: str, index: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        if (name, index) not in self._computed:
            self._computed[name, index] = compute()
        return self._computed[name, index]


def _log_sum_exp(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Returns log(sum(exp(logits / temperature))), float64 [examples], of float32 [examples, classes]."""
    with np.errstate(invalid='ignore'):  # of rows that are not finite
        highest = logits.max(axis=-1, keepdims=True)
        sums = np.exp((logits - highest) / np.float32(temperature)).sum(axis=-1, dtype=np.float64)
        return highest[:, 0].astype(np.float64) / temperature + np.log(sums)


class Observer(Protocol):
    """The interface of an object that receives every scored batch."""

    def observe(self, batch: ScoredBatch) -> None:
        """Called once for each batch, in every worker, in the order of the split."""


class Counts:
    """Slim's metrics of one classifier: `Accuracy` by `tf.argmax`, `Recall_k` by `tf.nn.in_top_k`, and loss.

    Counts add up exactly, so the batch size does not affect the metrics. This is the first observer of every
    evaluation.
    """

    def __init__(self, recall_at: Sequence[int], output: str = 'logits', index: int = 0):
        """Takes the values of k, the classifier's output ('logits' or 'probabilities') and its index in the batch."""
        self._recall_at, self._output, self._index = recall_at, output, index
        self._examples, self._right, self._loss = 0, 0, 0.0
        self._hits = np.zeros(len(recall_at), np.int64)

    def observe(self, batch: ScoredBatch) -> None:
        """Counts a batch."""
        scores, labels = batch.scores[self._index], batch.targets(self._index)
        self._examples += len(labels)
        self._right += int(batch.are_correct(self._index).sum())
        if self._output == 'logits':
            with tf.device('CPU:0'):
                self._loss += softmax_cross_entropy(scores, labels).numpy().sum(dtype=np.float64)
        ranks = batch.ranks(self._index)
        self._hits += [int(((ranks > 0) & (ranks <= k)).sum()) for k in self._recall_at]

    def results(self) -> dict[str, Any]:
        """Returns num_examples, accuracy, recall_at_<k> and, for logits, loss; without examples they are NaN."""
        names = ('accuracy', *(f'recall_at_{k}' for k in self._recall_at))
        sums: dict[str, float] = dict(zip(names, (self._right, *map(int, self._hits)), strict=True))
        if self._output == 'logits':
            sums['loss'] = self._loss
        means = {name: total / self._examples if self._examples else float('nan') for name, total in sums.items()}
        return {'num_examples': self._examples, **means}


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the rank of each label, int64 [examples]: 1 plus the number of classes with a greater score.

    Ties count in favour of the label. As in `tf.nn.in_top_k`, a label outside the classes, or a row with a non-finite
    score, is never among the top k: its rank is 0.

    Args:
        scores: float32 [examples, classes].
        labels: Integers [examples].
    """
    ranks = np.zeros(len(labels), np.int64)
    rankable = (labels >= 0) & (labels < scores.shape[1]) & np.isfinite(scores).all(axis=-1)
    scores, labels = scores[rankable], labels[rankable]
    of_labels = np.take_along_axis(scores, labels[:, np.newaxis], axis=-1)
    ranks[rankable] = (scores > of_labels).sum(axis=-1) + 1
    return ranks


def count_recognised(logits: tf.Tensor, targets: Targets) -> tf.Tensor:
    """Counts the examples of a training batch whose greatest logit belongs to their label.

    The label of a mixed image is the one with the larger share, as in Keras' `CategoricalAccuracy`.

    Args:
        logits: float32 [batch, classes].
        targets: Labels, and the labels that they are mixed with.

    Returns:
        int64 scalar.
    """
    labels = targets.labels
    if targets.others is not None and targets.shares is not None:
        labels = tf.where(targets.shares >= 0.5, labels, targets.others)
    return tf.math.count_nonzero(tf.argmax(logits, axis=-1) == tf.cast(labels, tf.int64))
