"""What `--summarize_images` adds to an evaluation's event files: confusion matrix, mistakes, precision-recall curves.

visuals = Visuals(dataset, preprocessing)
measure([subject], source, recall_at, [collector, visuals.curves])
visuals.write(writer, step, collector.outcomes(), statistics)
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from datasets.dataset_factory import Dataset
from engine.evaluation.charts import Tile, confusion_chart, gallery
from engine.evaluation.curves import PrecisionRecall
from engine.evaluation.outcomes import Outcomes
from engine.evaluation.statistics import Statistics
from engine.evaluation.summaries import SummaryWriter
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError, first_line

MOST_MISTAKES = 25


class Visuals:
    """The charts of one evaluation of one classifier.

    Attributes:
        curves: An observer of the evaluation.
    """

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing):
        self.curves = PrecisionRecall(dataset.num_classes)
        self._dataset, self._preprocessing = dataset, preprocessing
        # A class without a name has its number; a net may have more classes than these.
        self._names = [name or str(i) for i, name in enumerate(dataset.label_names)]
        self._names += [str(i) for i in range(len(self._names), dataset.num_classes)]

    def write(self, writer: SummaryWriter, step: int, outcomes: Outcomes, statistics: Statistics) -> None:
        """Writes all charts; raises as the writer does."""
        chart = confusion_chart(statistics.confusion, self._names)
        writer.picture(step, 'confusion_matrix', chart, 'Colours by the square root of the share.')
        tiles = self._mistakes(outcomes)
        if tiles:
            note = f'The up to {MOST_MISTAKES} wrong predictions with the highest probability: label → prediction.'
            writer.picture(step, 'mistakes', gallery(tiles), note)
        for i, counts in enumerate(self.curves.counts()):
            if self.curves.is_per_class:
                writer.pr_curve(step, f'class_{i}', counts, self._names[i])
            else:
                writer.pr_curve(step, 'micro_average', counts, 'micro average')

    def _mistakes(self, outcomes: Outcomes) -> Sequence[Tile]:
        """Returns the most confident mistakes; none, with a warning, if an image cannot be read again."""
        if self._dataset.examples.are_synthetic:
            return []  # noise
        wrong = np.flatnonzero(~outcomes.correct)
        worst = wrong[np.argsort(-outcomes.confidences[wrong], kind='stable')][:MOST_MISTAKES]  # NaN last
        try:
            return [
                Tile(
                    self._image(int(outcomes.numbers[i])),
                    self._name(int(outcomes.labels[i])),
                    self._name(int(outcomes.predictions[i])),
                    float(outcomes.confidences[i]),
                )
                for i in worst
            ]
        except (InputError, OSError, tf.errors.OpError) as error:
            logging.warning('no gallery of mistakes: %s', first_line(error))
            return []

    def _image(self, number: int) -> np.ndarray:
        """Returns an image as the net sees it, before its pixels are scaled: float32 in [0, 1]."""
        with tf.device('CPU:0'):
            example = self._dataset.examples.load(tf.constant(number, tf.int64), with_boxes=False)
            return self._preprocessing.host_eval(example['image']).numpy() / self._preprocessing.host_range

    def _name(self, index: int) -> str:
        return self._names[index] if 0 <= index < len(self._names) else str(index)
