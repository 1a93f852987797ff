"""Statistics of an evaluation from the outcomes of its examples.

statistics = compute(outcomes, recall_at=(1, 5))
statistics.values['f1_macro'], statistics.intervals['f1_macro']
compare_pairs(paths, [outcomes, of_another])[0].p_value

Names and definitions are scikit-learn's where it has them.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
import scipy.stats

from engine.evaluation.outcomes import Outcomes

CALIBRATION_BINS = 15
_CONFIDENCE = 0.95
_AVERAGES = ('macro', 'micro', 'weighted')
_SEED = 0  # of the bootstrap: equal outcomes give equal intervals
_RESAMPLES, _FEW_RESAMPLES, _MANY_EXAMPLES = 1000, 200, 100_000

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ClassStatistics:
    """Statistics of one class.

    Attributes:
        index: The class.
        support: Number of its examples.
        predicted: Number of examples predicted as this class.
        correct: Number of its examples predicted correctly.
        accuracy: correct / support, its recall; NaN without examples.
        precision: The share of its predictions that are right; 0 without predictions.
        f1: The harmonic mean of precision and recall; 0 if both are 0.
        interval: Wilson's 95 % interval of the accuracy.
    """

    index: int
    support: int
    predicted: int
    correct: int
    accuracy: float
    precision: float
    f1: float
    interval: Interval


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """The examples whose confidence lies in (low, high].

    Attributes:
        low, high: The bounds, in [0, 1].
        count: Number of examples.
        confidence: Their mean confidence; NaN without examples.
        accuracy: The share that is right; NaN without examples.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Statistics:
    """All statistics of one classifier on one split.

    Attributes:
        num_examples: Number of examples.
        num_not_finite: Number of examples with scores that are not finite.
        values: accuracy, recall_at_<k>, mean_class_accuracy, {precision,recall,f1}_{macro,micro,weighted},
            cross_entropy and ece (expected calibration error); NaN where they are undefined.
        intervals: 95 % intervals of the values: Wilson's for accuracy and recall_at_<k>, bootstrap's for the others;
            empty if they were not asked for.
        classes: Statistics of each class that is a label or a prediction, by index.
        confusion: int64 [classes, classes], number of examples by label (row) and prediction (column), sparse.
        calibration: `CALIBRATION_BINS` bins of equal width.
    """

    num_examples: int
    num_not_finite: int
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    classes: Sequence[ClassStatistics]
    confusion: scipy.sparse.csr_array
    calibration: Sequence[CalibrationBin]

    def to_json(self, label_names: Sequence[str] = ()) -> dict[str, Any]:
        """Returns `values`, num_not_finite, intervals, per_class, confusion (label, prediction, count) and calibration.

        Undefined shares of a class or a bin are None.
        """
        cells, names = self.confusion.tocoo(), dict(enumerate(label_names))
        return {
            **self.values,
            'num_not_finite': self.num_not_finite,
            'intervals': {name: list(interval) for name, interval in self.intervals.items()},
            'per_class': [
                {'name': names.get(each.index, ''), **_defined(each), 'interval': _defined_list(each.interval)}
                for each in self.classes
            ],
            'confusion': np.stack([cells.row, cells.col, cells.data], axis=-1).tolist(),
            'calibration': [_defined(each) for each in self.calibration],
        }


def _defined(record: ClassStatistics | CalibrationBin) -> dict[str, Any]:
    return dict(zip(dataclasses.asdict(record), _defined_list(dataclasses.asdict(record).values()), strict=True))


def _defined_list(values: Iterable[Any]) -> list[Any]:
    return [None if isinstance(value, float) and np.isnan(value) else value for value in values]


def compute(outcomes: Outcomes, recall_at: Sequence[int], *, with_intervals: bool = True) -> Statistics:
    """Computes all statistics of a classifier.

    Precision, recall and F1 are averaged over the classes that occur as label or prediction, as by scikit-learn, with
    0 where they are undefined; mean_class_accuracy over the classes that have examples, which is its
    balanced_accuracy_score. Negative labels are wrong, and belong to no class.

    Args:
        outcomes: The outcomes; without examples all values are NaN.
        recall_at: Values of k.
        with_intervals: Whether to compute intervals. The bootstrap takes 1,000 resamples; above 100,000 examples, 200.
    """
    count, size = len(outcomes), _num_classes(outcomes)
    is_right = {
        'accuracy': outcomes.correct,
        **{f'recall_at_{k}': (outcomes.ranks > 0) & (outcomes.ranks <= k) for k in recall_at},
    }
    counted = _Resample(outcomes, size)
    others = counted.values(None)
    values = {name: float(right.mean()) if count else np.nan for name, right in is_right.items()} | others
    intervals: dict[str, Interval] = {}
    if with_intervals and count:
        intervals = {name: wilson(int(right.sum()), count) for name, right in is_right.items()}
        intervals |= _bootstrap(counted, others, count)
    known = outcomes.labels >= 0
    cells = (outcomes.labels[known], outcomes.predictions[known])
    confusion = scipy.sparse.coo_array((np.ones(len(cells[0]), np.int64), cells), shape=(size, size)).tocsr()
    return Statistics(
        num_examples=count,
        num_not_finite=int(np.isnan(outcomes.confidences).sum()),
        values=values,
        intervals=intervals,
        classes=_class_statistics(counted),
        confusion=confusion,
        calibration=_calibration(outcomes),
    )


def wilson(successes: int, count: int) -> Interval:
    """Returns Wilson's 95 % interval of a share; (NaN, NaN) if count is 0."""
    if not count:
        return (np.nan, np.nan)
    share, z = successes / count, float(scipy.special.ndtri(0.5 + _CONFIDENCE / 2))
    centre = share + z**2 / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    scale = 1 + z**2 / count
    # Rounding must not leave [0, 1], nor the share itself.
    return (max(0.0, min(share, (centre - spread) / scale)), min(1.0, max(share, (centre + spread) / scale)))


@dataclasses.dataclass(frozen=True)
class Difference:
    """A comparison of two classifiers on the same examples.

    Attributes:
        first, second: Their paths.
        only_first: Number of examples that only the first has right.
        only_second: Number of examples that only the second has right.
        p_value: Of McNemar's exact two-sided test that both are as often right.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p_value: float


def compare_pairs(paths: Sequence[str], outcomes: Sequence[Outcomes]) -> list[Difference]:
    """Compares classifiers in pairs by McNemar's test.

    Args:
        paths: Paths of the classifiers.
        outcomes: Outcomes of each, of the same examples in the same order.
    """
    differences = []
    for (path, first), (other, second) in itertools.combinations(zip(paths, outcomes, strict=True), 2):
        only_first = int((first.correct & ~second.correct).sum())
        only_second = int((second.correct & ~first.correct).sum())
        differing = only_first + only_second
        p_value = scipy.stats.binomtest(only_first, differing).pvalue if differing else 1.0
        differences.append(Difference(path, other, only_first, only_second, float(p_value)))
    return differences


def _num_classes(outcomes: Outcomes) -> int:
    """Returns one more than the highest class that is a label or a prediction."""
    return 1 + max((int(each.max()) for each in (outcomes.labels, outcomes.predictions) if len(each)), default=-1)


class _Resample:
    """Weighted sums over examples; a weight is the number of times that a bootstrap resample has the example."""

    def __init__(self, outcomes: Outcomes, size: int):
        self.size = size
        self._labels = np.where(outcomes.labels >= 0, outcomes.labels, size)
        self._predictions, self._correct = outcomes.predictions, outcomes.correct
        self._hits = np.where(outcomes.correct, self._labels, size)
        with np.errstate(divide='ignore'):  # a probability of 0 costs infinitely much
            self._losses = -np.log(outcomes.probabilities)
        self._bins = _bins(outcomes.confidences)
        self._gaps = np.asarray(outcomes.correct, np.float64) - outcomes.confidences

    def counts(self, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns support, predicted and correct of each class, [classes]."""
        support = np.bincount(self._labels, weights, self.size + 1)[: self.size]
        predicted = np.bincount(self._predictions, weights, self.size)
        hits = np.bincount(self._hits, weights, self.size + 1)[: self.size]
        return support, predicted, hits

    def values(self, weights: np.ndarray | None) -> dict[str, float]:
        """Returns the values that need the bootstrap for their intervals, by name."""
        names = (
            'mean_class_accuracy',
            *(f'{name}_{how}' for how in _AVERAGES for name in ('precision', 'recall', 'f1')),
        )
        total = len(self._labels) if weights is None else weights.sum()
        if not total:
            return dict.fromkeys((*names, 'cross_entropy', 'ece'), np.nan)
        support, predicted, hits = self.counts(weights)
        labelled, occurring = support > 0, (support > 0) | (predicted > 0)
        precision, recall = _ratio(hits, predicted), _ratio(hits, support)
        f1 = _ratio(2 * hits, support + predicted)
        values = [recall[labelled].mean() if labelled.any() else np.nan]
        values += [each[occurring].mean() for each in (precision, recall, f1)]
        all_support, all_predicted, all_hits = support.sum(), predicted.sum(), hits.sum()
        values += [_ratio(all_hits, all_predicted), _ratio(all_hits, all_support)]
        values += [_ratio(2 * all_hits, all_support + all_predicted)]
        values += [_ratio((each * support).sum(), all_support) for each in (precision, recall, f1)]
        losses = self._losses if weights is None else self._losses[weights > 0] * weights[weights > 0]
        gaps = self._gaps if weights is None else self._gaps * weights
        ece = np.abs(np.bincount(self._bins, gaps, CALIBRATION_BINS)).sum() / total
        found = dict(zip(names, map(float, values), strict=True))
        return {**found, 'cross_entropy': float(losses.sum() / total), 'ece': float(ece)}


def _ratio(numerator: Any, denominator: Any) -> Any:
    """Returns a ratio, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator, np.float64), where=denominator > 0)


def _bins(confidences: np.ndarray) -> np.ndarray:
    """Returns the bin of each confidence, intp [examples]; the first bin if it is not finite."""
    finite = np.nan_to_num(confidences)
    return np.clip(np.ceil(finite * CALIBRATION_BINS).astype(np.intp) - 1, 0, CALIBRATION_BINS - 1)


def _bootstrap(counted: _Resample, values: Mapping[str, float], count: int) -> dict[str, Interval]:
    """Returns intervals of the values: the spread of resamples of the examples, around the values.

    Resamples repeat examples, which raises the mean of `ece`, and of precision where classes have few examples, by more
    than the spread: intervals of the resamples themselves would not hold the value.
    """
    random = np.random.default_rng(_SEED)
    resamples: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(_RESAMPLES if count <= _MANY_EXAMPLES else _FEW_RESAMPLES):
        weights = np.bincount(random.integers(0, count, count), minlength=count).astype(np.float64)
        for name, value in counted.values(weights).items():
            resamples[name].append(value)
    return {name: _spread_around(value, np.array(resamples[name]), name) for name, value in values.items()}


def _spread_around(value: float, resampled: np.ndarray, name: str) -> Interval:
    if not np.isfinite(value) or not np.isfinite(resampled).all():
        return (np.nan, np.nan)
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(resampled - resampled.mean(), (tail, 100 - tail)) + value
    return (float(max(low, 0.0)), float(high if name == 'cross_entropy' else min(high, 1.0)))


def _class_statistics(counted: _Resample) -> list[ClassStatistics]:
    support, predicted, hits = counted.counts(None)
    precision, f1 = _ratio(hits, predicted), _ratio(2 * hits, support + predicted)
    return [
        ClassStatistics(
            index=int(index),
            support=int(support[index]),
            predicted=int(predicted[index]),
            correct=int(hits[index]),
            accuracy=float(hits[index] / support[index]) if support[index] else np.nan,
            precision=float(precision[index]),
            f1=float(f1[index]),
            interval=wilson(int(hits[index]), int(support[index])),
        )
        for index in np.flatnonzero((support > 0) | (predicted > 0))
    ]


def _calibration(outcomes: Outcomes) -> list[CalibrationBin]:
    finite = ~np.isnan(outcomes.confidences)
    confidences, correct = outcomes.confidences[finite], outcomes.correct[finite]
    bins = _bins(confidences)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    sums = np.bincount(bins, confidences, CALIBRATION_BINS)
    right = np.bincount(bins, correct, CALIBRATION_BINS)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    return [
        CalibrationBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            count=int(counts[i]),
            confidence=float(sums[i] / counts[i]) if counts[i] else np.nan,
            accuracy=float(right[i] / counts[i]) if counts[i] else np.nan,
        )
        for i in range(CALIBRATION_BINS)
    ]
