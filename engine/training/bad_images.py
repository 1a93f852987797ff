"""Skipping bad images (`--on_bad_image=skip`): names each once, and stops at more than `--max_bad_images`.

bad_images = BadImages(data, dataset, preprocessing, cluster)
training_batches(..., skipped=bad_images.skipped)
bad_images.report(position.stream)      # after some steps
"""

from absl import logging

from configs.training import DataOptions
from datasets import input_pipeline
from datasets.bad_images import SkippedImages
from datasets.dataset_factory import Dataset
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from preprocessing.preprocessing_factory import Preprocessing


class BadImages:
    """Counts the different examples that all workers have skipped since the start of this process.

    Attributes:
        skipped: What the input pipeline notes them in.
    """

    def __init__(
        self, data: DataOptions, dataset: Dataset, preprocessing: Preprocessing, cluster: Cluster = SINGLE_PROCESS
    ) -> None:
        self._limit, self._seed = data.max_bad_images, data.seed
        self._dataset, self._preprocessing, self._cluster = dataset, preprocessing, cluster
        self._numbers: set[int] = set()
        self.skipped = SkippedImages()

    def report(self, end: int) -> None:
        """Logs the examples that were skipped for the first time, before a position of the training stream.

        Raises:
            BadExampleError: they have become too many; in all workers.
        """
        new = {
            number: position
            for position, number in reversed(self.skipped.take(end).items())
            if number not in self._numbers
        }
        for count, (number, position) in enumerate(reversed(new.items()), start=len(self._numbers) + 1):
            problem = input_pipeline.describe_skipped(self._dataset, self._preprocessing, number, self._seed, position)
            logging.warning('skipped (%d of at most %d): %s', count, self._limit, problem)
        for numbers in self._cluster.gather(list(new)):
            self._numbers.update(numbers)
        if len(self._numbers) > self._limit:
            raise input_pipeline.BadExampleError(
                f'--max_bad_images={self._limit}: more images were skipped, {len(self._numbers)}, all named above; '
                'mend or remove them, or allow more'
            )
