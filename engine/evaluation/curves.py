"""Precision-recall curves from counts at thresholds, in memory that does not grow with the examples.

curves = PrecisionRecall(num_classes=10)
measure([subject], source, recall_at, [curves])
curves.counts()[3]                       # of class 3: true and false positives at each threshold
"""

import numpy as np

from engine.evaluation.metrics import ScoredBatch

MOST_CURVES = 20  # with more classes, one of all of them
NUM_THRESHOLDS = 201  # TensorBoard's: 0, 0.005, ..., 1


class PrecisionRecall:
    """An observer that counts true and false positives per class at each threshold of the probability.

    Classes are one against the rest. Above `MOST_CURVES` classes, counts are added over the classes, which gives the
    micro average. Examples with scores that are not finite are left out.

    Attributes:
        is_per_class: Whether there is a curve for each class, instead of one for all.
    """

    def __init__(self, num_classes: int, index: int = 0):
        """Takes the number of classes of the data set, and the classifier's index in the batch."""
        self._index = index
        self.is_per_class = num_classes <= MOST_CURVES
        self._bins = np.zeros((2, num_classes if self.is_per_class else 1, NUM_THRESHOLDS), np.int64)

    def observe(self, batch: ScoredBatch) -> None:
        """Counts a batch."""
        examples, classes = batch.scores[self._index].shape
        everything = np.broadcast_to(np.arange(classes), (examples, classes))
        probabilities = batch.probabilities(self._index, everything)
        is_label = batch.labels[:, np.newaxis] == np.arange(classes) if batch.right is None else batch.right
        finite = batch.are_finite(self._index)
        highest = (np.clip(probabilities[finite], 0, 1) * (NUM_THRESHOLDS - 1)).astype(np.intp)
        curves = self._bins.shape[1]
        # A net may have more classes than the data set.
        of_class = np.arange(classes) if self.is_per_class else np.zeros(classes, np.intp)
        for kind, chosen in enumerate((is_label[finite], ~is_label[finite])):
            chosen = chosen & (of_class < curves)
            flat = (of_class * NUM_THRESHOLDS + highest)[chosen]
            self._bins[kind] += np.bincount(flat, minlength=curves * NUM_THRESHOLDS).reshape(curves, NUM_THRESHOLDS)

    def counts(self) -> np.ndarray:
        """Returns true and false positives, int64 [curves, 2, NUM_THRESHOLDS], by rising threshold."""
        return self._bins[..., ::-1].cumsum(axis=-1)[..., ::-1].swapaxes(0, 1)
