"""Test-time augmentation: a classifier's probabilities, averaged over several views of each image.

viewed = with_views(subject, config.evaluation, strategy)      # the subject itself without --eval_crops, --eval_scales
(results,) = measure([viewed], source, recall_at=(5,))
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from configs.evaluation import EvalOptions
from engine.evaluation.measure import Results, Subject
from preprocessing.views import Views


class MultiViewSubject:
    """A classifier that averages its probabilities over the views of each image.

    It scores one view of a batch after another, so the classifier needs no more memory than for the batch itself.

    Attributes:
        preprocessing: The classifier's, with `views`.
        output: 'probabilities'.
        temperature: 1: that of the classifier is applied to the logits of each view.
    """

    output, temperature = 'probabilities', 1.0

    def __init__(self, subject: Subject, views: Views, strategy: tf.distribute.Strategy):
        """Wraps a classifier; raises InputError if its preprocessing cannot make these views."""
        self.preprocessing = dataclasses.replace(subject.preprocessing, views=views)
        self._subject = subject
        self._indices = [
            (tf.constant(index), is_mirrored)
            for index in range(views.num_crops)
            for is_mirrored in ((False, True) if views.are_mirrored else (False,))
        ]
        self._select = tf.function(lambda *args: strategy.run(_select, args=args), autograph=False)
        self._average = tf.function(lambda *args: strategy.run(self._mean, args=args), autograph=False)

    def score(self, images: Any) -> Any:
        """Returns mean probabilities, float32 [batch, classes].

        Args:
            images: float32 [batch, num_crops, height, width, channels] from `host_views`, a value per local replica.
        """
        scores = [self._subject.score(self._select(images, *each)) for each in self._indices]
        temperature = tf.constant(self._subject.temperature)
        if isinstance(scores[0], np.ndarray):
            return self._mean(scores, temperature).numpy()
        return self._average(scores, temperature)

    def _mean(self, scores: list[Any], temperature: tf.Tensor) -> tf.Tensor:
        if self._subject.output == 'logits':
            scores = [tf.nn.softmax(each / temperature) for each in scores]
        return tf.add_n(scores) / len(scores)


def _select(images: tf.Tensor, index: tf.Tensor, is_mirrored: bool) -> tf.Tensor:
    """Returns one view of each image, [batch, height, width, channels]."""
    view = images[:, index]
    return tf.reverse(view, axis=[2]) if is_mirrored else view


def with_views(subject: Subject, options: EvalOptions, strategy: tf.distribute.Strategy) -> Subject:
    """Returns a classifier that averages over `--eval_crops` and `--eval_scales`; the given one if there is one view.

    Raises:
        InputError: the classifier's preprocessing cannot make these views.
    """
    views = Views(options.eval_crops, options.eval_scales)
    if views == Views():
        return subject
    if views.are_mirrored and subject.preprocessing.flip_quantity is None:
        name = type(subject.preprocessing).__name__.lower()
        logging.warning(
            '--eval_crops=10 mirrors images, which %s preprocessing does not do in training; --eval_crops=5 does not',
            name,
        )
    return MultiViewSubject(subject, views, strategy)


def describe_views(options: EvalOptions) -> Results:
    """Returns eval_crops and eval_scales for the results of an evaluation; nothing for one view."""
    if Views(options.eval_crops, options.eval_scales) == Views():
        return {}
    return {'eval_crops': options.eval_crops, 'eval_scales': list(options.eval_scales)}


def views_in_report(options: EvalOptions) -> dict[str, str]:
    """Returns a fact for the report of an evaluation: the views of each image; nothing for one view."""
    if not describe_views(options):
        return {}
    scales = ', '.join(f'{scale:g}' for scale in options.eval_scales)
    return {'averaged over': f'{options.eval_crops} crops at {scales} times the size'}
