"""The batches of training: from the host stage to the devices.

iterator = make_iterator(strategy, config, dataset, preprocessing, position.stream, cluster)
"""

import uuid
from typing import Any

import tensorflow as tf

from configs.config import TrainConfig
from configs.errors import InputError
from datasets import input_pipeline, service, synthetic
from datasets.bad_images import SkippedImages
from datasets.dataset_factory import Dataset
from datasets.order import Worker
from engine import distribution
from engine.cluster.cluster import ALONE, Cluster
from preprocessing.preprocessing_factory import Preprocessing


def cache_mode(config: TrainConfig) -> str:
    """Returns which decoded images are kept: none where another machine decodes them.

    Raises:
        InputError: a cache and a tf.data service are both asked for.
    """
    data = config.data
    if data.data_service is None:
        return data.cache
    if data.cache not in ('auto', 'off'):
        raise InputError(f'--cache={data.cache}: --data_service decodes elsewhere; leave one of them out')
    return 'off'


def make_iterator(
    strategy: tf.distribute.Strategy,
    config: TrainConfig,
    dataset: Dataset,
    preprocessing: Preprocessing,
    first_image: int,
    cluster: Cluster = ALONE,
    skipped: SkippedImages | None = None,
) -> Any:
    """Returns the endless iterator of batches that the compiled step takes, beginning at an image of the stream."""
    data = config.data
    per_replica = distribution.batch_per_replica(strategy, data.batch_size) * data.gradient_accumulation_steps
    share = data.examples_per_step // cluster.count
    if isinstance(dataset.examples, synthetic.SyntheticExamples) and data.synthetic_images == 'device':
        return distribution.SameBatch(strategy, synthetic.make_batch(preprocessing, dataset.num_classes, per_replica))
    service_job = None
    if data.data_service is not None:
        service.check(data.data_service)
        if cluster.count > 1:
            service_job = cluster.share(uuid.uuid4().hex)  # of this start: an earlier one's may still be known there
    batches = distribution.distribute(
        strategy,
        lambda: input_pipeline.training_batches(
            dataset,
            preprocessing,
            share,
            data.seed,
            first_image,
            worker=worker_of(config, cluster),
            replicas=share // per_replica,
            data_service=data.data_service,
            service_job=service_job,
            skipped=skipped,
        ),
    )
    return iter(batches)


def worker_of(config: TrainConfig, cluster: Cluster) -> Worker:
    """Returns which share of each batch this worker reads."""
    return Worker(cluster.index, cluster.count, own_files=config.data.worker_files == 'own')
