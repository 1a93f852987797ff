"""Outcomes of the examples of an evaluation, in columns: the basis of all statistics.

collector = Collector()
measure([subject], source, recall_at, [collector])
statistics.compute(collector.outcomes(), recall_at)     # or the outcomes of `saved_rows.read_rows('p.parquet')`
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from engine.evaluation.metrics import ScoredBatch


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """A classifier's outcomes: arrays with one entry per example, 37 bytes in all.

    Attributes:
        numbers: int64, positions of the examples in their split.
        labels: int32, in the net's numbering of classes; of several correct ones the one with the highest score.
        predictions: int32, the classes with the highest scores.
        correct: bool, whether the prediction counts as right.
        ranks: int32, of the label from 1; 0 if it is not a class of the net, or a score is not finite.
        probabilities: float64, of the label; NaN where the rank is 0.
        confidences: float64, the prediction's probability; NaN if a score is not finite.
    """

    numbers: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    correct: np.ndarray
    ranks: np.ndarray
    probabilities: np.ndarray
    confidences: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def concatenate(cls, parts: Sequence['Outcomes']) -> 'Outcomes':
        """Returns the outcomes of all parts, in their order; without parts, empty ones."""
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                if parts
                else np.zeros(0, _DTYPES[field.name])
                for field in dataclasses.fields(cls)
            }
        )


_DTYPES = {
    'numbers': np.int64,
    'labels': np.int32,
    'predictions': np.int32,
    'correct': np.bool_,
    'ranks': np.int32,
    'probabilities': np.float64,
    'confidences': np.float64,
}


def make_outcomes(**columns: Sequence[float] | np.ndarray) -> Outcomes:
    """Returns outcomes from columns by name, converted to their dtypes."""
    return Outcomes(**{name: np.asarray(values, _DTYPES[name]) for name, values in columns.items()})


class Collector:
    """An observer that keeps the outcomes of one classifier."""

    def __init__(self, index: int = 0):
        """Takes the classifier's index in the batch."""
        self._index = index
        self._parts: list[Outcomes] = []

    def observe(self, batch: ScoredBatch) -> None:
        """Keeps the outcomes of a batch."""
        index, labels = self._index, batch.targets(self._index)
        predictions, ranks = batch.predictions(index), batch.ranks(index)
        classes = np.stack([np.where(ranks > 0, labels, 0), predictions], axis=-1)
        of_labels, confidences = batch.probabilities(index, classes).T
        self._parts.append(
            make_outcomes(
                numbers=batch.numbers,
                labels=labels,
                predictions=predictions,
                correct=batch.are_correct(index),
                ranks=ranks,
                probabilities=np.where(ranks > 0, of_labels, np.nan),
                confidences=confidences,
            )
        )

    def outcomes(self) -> Outcomes:
        """Returns all outcomes so far, in the order of the split."""
        return Outcomes.concatenate(self._parts)
