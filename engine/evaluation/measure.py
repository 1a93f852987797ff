"""The loop of every evaluation: runs each example of a split once through each classifier.

    source = EvalSource(dataset, strategy, batch_size=100)
    (results,) = measure([ReplicatedNet(model, preprocessing, strategy)], source, recall_at=(5,))
    results['accuracy']

The metrics are the first observer. All observers see the same batches: example numbers, labels and all scores.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from datasets import input_pipeline
from datasets.dataset_factory import Dataset
from datasets.order import Worker
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.evaluation.metrics import Counts, Observer, ScoredBatch, clip_recall_at
from preprocessing.preprocessing_factory import Preprocessing
from support.progress import Progress

Results = dict[str, Any]


class EvaluationStopped(Exception):
    """`should_stop` returned True; nothing was measured."""


class Subject(Protocol):
    """The interface of a classifier for `measure`.

    Attributes:
        preprocessing: The preprocessing of its images.
        output: 'logits' or 'probabilities'.
        temperature: Its probabilities are softmax(logits / temperature).
    """

    preprocessing: Preprocessing
    output: str
    temperature: float

    def score(self, images: Any) -> Any:
        """Returns scores, float32 [batch, classes], of a batch of images; both hold a value per local replica."""


class EvalSource:
    """The batches of an evaluation, which can be read any number of times.

    Attributes:
        dataset: The split.
        strategy: The strategy of the replicas.
        cluster: The workers; each reads its share.
        batch_size: Examples per batch over all replicas, a multiple of their number.
        num_examples: Number of examples to read, from the first.
    """

    def __init__(
        self,
        dataset: Dataset,
        strategy: tf.distribute.Strategy,
        *,
        batch_size: int,
        max_batches: int | None = None,
        cluster: Cluster = SINGLE_PROCESS,
    ):
        replicas = strategy.num_replicas_in_sync
        self.dataset, self.strategy, self.cluster = dataset, strategy, cluster
        self.batch_size = -(-min(batch_size, dataset.num_examples) // replicas) * replicas
        self.num_examples = min(dataset.num_examples, (max_batches or dataset.num_examples) * self.batch_size)
        self._batches: dict[Preprocessing, Iterable[Any]] = {}

    def batches(self, preprocessing: Preprocessing) -> Iterable[Any]:
        """Returns `input_pipeline.evaluation_batches` for this worker's replicas, continued endlessly."""
        if preprocessing not in self._batches:
            make_batches = functools.partial(
                input_pipeline.evaluation_batches,
                self.dataset,
                preprocessing,
                self.batch_size,
                self.num_examples,
                self.strategy.num_replicas_in_sync,
                Worker(self.cluster.index, self.cluster.count),
            )
            self._batches[preprocessing] = distribution.distribute(
                self.strategy, lambda: input_pipeline.endless(make_batches())
            )
        return self._batches[preprocessing]

    def gather(self, value: Any) -> np.ndarray:
        """Returns a distributed value's rows from all replicas of all workers, in the order of the split."""
        return distribution.local_rows(self.strategy, self._all_gather(value) if self.cluster.count > 1 else value)

    @functools.cached_property
    def _all_gather(self) -> Callable[[Any], Any]:
        return tf.function(lambda value: self.strategy.gather(value, axis=0), autograph=False)


def measure(
    subjects: Sequence[Subject],
    source: EvalSource,
    recall_at: Sequence[int],
    observers: Sequence[Observer] = (),
    should_stop: Callable[[], bool] = lambda: False,
    relabel: Callable[[ScoredBatch], ScoredBatch] = lambda batch: batch,
) -> list[Results]:
    """Runs every example of a split once through each classifier and computes the metrics.

    Args:
        subjects: The classifiers; equal preprocessing shares batches.
        source: The examples.
        recall_at: Values of k; values above the number of classes are lowered to it.
        observers: Called with each batch after the metrics.
        should_stop: Called before every batch on every worker.
        relabel: Changes labels and classes of each batch before it is shown to metrics and observers, and may leave
            out examples.

    Returns:
        For each classifier num_examples, accuracy, recall_at_<k> and, if it gives logits, loss: the mean cross-entropy,
        without label smoothing and L2; and images_per_second over all classifiers together.

    Raises:
        EvaluationStopped: `should_stop` returned True on any worker.
        InputError: a record is invalid (the message names file and number), or a worker is lost.
    """
    dataset, cluster = source.dataset, source.cluster
    recall_at = clip_recall_at(recall_at, dataset.num_classes)
    counts = [Counts(recall_at, subject.output, index) for index, subject in enumerate(subjects)]
    streams = {way: iter(source.batches(way)) for way in dict.fromkeys(subject.preprocessing for subject in subjects)}
    num_batches = -(-source.num_examples // source.batch_size)
    num_scored = 0
    start = time.monotonic()
    with Progress('evaluation', total=num_batches, unit='batch') as progress:
        for done in range(num_batches):
            if cluster.any(should_stop()):
                raise EvaluationStopped
            first = done * source.batch_size
            positions = range(first, min(first + source.batch_size, source.num_examples))
            with distribution.naming_lost_workers(cluster):
                batches = {}
                for way, stream in streams.items():
                    with input_pipeline.naming_failures(dataset, way, positions):
                        batches[way] = next(stream)
                batch = _score(subjects, source, batches)
                distribution.batches_taken().assign_add(1)
            num_scored += len(batch.numbers)
            relabelled = relabel(batch)
            if len(relabelled.numbers):
                for observer in (*counts, *observers):
                    observer.observe(relabelled)
            if cluster.is_chief and (done + 1) % max(num_batches // 10, 1) == 0:
                progress.report(done + 1, f'Evaluation [{done + 1}/{num_batches}]')
    if num_scored != source.num_examples:
        raise AssertionError(f'scored {num_scored} of {source.num_examples} examples')
    results = [count.results() for count in counts]
    speed = round(source.num_examples / (time.monotonic() - start), 1)
    return [{**counted, 'images_per_second': speed} for counted in results]


def _score(subjects: Sequence[Subject], source: EvalSource, batches: dict[Preprocessing, Any]) -> ScoredBatch:
    """Runs a batch through each classifier and drops the padding rows."""
    batch = next(iter(batches.values()))
    numbers, labels = source.gather(batch['number']), source.gather(batch['label'])
    scores = [source.gather(subject.score(batches[subject.preprocessing]['image'])) for subject in subjects]
    real = numbers >= 0
    outputs = tuple(subject.output for subject in subjects)
    temperatures = tuple(subject.temperature for subject in subjects)
    return ScoredBatch(
        numbers[real], labels[real], tuple(rows[real] for rows in scores), outputs, temperatures=temperatures
    )
