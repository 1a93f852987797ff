"""The input pipeline: from the examples of a split to batches, in an order that is a pure function.

    batches = training_batches(dataset, preprocessing, batch_size=32, seed=0, first_position=0)
    batches = evaluation_batches(dataset, preprocessing, batch_size=100)

Training reads an endless stream of positions (see `order`). The example at a position, and every random number of its
preprocessing, depend only on the seed and the position. So a run can resume at any position, replicas and workers
can take any part of a batch, and only the position must be saved.
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator

import tensorflow as tf

from datasets import synthetic
from datasets.bad_images import MOST_IN_A_ROW, SkippedImages
from datasets.dataset_factory import Dataset
from datasets.examples import Example
from datasets.order import ONE_WORKER, Order, Worker, make_order
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError
from support.processor import usable_cores

_FAILURES_OF_EXAMPLES = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
    UnicodeDecodeError,  # TensorFlow's message quotes a record's bytes, which it fails to decode
)


class BadExampleError(InputError):
    """An example is unusable; the message names it."""


# Nothing here has Python control flow over tensors; autograph's search for it took a second of each start.
without_autograph = tf.autograph.experimental.do_not_convert


def training_batches(
    dataset: Dataset,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    first_position: int,
    *,
    worker: Worker = ONE_WORKER,
    replicas: int = 1,
    data_service: str | None = None,
    service_job: str | None = None,
    skipped: SkippedImages | None = None,
) -> tf.data.Dataset:
    """Returns endless batches of the training stream, beginning at `first_position`.

    Args:
        dataset: The split.
        preprocessing: How its images are prepared.
        batch_size: Examples per batch, in each worker.
        seed: Seed of the order and of all randomness.
        first_position: Number of examples that all workers have already taken.
        worker: The share of each batch to read.
        replicas: Parts into which each batch of a worker is divided.
        data_service: Dispatcher of a tf.data service, grpc://host:port, whose workers prepare the batches. Each batch
            is prepared once, but batches arrive in the order in which the service's workers finish.
        service_job: Name of a job of the service from which several workers draw batches, first come, first served.
        skipped: Records unusable examples, which are then skipped; if None, they are errors.

    Returns:
        image: uint8 [batch / replicas, height, width, channels];
        label: int32 [batch / replicas] in 0 .. num_classes - 1.
    """
    if dataset.examples.are_synthetic:
        return synthetic.training_batches(preprocessing, dataset.num_classes, batch_size // replicas)
    order = _training_order(dataset, seed, ONE_WORKER if service_job else worker, batch_size)

    @without_autograph
    def order_batch(i: tf.Tensor) -> tf.data.Dataset:
        positions = first_position + order.positions(i * batch_size, batch_size)
        return tf.data.Dataset.from_tensor_slices((positions, order.numbers(positions)))

    @without_autograph
    def load(position: tf.Tensor, number: tf.Tensor) -> dict[str, tf.Tensor]:
        of_position = tf.stack([tf.constant(seed, tf.int64), position])
        make = functools.partial(_prepare_training, dataset, preprocessing, seed=of_position)

        def prepare(chosen: tf.Tensor) -> dict[str, tf.Tensor]:
            return dataset.examples.prepare(chosen, make, with_boxes=preprocessing.uses_boxes)

        return prepare(number) if skipped is None else skipped.first_usable(prepare, position, number, order)

    # Numbered by batches, because a service distributes these to its workers: each batch is made once, by one worker,
    # with its own exact content.
    ordered = tf.data.Dataset.range(tf.int64.max // batch_size).flat_map(order_batch)
    calls = usable_cores() if data_service is None else tf.data.AUTOTUNE  # the service has its own cores
    prepared = ordered.map(load, num_parallel_calls=calls, deterministic=True)
    batched = prepared.batch(batch_size // replicas, drop_remainder=True)
    if data_service is not None:
        mode = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        batched = batched.apply(tf.data.experimental.service.distribute(mode, data_service, job_name=service_job))
        return endless(batched.prefetch(2 * replicas))
    return endless(without_tuning(batched.prefetch(2 * replicas)))


def endless(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Marks batches as endless, which TensorFlow cannot infer.

    Otherwise its strategies ask all replicas before each batch whether they still have one.
    """
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the same data set with iterators that use all cores at once and start no tuning thread.

    That thread sleeps 10 ms, then twice as long each time, up to a minute, and an iterator cannot end before it wakes:
    measured, 3 s after 7 s of work, and 12 s after 30. On the cores of one machine, tuning gained nothing.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def evaluation_batches(
    dataset: Dataset,
    preprocessing: Preprocessing,
    batch_size: int,
    num_examples: int | None = None,
    replicas: int = 1,
    worker: Worker = ONE_WORKER,
) -> tf.data.Dataset:
    """Returns every example once, in the order of the files; the last batch is padded with zeros.

    Args:
        dataset: The split.
        preprocessing: How its images are prepared.
        batch_size: Examples per batch over all replicas, a multiple of their number.
        num_examples: Limit on the number of examples; None is all.
        replicas: Parts into which each batch is divided, over all workers; a multiple of their number.
        worker: The share of each batch to read.

    Returns:
        image: float32 [batch / replicas, height, width, channels], or with `preprocessing.views`
            [batch / replicas, num_crops, height, width, channels];
        label: int32 [batch / replicas];
        number: int64 [batch / replicas], position in the split; -1 for padding.
    """
    count = dataset.num_examples if num_examples is None else num_examples
    share, part = batch_size // worker.count, batch_size // replicas
    first_of_share = worker.index * share
    own_count = count // batch_size * share + min(max(count % batch_size - first_of_share, 0), share)
    filling = -(-count // batch_size) * share - own_count
    if dataset.examples.are_synthetic:
        return synthetic.evaluation_batches(preprocessing, dataset.num_classes, part, own_count, own_count + filling)

    @without_autograph
    def load(i: tf.Tensor) -> dict[str, tf.Tensor]:
        number = i // share * batch_size + first_of_share + i % share
        prepared = _prepare_evaluation(dataset, preprocessing, dataset.examples.load(number, with_boxes=False))
        return {**prepared, 'number': number}

    prepared = tf.data.Dataset.range(own_count).map(load, num_parallel_calls=usable_cores(), deterministic=True)
    zeros = {key: tf.zeros(spec.shape, spec.dtype) for key, spec in prepared.element_spec.items()}
    filler = {**zeros, 'number': tf.constant(-1, tf.int64)}
    prepared = prepared.concatenate(tf.data.Dataset.from_tensors(filler).repeat(filling))
    return without_tuning(prepared.batch(part, drop_remainder=True).prefetch(2))


def _training_order(dataset: Dataset, seed: int, worker: Worker, batch_size: int) -> Order:
    return make_order(dataset.num_examples, dataset.examples.num_files, seed, worker, batch_size)


def _prepare_training(
    dataset: Dataset, preprocessing: Preprocessing, example: Example, seed: tf.Tensor
) -> dict[str, tf.Tensor]:
    image = preprocessing.host_train(example['image'], seed, example['boxes'])
    return {'image': image, 'label': _checked_label(dataset, example)}


def _prepare_evaluation(dataset: Dataset, preprocessing: Preprocessing, example: Example) -> dict[str, tf.Tensor]:
    prepare = preprocessing.host_views if preprocessing.views else preprocessing.host_eval
    return {'image': prepare(example['image']), 'label': _checked_label(dataset, example)}


def _checked_label(dataset: Dataset, example: Example) -> tf.Tensor:
    label = example['label'] - dataset.labels_offset
    allowed = tf.logical_and(label >= 0, label < dataset.num_classes)
    with tf.control_dependencies([tf.debugging.Assert(allowed, ['label outside the classes', label])]):
        return tf.cast(label, tf.int32)


@contextlib.contextmanager
def naming_failures(
    dataset: Dataset,
    preprocessing: Preprocessing,
    positions: Iterable[int],
    seed: int | None = None,
    worker: Worker = ONE_WORKER,
    skips: bool = False,
) -> Iterator[None]:
    """Converts an error of the pipeline, while it prepares `positions`, to one that names the example.

    TensorFlow's errors name neither file nor record. As the order is known, the examples at these positions are
    prepared again, one at a time. If all succeed, the cause is elsewhere and the error is raised unchanged.

    Args:
        dataset: The split.
        preprocessing: How its images are prepared.
        positions: Positions of the stream that this call takes, in order.
        seed: Seed of the training stream; None in evaluation.
        worker: The worker that reads.
        skips: Whether bad examples are skipped, so that only many in a row are an error.

    Raises:
        BadExampleError: With file, record and fault.
    """
    try:
        yield
    except _FAILURES_OF_EXAMPLES as error:
        order = None if seed is None else _training_order(dataset, seed, worker, batch_size=1)

        def problem_at(position: int) -> str | None:
            if order is None or seed is None:
                return _named_problem(dataset, preprocessing, position, None)
            number = int(order.numbers(tf.constant([position], tf.int64))[0])
            return _named_problem(dataset, preprocessing, number, (seed, position))

        for position in positions:
            problem = problem_at(position)
            if problem is not None and skips and order is not None:
                following = (position + i * order.stride for i in range(1, MOST_IN_A_ROW))
                if not all(map(problem_at, following)):
                    continue
                problem += f'; nor can any of the {MOST_IN_A_ROW - 1} examples that follow it in the order of training'
            if problem is not None:
                raise BadExampleError(problem) from error
        raise


def describe_skipped(dataset: Dataset, preprocessing: Preprocessing, number: int, seed: int, position: int) -> str:
    """Returns the place of an example that was skipped at a position, and its fault."""
    problem = _named_problem(dataset, preprocessing, number, (seed, position))
    return problem or f'{dataset.examples.describe(number)}: could not be read or prepared when it was its turn'


def _named_problem(
    dataset: Dataset, preprocessing: Preprocessing, number: int, of_position: tuple[int, int] | None
) -> str | None:
    """Returns the place and fault of an example, or None if it is usable; `of_position` is None in evaluation."""
    problem = _problem(dataset, preprocessing, number, of_position)
    return problem and f'{dataset.examples.describe(number)}: {problem}'


def _problem(
    dataset: Dataset, preprocessing: Preprocessing, number: int, of_position: tuple[int, int] | None
) -> str | None:
    try:
        example = dataset.examples.check(number)
    except InputError as error:
        return str(error)
    label = int(example['label'])
    if not 0 <= label - dataset.labels_offset < dataset.num_classes:
        return _label_problem(label, dataset)
    try:
        if of_position is None:
            _prepare_evaluation(dataset, preprocessing, example)
        else:
            _prepare_training(dataset, preprocessing, example, tf.constant(of_position, tf.int64))
    except tf.errors.OpError as error:
        return dataset.examples.image_problem(number, 'prepared', error)
    return None


def _label_problem(label: int, dataset: Dataset) -> str:
    offset, classes = dataset.labels_offset, dataset.num_classes
    message = f'label {label} is outside the {classes} classes {offset} to {offset + classes - 1}'
    if label < 0:
        return f'{message}; labels count from 0: make this file again'
    if label < offset:
        return f'{message}; use a --labels_offset of at most {label}'
    if not dataset.label_names:
        return f'{message}; list the classes in a labels.txt beside the files, id:name a line, the ids from 0'
    if label == offset + classes:
        return (
            f'{message}; if the labels begin at 1, labels.txt needs a line 0:background and --labels_offset=1 omits it'
        )
    return f'{message}; is labels.txt the one of these files?'
