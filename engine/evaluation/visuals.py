"""Writes the charts of `--summarize_images` into an evaluation's event files.

visuals = Visuals(dataset, preprocessing)
measure([subject], source, recall_at, [collector, visuals.curves])
visuals.write(writer, step, collector.outcomes(), statistics)
"""

from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from datasets.dataset_factory import Dataset
from engine.evaluation.curves import PrecisionRecall
from engine.evaluation.drawings import class_title, draw_confusion, draw_gallery
from engine.evaluation.outcomes import Outcomes
from engine.evaluation.report.content import Gallery
from engine.evaluation.report.galleries import make_galleries
from engine.evaluation.statistics import Statistics
from engine.evaluation.summaries import SummaryWriter
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError, first_line


class Visuals:
    """The charts of one evaluation of one classifier.

    Attributes:
        curves: An observer of the evaluation.
    """

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing):
        self.curves = PrecisionRecall(dataset.num_classes)
        self._dataset, self._preprocessing = dataset, preprocessing
        self._names = [*dataset.label_names, *[''] * (dataset.num_classes - len(dataset.label_names))]

    def write(self, writer: SummaryWriter, step: int, outcomes: Outcomes, statistics: Statistics) -> None:
        """Writes all charts; raises as the writer does."""
        chart = draw_confusion(statistics.confusion, self._names)
        writer.picture(step, 'confusion_matrix', chart, 'Colours by the square root of the share.')
        for gallery in self._galleries(outcomes):
            tag = f'galleries/{gallery.title.lower().replace(" ", "_")}'
            note = f'{gallery.note} Above the label, below the prediction.'
            writer.picture(step, tag, draw_gallery(gallery.pictures, self._names), note)
        for i, counts in enumerate(self.curves.counts()):
            name = f'class_{i}' if self.curves.is_per_class else 'micro_average'
            title = class_title(self._names, i) if self.curves.is_per_class else 'all classes, micro-averaged'
            writer.pr_curve(step, f'precision_recall/{name}', counts, title)

    def _galleries(self, outcomes: Outcomes) -> Sequence[Gallery]:
        """Returns the report's galleries; none, with a warning, if an image cannot be read again."""
        try:
            with tf.device('CPU:0'):
                return make_galleries(outcomes, self._dataset, self._preprocessing, explain=None)
        except (InputError, OSError, tf.errors.OpError) as error:
            logging.warning('no galleries in the event files: %s', first_line(error))
            return []
