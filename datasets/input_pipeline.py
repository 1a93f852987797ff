"""The host stage: from the records of a split to batches, in an order that is a pure function.

    batches = training_batches(dataset, preprocessing, batch_size=32, seed=0, first_position=0)
    batches = evaluation_batches(dataset, preprocessing, batch_size=100)

Training reads an endless stream of positions 0, 1, 2, ...: position p belongs to epoch p // n, and which record it is
follows from (seed, epoch, p % n) alone. So a run can go on from any position, replicas and workers can take any part
of a batch, and nothing but the position need be saved. Each epoch is a permutation of the whole split, computed by a
block cipher one index at a time: there is no shuffle buffer to fill, to size or to restore.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from configs.errors import InputError, first_line
from datasets import tfrecord
from datasets.dataset_factory import Dataset
from preprocessing.preprocessing_factory import Preprocessing

# `tf.random.experimental.index_shuffle` fixes 4 rounds, after which consecutive epochs of 50,000 examples correlate by
# up to 0.76. From 8 on, correlations within and between epochs are those of random permutations.
_SHUFFLE_ROUNDS = 16

_FAILURES_OF_RECORDS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
    UnicodeDecodeError,  # TensorFlow quotes a record's bytes in its message, and fails to decode them
)


def training_batches(
    dataset: Dataset, preprocessing: Preprocessing, batch_size: int, seed: int, first_position: int
) -> tf.data.Dataset:
    """Returns endless batches of the training stream, beginning at `first_position`.

    Returns:
        image: uint8 [batch, height, width, channels];
        label: int32 [batch] in 0 .. num_classes - 1.
    """
    reader = _Reader(dataset, preprocessing)

    def load(position: tf.Tensor, record: tf.Tensor) -> dict[str, tf.Tensor]:
        return reader.training_example(record, tf.stack([tf.constant(seed, tf.int64), position]))

    positions = tf.data.Dataset.range(first_position, tf.int64.max)
    records = _read(reader, positions, lambda position: shuffled(position, dataset.num_examples, seed))
    examples = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(batch_size, drop_remainder=True).prefetch(2).with_options(_options())


def evaluation_batches(
    dataset: Dataset,
    preprocessing: Preprocessing,
    batch_size: int,
    num_examples: int | None = None,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Returns every example once, in the order of the files; the last batch is filled up with masked zeros.

    Args:
        dataset: The split.
        preprocessing: How its images are prepared.
        batch_size: Examples a batch over all replicas, a multiple of their number.
        num_examples: Only the first so many; None is all.
        replicas: Parts that each batch comes in.

    Returns:
        image: float32 [batch / replicas, height, width, channels];
        label: int32 [batch / replicas];
        mask: bool [batch / replicas], False for what only fills up the last batch.
    """
    reader = _Reader(dataset, preprocessing)
    count = dataset.num_examples if num_examples is None else num_examples

    def load(position: tf.Tensor, record: tf.Tensor) -> dict[str, tf.Tensor]:
        del position
        return {**reader.evaluation_example(record), 'mask': tf.constant(True)}

    records = _read(reader, tf.data.Dataset.range(count), lambda position: position)
    examples = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    filling = {key: tf.zeros(spec.shape, spec.dtype) for key, spec in examples.element_spec.items()}
    examples = examples.concatenate(tf.data.Dataset.from_tensors(filling).repeat(-count % batch_size))
    return examples.batch(batch_size // replicas, drop_remainder=True).prefetch(2).with_options(_options())


def shuffled(position: tf.Tensor, num_examples: int, seed: int) -> tf.Tensor:
    """Returns which record (int64 scalar, 0 .. num_examples - 1) stands at a position of the training stream."""
    # For up to 65,536 examples the cipher looks at 8 bits of each word of its key. If the epoch were a word, epoch 256
    # would repeat epoch 0; drawn from seed and epoch, the key has 24 bits of both.
    seed_and_epoch = tf.stack([tf.constant(seed, tf.int64), position // num_examples])
    key = tf.random.stateless_uniform([3], seed_and_epoch, None, None, tf.uint32, alg='philox')
    return tf.raw_ops.RandomIndexShuffle(
        index=position % num_examples,
        seed=key,
        max_index=tf.constant(num_examples - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = True
    return options


def _read(reader: '_Reader', positions: tf.data.Dataset, choose) -> tf.data.Dataset:
    """Returns (position, serialized record) for each position, read several at a time, in order."""

    def read(position: tf.Tensor) -> tf.data.Dataset:
        return reader.record(choose(position)).map(lambda record: (position, record))

    return positions.interleave(
        read, cycle_length=16, block_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


class _Reader:
    """Reads, checks and prepares single examples of a split."""

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing):
        self._dataset = dataset
        self._preprocessing = preprocessing
        index = dataset.index
        self._paths = tf.constant(index.paths)
        self._file_numbers = tf.constant(index.file_numbers)
        self._offsets = tf.constant(index.offsets)

    def record(self, number: tf.Tensor) -> tf.data.Dataset:
        """Returns a data set of record `number` of the split."""
        return tfrecord.read_record(self._paths, self._file_numbers[number], self._offsets[number])

    def training_example(self, record: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tfrecord.parse_example(record)
        image = self._preprocessing.host_train(example['encoded'], seed, example['boxes'])
        return {'image': image, 'label': self._label(example)}

    def evaluation_example(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        example = tfrecord.parse_example(record)
        return {'image': self._preprocessing.host_eval(example['encoded']), 'label': self._label(example)}

    def _label(self, example: dict[str, tf.Tensor]) -> tf.Tensor:
        label = example['label'] - self._dataset.labels_offset
        allowed = tf.logical_and(label >= 0, label < self._dataset.num_classes)
        with tf.control_dependencies([tf.debugging.Assert(allowed, ['label outside the classes', label])]):
            return tf.cast(label, tf.int32)


@contextlib.contextmanager
def naming_failures(
    dataset: Dataset, preprocessing: Preprocessing, positions: range, seed: int | None = None
) -> Iterator[None]:
    """Turns an error of the pipeline, while it gives the examples of `positions`, into one that names the record.

    Raises:
        InputError: file, record, and what is wrong with it; see `explain_failure`.
    """
    try:
        yield
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        explained = explain_failure(error, dataset, preprocessing, positions, seed)
        if explained is None:
            raise
        raise explained from error


def explain_failure(
    error: Exception,
    dataset: Dataset,
    preprocessing: Preprocessing,
    positions: Iterable[int],
    seed: int | None = None,
) -> InputError | None:
    """Finds the record that made the input pipeline fail, and says what is wrong with it.

    TensorFlow's errors name neither file nor record. The order is known, so the records of the positions in question
    are simply prepared again, one at a time.

    Args:
        error: What the pipeline raised.
        dataset: The split that was read.
        preprocessing: How its images are prepared.
        positions: Positions of the stream that the failing call took, in order.
        seed: Seed of the training stream; None for an evaluation.

    Returns:
        The error to raise, or None if all these records are in order, so that the cause lies elsewhere.
    """
    if not isinstance(error, _FAILURES_OF_RECORDS):
        return None
    reader = _Reader(dataset, preprocessing)
    for position in positions:
        if seed is None:
            number, prepare = position, reader.evaluation_example
        else:
            number = int(shuffled(tf.constant(position, tf.int64), dataset.num_examples, seed))
            prepare = functools.partial(reader.training_example, seed=tf.constant([seed, position], tf.int64))
        problem = _problem(reader, dataset, number, prepare)
        if problem:
            return InputError(f'{dataset.index.describe(number)}: {problem}')
    return None


def _problem(reader: _Reader, dataset: Dataset, number: int, prepare: Callable[[tf.Tensor], object]) -> str | None:
    """Returns what is wrong with a record, or None if `prepare` takes it."""
    try:
        record = reader.record(tf.constant(number)).get_single_element()
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):  # the latter where the file now ends
        return 'corrupt: a checksum does not agree; make or copy this file again'
    except tf.errors.OpError as error:
        return f'cannot be read: {first_line(error)}'
    try:
        example = tfrecord.parse_example(record)
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
        return "not a tf.train.Example of slim's schema"
    if not example['encoded']:
        return 'has no image/encoded'
    label = int(example['label'])
    if not 0 <= label - dataset.labels_offset < dataset.num_classes:
        return _label_problem(label, dataset)
    try:
        prepare(record)
    except tf.errors.OpError as error:
        return f'its image cannot be prepared: {first_line(error)}'
    return None


def _label_problem(label: int, dataset: Dataset) -> str:
    if label == tfrecord.MISSING_LABEL:
        return 'has no image/class/label'
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
