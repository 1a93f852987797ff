"""Warnings about nets that do not learn, or whose images or labels do not fit them.

    health = Health(source)                                  # of a run, or of a call of the script
    watched = health.watch(net)                              # in place of the net, and an observer
    (results,) = measure([watched], source, recall_at, [watched])
    health.report(watched, results, 'evaluation at step 500', step=500, images_seen=64_000)

Counting predictions costs no time. Activations and the range of the input are measured on a few images of the first
batch, and on more only while a layer is zero for all of them, or none has contrast.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Set
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from datasets.examples import StoredExamples
from engine.distributed import distribution
from engine.evaluation.measure import EvalSource, Results, Subject, measure
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.subject import ReplicatedNet
from support.errors import InputError

_FEW = 16  # images whose activations and range are measured in every evaluation
_LEAST_CONTRAST = 0.1  # of an image, as a share of the range; digits of 0 to 16 stored as pixels have 0.06
_TOLERANCE = 0.001  # of the range: rounding
_LEAST_EXAMPLES = 50  # fewer say nothing about predictions
# A healthy net may still guess before: on the digits, alexnet_v2 at slim's defaults has a loss of ln(10) at step 250.
_YOUNG_STEPS, _YOUNG_IMAGES_PER_CLASS = 500, 1000
_COLLAPSED, _LARGEST_CLASS = 0.95, 0.6  # share of the predictions, and largest share of the labels, of the one class
_LOSS_TOLERANCE = 0.02  # relative
_SKEWED = 0.9  # share of the most frequent label above which the loss of guessing says nothing
_TRIED, _GAIN = 200, 0.1  # examples of the trial of other preparations, and share of them that a better one gains


class WatchedSubject:
    """Wraps a classifier for `measure`, and observes its predictions; its memory depends only on the number of classes.

    Attributes:
        subject: The classifier.
        preprocessing: The preprocessing of its images.
        output: 'logits' or 'probabilities'.
        temperature: As of the classifier.
    """

    def __init__(self, subject: Subject, source: EvalSource, known: Set[str] = frozenset()):
        """Watches a classifier for all kinds of warnings except those in `known`."""
        classes = source.dataset.num_classes
        self.preprocessing, self.output = subject.preprocessing, subject.output
        self.temperature = subject.temperature
        self.subject, self._source = subject, source
        self._predicted, self._labels = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
        self._right = dict.fromkeys((-1, 0, 1), 0)
        self._images, self._low, self._high = 0, math.inf, -math.inf
        self._contrast = self._net_contrast = 1.0 if 'input' in known else 0.0
        # An exported file does not give its activations.
        self._layers = subject.hidden_layers if isinstance(subject, ReplicatedNet) and 'layer' not in known else None
        self._zero_layers = list(self._layers.output) if self._layers else []

    def score(self, images: Any) -> Any:
        """Returns the classifier's scores; first measures images if that is still needed."""
        if self._source.cluster.is_chief and self._is_suspicious:
            rows = distribution.local_rows(self._source.strategy, images)
            self._look(rows[:_FEW])
            if self._is_suspicious and len(rows) > _FEW:
                self._look(rows[_FEW:])
        return self.subject.score(images)

    @property
    def _is_suspicious(self) -> bool:
        return bool(self._zero_layers) or min(self._contrast, self._net_contrast) < _LEAST_CONTRAST

    def _look(self, images: np.ndarray) -> None:
        """Measures images, float32 [batch, height, width, channels] of `host_eval`: contrast, range, zero layers."""
        self._images += len(images)
        inputs = np.asarray(self.preprocessing.device_eval(images))
        self._low, self._high = min(self._low, inputs.min()), max(self._high, inputs.max())
        low, high = self.preprocessing.value_range
        self._contrast = max(self._contrast, _contrast(images) / self.preprocessing.host_range)
        # Standardised images always have contrast.
        is_per_image = self.preprocessing.normalization.per_image
        self._net_contrast = 1.0 if is_per_image else max(self._net_contrast, _contrast(inputs) / (high - low))
        if self._layers and self._zero_layers:
            activations = self._layers(inputs, training=False)
            self._zero_layers = [name for name in self._zero_layers if not tf.reduce_any(activations[name] != 0)]

    def observe(self, batch: ScoredBatch) -> None:
        """Counts a batch's predictions and labels."""
        predicted, labels = batch.predictions(0), batch.labels
        self._predicted += np.bincount(predicted, minlength=len(self._predicted))
        self._labels += np.bincount(labels, minlength=len(self._labels))
        for shift in self._right:
            self._right[shift] += int((predicted == labels + shift).sum())

    @property
    def _examples(self) -> int:
        return int(self._labels.sum())

    @property
    def _seen(self) -> int:
        """The number of images that were measured, without padding."""
        return min(self._images, self._examples)

    @property
    def family(self) -> str:
        """The family of the preprocessing."""
        return type(self.preprocessing).__name__.lower()

    def causes(self) -> dict[str, str]:
        """Returns warnings, by kind, about images, labels and layers; they apply at any step."""
        found = {'input': self._input(), 'labels': self._shifted_labels(), 'layer': self._dead_layer()}
        return {kind: text for kind, text in found.items() if text}

    def symptoms(self, loss: float) -> dict[str, str]:
        """Returns a warning, by kind, if the net has learned nothing; a loss of NaN means unknown."""
        found = {'loss': self._loss_of_guessing(loss), 'classes': self._one_class()}
        return dict([(kind, text) for kind, text in found.items() if text][:1])

    def _input(self) -> str | None:
        low, high = self.preprocessing.value_range
        margin = _TOLERANCE * (high - low)
        if self._contrast < _LEAST_CONTRAST:
            return (
                f'each of {self._seen} images is nearly of one colour: within an image, pixels differ by at most '
                f'{255 * self._contrast:.3g} of 255. Probably values of another range, such as 0 to 1, were stored as '
                'pixels: scale them to 0..255 and write the data set again'
            )
        is_outside = self._low < low - margin or self._high > high + margin
        if self._net_contrast < _LEAST_CONTRAST or (is_outside and not self.preprocessing.normalization.per_image):
            return (
                f"the net's input has values from {self._low:.4g} to {self._high:.4g}, but {self.family} preprocessing "
                f'declares {low:.4g} to {high:.4g}: it scales twice or not at all. Correct its host_range or '
                'normalization, or choose another --preprocessing_name'
            )
        return None

    def _shifted_labels(self) -> str | None:
        shift = 1 if self._right[1] > self._right[-1] else -1
        upper, lower = slice(1, None), slice(None, -1)
        of_predictions, of_labels = (upper, lower) if shift == 1 else (lower, upper)
        # Chance is high if predictions and labels are each of nearly one class.
        chance = float(self._predicted[of_predictions] @ self._labels[of_labels]) / self._examples
        excess = self._right[shift] - chance
        is_clear = excess > 5 * math.sqrt(chance) + 5 and excess > 0.2 * (self._examples - chance)
        if len(self._labels) < 3 or not is_clear or self._right[shift] < 3 * self._right[0]:
            return None
        shifted, right = self._right[shift] / self._examples, self._right[0] / self._examples
        offset = self._source.dataset.labels_offset - shift
        change, classes = ('higher', 'fewer') if shift == 1 else ('lower', 'more')
        flag = f'give --labels_offset={offset} and a labels.txt with one class {classes}, or ' if offset >= 0 else ''
        return (
            f'labels look shifted by one: the prediction is the label {shift:+d} for {shifted:.1%} of the examples, '
            f"and the label itself for {right:.1%}. Probably the labels and the net's classes begin at different "
            f"numbers, as with slim's background class: {flag}write the data set again with labels one {change}"
        )

    def _dead_layer(self) -> str | None:
        if not self._zero_layers:
            return None
        return (
            f'layer {self._zero_layers[0]} is dead: its outputs were all 0 for each of {self._seen} images. It gets '
            'no gradient and will not recover. Probably the learning rate was too high: train again, or from an '
            'earlier checkpoint, with a lower --learning_rate, --warmup_epochs or --clip_gradient_norm'
        )

    def _one_class(self) -> str | None:
        top = int(self._predicted.argmax())
        predicted, labels = self._predicted[top] / self._examples, self._labels[top] / self._examples
        if predicted < _COLLAPSED or labels > _LARGEST_CLASS:
            return None
        return (
            f'the net predicts class {top} for {predicted:.1%} of the examples, which is the label of {labels:.1%}. '
            'Probably training diverged, or the training examples are nearly all of this class: try a tenth of '
            '--learning_rate, or --warmup_epochs, and look at the labels of --dataset_split_name'
        )

    def _loss_of_guessing(self, loss: float) -> str | None:
        shares = self._labels[self._labels > 0] / self._examples
        most, accuracy = float(shares.max()), self._right[0] / self._examples
        deviation = math.sqrt(most * (1 - most) / self._examples)
        entropy = float(-(shares * np.log(shares)).sum())
        guesses = {'ln of the number of classes': math.log(len(self._labels)), 'the entropy of the labels': entropy}
        near = [what for what, guess in guesses.items() if abs(loss - guess) <= _LOSS_TOLERANCE * guess]
        if not near or most > _SKEWED or accuracy > most + 3 * deviation:
            return None
        return (
            f'the loss, {loss:.4g}, is still that of guessing, {guesses[near[0]]:.4g} ({near[0]}), and the accuracy, '
            f'{accuracy:.2%}, is not above the most frequent class, {most:.2%}. Probably the learning rate is too low '
            'or too high, or labels do not belong to their images: try --learning_rate ten times higher and lower, '
            'and check the labels of a few training images'
        )


class Health:
    """The warnings of a run or a call of the script; the chief logs each kind once."""

    def __init__(self, source: EvalSource, variants: Callable[[], Mapping[str, Subject]] = dict):
        """Takes the examples, and a function that returns the classifier with other preprocessing, by flag.

        These variants are tried once, if the classifier is wrong for most examples.
        """
        self._source, self._variants, self._logged = source, variants, set[str]()

    def watch(self, subject: Subject) -> WatchedSubject:
        """Returns a classifier to measure in place of the given one; it is also the observer of its predictions."""
        return WatchedSubject(subject, self._source, self._logged)

    def report(
        self,
        watched: WatchedSubject,
        results: Results,
        place: str,
        *,
        step: int,
        images_seen: int,
    ) -> None:
        """Logs an evaluation's warnings, on the chief.

        Args:
            watched: The classifier, after `measure`.
            results: What `measure` returned.
            place: The evaluation, which begins the message.
            step: The training step; -1 if unknown.
            images_seen: Examples trained on; -1 if unknown.
        """
        if results['num_examples'] < _LEAST_EXAMPLES or not self._source.cluster.is_chief:
            return
        classes = self._source.dataset.num_classes
        is_young = 0 <= step < _YOUNG_STEPS or 0 <= images_seen < _YOUNG_IMAGES_PER_CLASS * classes
        found = watched.causes()
        if results['accuracy'] < 0.5 and (better := self._better_preparation(watched)):
            found['preparation'] = better
        if not (found or self._logged or is_young):  # whose cause is not known
            found = watched.symptoms(results.get('loss', math.nan))
        for kind, text in found.items():
            if kind not in self._logged:
                logging.warning('%s: %s', place, text)
        self._logged |= found.keys()

    def _better_preparation(self, watched: WatchedSubject) -> str | None:
        """Returns a warning if a classifier is right far more often with other preprocessing of the same images."""
        dataset, variants = self._source.dataset, self._variants()
        self._variants = dict
        if not variants or not isinstance(dataset.examples, StoredExamples):
            return None
        # From the whole split: the first ones may all have the same label.
        every = max(dataset.num_examples // _TRIED, 1)
        sample = dataclasses.replace(dataset, examples=dataset.examples.select(slice(0, every * _TRIED, every)))
        batch_size, cluster = self._source.batch_size, self._source.cluster
        source = EvalSource(sample, self._source.strategy, batch_size=batch_size, cluster=cluster)
        right = _Right()
        try:
            measure([watched.subject, *variants.values()], source, (1,), [right])
        except InputError:  # of a variant: the examples themselves were just read
            return None
        given, *others = np.concatenate(right.batches, axis=1)
        best = int(np.argmax([other.sum() for other in others]))
        won, lost = int((others[best] & ~given).sum()), int((given & ~others[best]).sum())
        if won - lost < max(_GAIN * len(given), 4 * math.sqrt(won + lost)):
            return None
        return (
            f'of {len(given)} examples the net has {others[best].sum()} right with {list(variants)[best]}, and '
            f'{given.sum()} as given, with {watched.family} preprocessing: give that flag if the net was '
            'trained so'
        )


class _Right:
    """An observer that keeps which examples each classifier has right."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def observe(self, batch: ScoredBatch) -> None:
        """Keeps a batch, bool [classifiers, examples]."""
        self.batches.append(np.stack([batch.are_correct(index) for index in range(len(batch.scores))]))


def _contrast(images: np.ndarray) -> float:
    """Returns the largest range of values within a channel of an image, from [batch, height, width, channels]."""
    return float((images.max(axis=(1, 2)) - images.min(axis=(1, 2))).max())
