"""Training batches, from the host stage to the devices.

batches = run.make_input(num_steps=100)
iterator = batches.make_iterator(position.stream)
with batches.naming_failures(range(0, 320)):
    next(iterator)
"""

import contextlib
import dataclasses
import uuid
from typing import Any

import tensorflow as tf
from absl import logging

from configs.training import DataOptions
from datasets import input_pipeline, service, synthetic
from datasets.bad_images import SkippedImages
from datasets.dataset_factory import Dataset
from datasets.order import Worker
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from preprocessing.augmentation import make_augmentation
from preprocessing.preprocessing_factory import Preprocessing


class BadImages:
    """Counts the distinct examples that all workers have skipped since the start of this process.

    Attributes:
        skipped: The object in which the input pipeline records skipped examples.
    """

    def __init__(
        self, data: DataOptions, dataset: Dataset, preprocessing: Preprocessing, cluster: Cluster = SINGLE_PROCESS
    ) -> None:
        self._limit, self._seed = data.max_bad_images, data.seed
        self._dataset, self._preprocessing, self._cluster = dataset, preprocessing, cluster
        self._numbers: set[int] = set()
        self.skipped = SkippedImages()

    def report(self, end: int) -> None:
        """Logs the examples that were newly skipped before a position of the training stream.

        Raises:
            BadExampleError: too many examples were skipped; raised on all workers.
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
                'repair or remove them, or raise --max_bad_images'
            )


@dataclasses.dataclass(frozen=True)
class TrainInput:
    """The source of a run's batches.

    Attributes:
        dataset: The examples, possibly already decoded.
        cluster: The workers that share each batch.
        bad_images: Counts skipped images; None if a bad image is an error.
    """

    data: DataOptions
    dataset: Dataset
    preprocessing: Preprocessing
    strategy: tf.distribute.Strategy
    cluster: Cluster
    bad_images: BadImages | None = None

    @property
    def worker(self) -> Worker:
        """The share of each batch that this worker reads."""
        return Worker(self.cluster.index, self.cluster.count, own_files=self.data.worker_files == 'own')

    def make_iterator(self, first_image: int) -> Any:
        """Returns an endless iterator of batches for the compiled step.

        Args:
            first_image: Position in the training stream at which it starts.

        Raises:
            InputError: the tf.data service does not answer.
        """
        data, cluster, strategy = self.data, self.cluster, self.strategy
        replicas = strategy.num_replicas_in_sync
        per_replica = distribution.batch_per_replica(data.batch_size, replicas) * data.gradient_accumulation_steps
        share = data.examples_per_step // cluster.count
        if self.dataset.examples.are_synthetic and data.synthetic_images == 'device':
            batch = synthetic.make_batch(self.preprocessing, self.dataset.num_classes, per_replica)
            return distribution.SameBatch(strategy, batch)
        service_job = None
        if data.data_service is not None:
            service.check(data.data_service)
            if cluster.count > 1:  # a new job per start: the service may still know an earlier one
                service_job = cluster.share(uuid.uuid4().hex)
        batches = distribution.distribute(
            strategy,
            lambda: input_pipeline.training_batches(
                self.dataset,
                self.preprocessing,
                share,
                data.seed,
                first_image,
                worker=self.worker,
                replicas=share // per_replica,
                data_service=data.data_service,
                service_job=service_job,
                skipped=None if self.bad_images is None else self.bad_images.skipped,
            ),
        )
        return iter(batches)

    def naming_failures(self, positions: range) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which an input error names the bad example among the given stream positions.

        Raises:
            BadExampleError: as `input_pipeline.naming_failures`.
        """
        skips = self.bad_images is not None
        return input_pipeline.naming_failures(
            self.dataset, self.preprocessing, positions, self.data.seed, self.worker, skips
        )

    def next_images(self, stream: int) -> tf.Tensor:
        """Returns the images of the step at a stream position as the net will see them, without consuming them.

        Returns:
            float32 [batch, height, width, channels].
        """
        size, seed = self.data.batch_size, self.data.seed
        skipped = None if self.bad_images is None else SkippedImages()  # they are counted in training
        batches = input_pipeline.training_batches(self.dataset, self.preprocessing, size, seed, stream, skipped=skipped)
        augmentation = make_augmentation(self.preprocessing, self.dataset.num_examples)
        draws = augmentation.make_draws(tf.constant([seed, stream], tf.int64), size)
        positions, skips = range(stream, stream + size), skipped is not None
        with input_pipeline.naming_failures(self.dataset, self.preprocessing, positions, seed, skips=skips):
            images = next(iter(batches))['image']
        return augmentation.device_train(images, draws)
