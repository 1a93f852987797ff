"""Temperature scaling: fits the temperature of a net's probabilities on a split.

check_storable(subject.path)
with keep_logits() as (kept,):
    measure([subject], source, recall_at, [kept, collector])
    fitted = fit_and_store(kept, collector.outcomes(), subject, dataset, moving_averages=False)

Source: Guo et al., On Calibration of Modern Neural Networks (2017): one number, which minimises the cross-entropy of
softmax(logits / temperature). The order of the scores, and so accuracy, does not change.
"""

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import scipy.optimize
import tensorflow as tf
from absl import logging

from configs import early
from configs.foreign import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from datasets.dataset_factory import Dataset
from engine.classifiers import temperature as temperatures
from engine.classifiers.temperature import FittedTemperature
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.outcomes import Outcomes
from engine.evaluation.statistics import compute
from engine.evaluation.subject import CheckpointSubject
from support.errors import InputError, first_line

_CHUNK = 2**21  # logits in memory at a time
_TOLERANCE = 1e-6  # of the temperature, relative


class KeptLogits:
    """An observer that keeps one classifier's logits in a file, 4 bytes each, of examples with known labels."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._labels: list[np.ndarray] = []
        self._classes = 0

    def observe(self, batch: ScoredBatch) -> None:
        """Keeps a batch.

        Raises:
            InputError: the disk is full.
        """
        known = batch.ranks(0) > 0
        self._classes = batch.scores[0].shape[-1]
        self._labels.append(batch.labels[known])
        try:
            self._file.write(np.ascontiguousarray(batch.scores[0][known]).data)
        except OSError as error:
            raise InputError(
                f'--fit_temperature: keeps the logits in {tempfile.gettempdir()}: {first_line(error)}; TMPDIR names '
                'another folder'
            ) from error

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields logits minus the highest of each example, float64 [examples, classes], and those of the labels."""
        labels = np.concatenate(self._labels)
        size = max(_CHUNK // self._classes, 1)
        self._file.seek(0)
        for first in range(0, len(labels), size):
            of_chunk = labels[first : first + size, np.newaxis]
            content = self._file.read(4 * len(of_chunk) * self._classes)
            logits = np.frombuffer(content, np.float32).reshape(-1, self._classes).astype(np.float64)
            logits -= logits.max(axis=-1, keepdims=True)
            yield logits, np.take_along_axis(logits, of_chunk, axis=-1)[:, 0]


@contextlib.contextmanager
def keep_logits(is_wanted: bool = True) -> Iterator[list[KeptLogits]]:
    """Yields a list with the observer that keeps logits; an empty list if not wanted.

    Its temporary file has no name, so nothing is left of it, however the process ends.
    """
    if not is_wanted:
        yield []
        return
    with tempfile.TemporaryFile() as file:
        yield [KeptLogits(file)]


def check_storable(prefix: str) -> None:
    """Raises InputError, before any work, if a temperature cannot be stored beside a checkpoint."""
    early.check_place('fit_temperature', temperatures.path_beside(prefix))
    temperatures.load(prefix)


def fit_and_store(
    kept: KeptLogits, outcomes: Outcomes, subject: CheckpointSubject, dataset: Dataset, moving_averages: bool
) -> dict[str, Any]:
    """Fits the temperature of a checkpoint's current weights, and stores it beside the checkpoint.

    Args:
        kept: The logits.
        outcomes: Outcomes of the same examples.
        subject: The checkpoint.
        dataset: The examples.
        moving_averages: Whether the weights are the checkpoint's moving averages.

    Returns:
        The `FittedTemperature` as a dict.

    Raises:
        InputError: scores are not finite, no example has a known label, or the temperature cannot be stored.
    """
    not_finite = int(np.isnan(outcomes.confidences).sum())
    if not_finite:
        raise InputError(
            f'--fit_temperature: {not_finite} of {len(outcomes)} examples have scores that are not finite: the '
            f'weights of {subject.path} have diverged; name an earlier checkpoint'
        )
    fitted = FittedTemperature(
        checkpoint=os.path.basename(subject.path),
        step=subject.step,
        moving_averages=moving_averages,
        weights_crc32=temperatures.weights_crc32(subject.model),
        dataset_name=dataset.name,
        dataset_split_name=dataset.split,
        **dataclasses.asdict(calibrate(kept, outcomes)),
    )
    try:
        temperatures.store(subject.path, fitted)
    except (OSError, tf.errors.OpError) as error:
        path = temperatures.path_beside(subject.path)
        raise InputError(f'--fit_temperature: {path}: {first_line(error)}') from error
    return dataclasses.asdict(fitted)


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted temperature and the calibration on the examples that it was fitted on.

    Attributes:
        temperature: From `LOWEST_TEMPERATURE` to `HIGHEST_TEMPERATURE`.
        num_examples: Number of examples.
        cross_entropy_before, cross_entropy_after: Mean cross-entropy at temperature 1, and at this one.
        ece_before, ece_after: Expected calibration error.
    """

    temperature: float
    num_examples: int
    cross_entropy_before: float
    cross_entropy_after: float
    ece_before: float
    ece_after: float


def calibrate(kept: KeptLogits, outcomes: Outcomes) -> Fit:
    """Fits the temperature, and measures the calibration before and after.

    Args:
        kept: The logits.
        outcomes: Outcomes of the same examples; those without a known label are left out.

    Raises:
        InputError: no example has a label of the net's classes.
    """
    known = outcomes.ranks > 0
    if not known.any():
        raise InputError('--fit_temperature: no example has a label that is a class of the net')
    of_known = Outcomes(**{field.name: getattr(outcomes, field.name)[known] for field in dataclasses.fields(Outcomes)})
    temperature = fit_temperature(kept)
    before, after = (_quality(kept, of_known, each) for each in (1.0, temperature))
    return Fit(temperature, len(of_known), before[0], after[0], before[1], after[1])


def fit_temperature(kept: KeptLogits) -> float:
    """Returns the temperature with the lowest mean cross-entropy; warns if it is at a bound.

    The cross-entropy is convex in 1 / temperature, but may have no minimum: if every example is right, it falls
    towards temperature 0; if the scores do not depend on the labels, towards infinity.
    """

    def slope(log_inverse: float) -> float:
        """Returns the derivative of the sum of cross-entropies by 1 / temperature, which rises with it."""
        inverse, total = math.exp(log_inverse), 0.0
        for logits, of_labels in kept.chunks():
            weights = np.exp(inverse * logits)
            total += float((np.einsum('ij,ij->i', weights, logits) / weights.sum(axis=-1) - of_labels).sum())
        return total

    low, high = -math.log(HIGHEST_TEMPERATURE), -math.log(LOWEST_TEMPERATURE)
    at_low, at_high = slope(low), slope(high)
    if at_low < 0 < at_high:
        return math.exp(-scipy.optimize.brentq(slope, low, high, xtol=_TOLERANCE))
    if at_low == at_high:  # all scores of an example are equal
        return 1.0
    bound, because = (
        (LOWEST_TEMPERATURE, 'nearly all examples are right: fit on a split that the net was not trained on')
        if at_high <= 0
        else (HIGHEST_TEMPERATURE, 'the scores do not depend on the labels: the net has not learned this split')
    )
    logging.warning('--fit_temperature: the temperature is at its bound, %g, because %s', bound, because)
    return bound


def _quality(kept: KeptLogits, outcomes: Outcomes, temperature: float) -> tuple[float, float]:
    """Returns mean cross-entropy and expected calibration error at a temperature."""
    loss, confidences = 0.0, []
    for logits, of_labels in kept.chunks():
        sums = np.exp(logits / temperature).sum(axis=-1)
        loss += float((np.log(sums) - of_labels / temperature).sum())
        confidences.append(1 / sums)  # the highest logit is 0
    calibrated = dataclasses.replace(outcomes, confidences=np.concatenate(confidences))
    return loss / len(outcomes), compute(calibrated, (), with_intervals=False).values['ece']
