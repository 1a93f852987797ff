"""The host stage: the order of examples, the batches, and what is said of a record that cannot be used."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from datasets import service, tfrecord
from datasets.dataset_factory import Dataset, get_dataset
from datasets.examples import RecordExamples
from datasets.input_pipeline import (
    endless,
    evaluation_batches,
    naming_failures,
    training_batches,
)
from datasets.order import ONE_WORKER, Worker, make_order
from engine.distributed.distribution import distribute
from preprocessing.base import Preprocessing
from preprocessing.lenet import Lenet
from preprocessing.preprocessing_factory import get_preprocessing
from support.errors import InputError
from tests.runs import data_service

SharedPath = Callable[[str], Path]
MakeDataset = Callable[..., Dataset]
Batches = Iterable[dict[str, tf.Tensor]]

SEED = 3
IMAGE_SIZE = 8
NUM_RECORDS = 53  # more than three rounds of the interleave, and no multiple of a batch

# Preprocessings whose training images depend on the random numbers: the crop's place, or its size too.
RANDOM_PREPROCESSINGS = ('cifarnet', 'inception')


def _pixels(seed: int, height: int = 12, width: int = 10, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def _smooth_pixels(channels: int) -> np.ndarray:
    y, x, channel = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE, :channels]
    return (50 + 10 * y + 5 * x + 20 * channel).astype(np.uint8)


def _png(seed: int = 0) -> bytes:
    return tf.io.encode_png(_pixels(seed)).numpy()


def _example(label: int = 0, encoded: bytes | None = None) -> tf.train.Example:
    return tfrecord.image_example(_png(label) if encoded is None else encoded, 'png', 12, 10, label)


def _without(key: str) -> tf.train.Example:
    example = _example()
    del example.features.feature[key]
    return example


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Returns a function that makes a sharded training split of examples with a number of classes."""

    def make(
        examples: Sequence[tf.train.Example], num_classes: int, shards: int = 1, labels_offset: int = 0
    ) -> Dataset:
        of_shard = np.array_split(np.arange(len(examples)), shards)
        for shard, numbers in enumerate(of_shard):
            path = str(tmp_path / f'train-{shard:05d}-of-{shards:05d}')
            tfrecord.write_records(path, [examples[number] for number in numbers])
        (tmp_path / 'labels.txt').write_text(''.join(f'{label}:{label}\n' for label in range(num_classes)))
        return get_dataset('imagenet', str(tmp_path), 'train', labels_offset)

    return make


@pytest.fixture
def numbered(make_dataset: MakeDataset) -> Dataset:
    """Records whose label is their number, in three shards."""
    return make_dataset([_example(label) for label in range(NUM_RECORDS)], NUM_RECORDS, shards=3)


def _index(dataset: Dataset) -> tfrecord.RecordIndex:
    assert isinstance(dataset.examples, RecordExamples)
    return dataset.examples.index


def _joined(batches: Batches, key: str) -> np.ndarray:
    return np.concatenate([batch[key].numpy() for batch in batches])


def _lenet() -> Preprocessing:
    return get_preprocessing('lenet', IMAGE_SIZE)


# Decoding

# data set -> preprocessing that leaves its images as they are
EXACT = {
    'cifar10': get_preprocessing('cifarnet', 32),
    'mnist': get_preprocessing('lenet', 28, channels=1, source_channels=1),
}


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('name', EXACT)
def test_pixels_and_labels_are_slims_in_the_order_of_the_file(shared_path: SharedPath, name: str, split: str) -> None:
    contents = np.load(shared_path('goldens/tfrecords/contents.npz'))
    dataset = get_dataset(name, str(shared_path(f'goldens/tfrecords/{name}')), split)
    (batch,) = evaluation_batches(dataset, EXACT[name], dataset.num_examples)
    np.testing.assert_array_equal(batch['image'], contents[f'{name}_{split}_images'])
    np.testing.assert_array_equal(batch['label'], contents[f'{name}_{split}_labels'])


def test_gray_images_become_rgb_where_the_net_needs_it(shared_path: SharedPath) -> None:
    contents = np.load(shared_path('goldens/tfrecords/contents.npz'))
    dataset = get_dataset('mnist', str(shared_path('goldens/tfrecords/mnist')), 'test')
    (batch,) = evaluation_batches(dataset, get_preprocessing('lenet', 28), 20)
    np.testing.assert_array_equal(batch['image'], np.repeat(contents['mnist_test_images'], 3, axis=-1))


def test_jpeg_xl_records(shared_path: SharedPath) -> None:
    dataset = get_dataset('cifar10', str(shared_path('data/cifar10')), 'test')
    (batch,) = evaluation_batches(dataset, EXACT['cifar10'], batch_size=16, num_examples=16)
    images = batch['image'].numpy()
    assert np.all(batch['number'] >= 0)
    assert images.shape == (16, 32, 32, 3)
    assert np.all((images >= 0) & (images <= 255) & (images == np.rint(images)))
    assert np.all(images.std(axis=(1, 2)) > 10)  # photographs


ENCODERS: dict[str, Callable[[np.ndarray], tf.Tensor]] = {
    'png': tf.io.encode_png,
    'jpeg': functools.partial(tf.io.encode_jpeg, quality=100, chroma_downsampling=False),
}


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('image_format', ENCODERS)
def test_images_are_recognised_by_their_content(make_dataset: MakeDataset, image_format: str, channels: int) -> None:
    pixels = _smooth_pixels(channels)
    encoded = ENCODERS[image_format](pixels).numpy()
    dataset = make_dataset([_example(1, encoded)], num_classes=2)  # which says that it is a PNG
    (batch,) = evaluation_batches(dataset, _lenet(), batch_size=1)
    expected = np.broadcast_to(pixels, (1, IMAGE_SIZE, IMAGE_SIZE, 3))
    tolerance = 8 if image_format == 'jpeg' else 0  # slim's decoder takes libjpeg's fast, less exact transform
    np.testing.assert_allclose(batch['image'], expected, atol=tolerance)


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_labels_offset_leaves_out_the_background_class(shared_path: SharedPath, split: str) -> None:
    folder = str(shared_path('goldens/tfrecords/imagenet'))
    whole, shifted = (
        _joined(evaluation_batches(get_dataset('imagenet', folder, split, offset), _lenet(), 6), 'label')
        for offset in (0, 1)
    )
    assert whole.min() >= 1
    assert whole.dtype == np.int32
    np.testing.assert_array_equal(shifted, whole - 1)


class _BoxesForImage(Lenet):
    """Gives the boxes that the host stage receives as if they were the image."""

    uses_boxes = True

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        return boxes


def test_boxes_reach_the_host_stage(shared_path: SharedPath) -> None:
    dataset = get_dataset('imagenet', str(shared_path('goldens/tfrecords/imagenet')), 'train')
    batches = list(training_batches(dataset, _BoxesForImage(IMAGE_SIZE), 1, SEED, 0).take(6))
    shapes = {int(batch['label'][0]): batch['image'].shape for batch in batches}
    assert shapes == {
        689: (1, 2, 4),
        304: (1, 1, 4),
        158: (1, 0, 4),
        671: (1, 1, 4),
        791: (1, 0, 4),
        912: (1, 2, 4),
    }
    assert all(batch['image'].dtype == tf.float32 for batch in batches)


# The order of training


def _order(num_examples: int, seed: int, epochs: int) -> np.ndarray:
    """Returns int64 [epochs, num_examples]: the record at each place."""
    order = make_order(num_examples, num_files=1, seed=seed, worker=ONE_WORKER, batch_size=1)
    numbers = order.numbers(tf.range(epochs * num_examples, dtype=tf.int64))
    return numbers.numpy().reshape(epochs, num_examples)


def _is_permutation(order: np.ndarray) -> bool:
    return np.array_equal(np.sort(order), np.arange(len(order)))


@pytest.mark.parametrize('num_examples', [1, 2, 3, 10, NUM_RECORDS])
def test_each_epoch_is_a_permutation(num_examples: int) -> None:
    assert all(_is_permutation(epoch) for epoch in _order(num_examples, SEED, epochs=20))


@pytest.mark.quick('1-1')
@pytest.mark.parametrize(('num_examples', 'permutations'), [(1, 1), (2, 2), (3, 6)])
def test_few_examples_take_every_order_equally_often(num_examples: int, permutations: int) -> None:
    epochs = 600
    _, counts = np.unique(_order(num_examples, SEED, epochs), axis=0, return_counts=True)
    expected = epochs / permutations
    assert len(counts) == permutations
    assert np.all(abs(counts - expected) < 5 * np.sqrt(expected))


def test_each_epoch_has_another_order() -> None:
    orders = _order(20, SEED, epochs=260)  # the cipher takes 8 bits of each word of its key
    assert len(np.unique(orders, axis=0)) == len(orders)


def test_each_seed_gives_another_order() -> None:
    orders = [_order(20, seed, epochs=1)[0] for seed in (0, 1, 256, 2**16, 2**32, 2**63 - 1)]
    assert len(np.unique(orders, axis=0)) == len(orders)


def _standard_scores(a: np.ndarray, b: np.ndarray) -> list[float]:
    """Returns the correlations between rows as multiples of their standard deviation for random permutations."""
    return [np.corrcoef(row_a, row_b)[0, 1] * np.sqrt(len(row_a)) for row_a, row_b in zip(a, b, strict=True)]


def test_order_is_as_uncorrelated_as_random_permutations() -> None:
    orders = _order(300, seed=0, epochs=100)
    files = np.broadcast_to(np.arange(300), orders.shape)
    scores = {
        'neighbours': _standard_scores(orders[:, :-1], orders[:, 1:]),
        'order of the files': _standard_scores(orders, files),
        'next epoch': _standard_scores(orders[:-1], orders[1:]),
    }
    for name, values in scores.items():
        assert np.max(np.abs(values)) < 4.5, name
        assert np.std(values) == pytest.approx(1, abs=0.25), name


def test_stream_keeps_the_order_while_reading_in_parallel(numbered: Dataset) -> None:
    epochs = 3
    batches = training_batches(numbered, _lenet(), NUM_RECORDS, SEED, 0).take(epochs)
    expected = _order(NUM_RECORDS, SEED, epochs)
    np.testing.assert_array_equal(_joined(batches, 'label').reshape(epochs, NUM_RECORDS), expected)


# Workers


def _positions_and_labels(dataset: Dataset, worker: Worker, batch_size: int, num_batches: int) -> list[tuple[int, int]]:
    """Returns (position of the stream, label) of what a worker reads, taken from its batches."""
    order = make_order(dataset.num_examples, dataset.examples.num_files, SEED, worker, batch_size)
    batches = training_batches(dataset, _lenet(), batch_size, SEED, 0, worker=worker).take(num_batches)
    positions = order.positions(tf.constant(0, tf.int64), num_batches * batch_size)
    return list(zip(map(int, positions), map(int, _joined(batches, 'label')), strict=True))


@pytest.mark.quick('2-5')
@pytest.mark.parametrize('shards', [1, 5])
@pytest.mark.parametrize('workers', [1, 2, 3])
def test_workers_together_take_every_example_once_an_epoch(
    make_dataset: MakeDataset, workers: int, shards: int
) -> None:
    dataset = make_dataset([_example(label) for label in range(NUM_RECORDS)], NUM_RECORDS, shards)
    num_batches = 4 * NUM_RECORDS // (4 * workers) + 1
    taken = [
        pair
        for index in range(workers)
        for pair in _positions_and_labels(dataset, Worker(index, workers), 4, num_batches)
    ]
    label_at = dict(taken)
    assert len(label_at) == len(taken)  # no position twice
    for epoch in range(3):
        labels = [label_at[epoch * NUM_RECORDS + place] for place in range(NUM_RECORDS)]
        assert sorted(labels) == list(range(NUM_RECORDS))


@pytest.mark.full
def test_workers_of_one_file_share_the_batches_of_a_single_worker(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([_example(label) for label in range(NUM_RECORDS)], NUM_RECORDS)
    whole = _joined(training_batches(dataset, _lenet(), 6, SEED, 0).take(5), 'label').reshape(5, 6)
    parts = [
        _joined(training_batches(dataset, _lenet(), 3, SEED, 0, worker=Worker(index, 2)).take(5), 'label')
        for index in range(2)
    ]
    np.testing.assert_array_equal(np.hstack([part.reshape(5, 3) for part in parts]), whole)


@pytest.mark.full
def test_workers_with_enough_files_read_their_own(make_dataset: MakeDataset) -> None:
    dataset = make_dataset([_example(label) for label in range(60)], 60, shards=6)
    for index in range(3):
        batches = training_batches(dataset, _lenet(), 5, SEED, 0, worker=Worker(index, 3)).take(12)  # three epochs
        assert sorted(_joined(batches, 'label')) == sorted([*range(index * 20, index * 20 + 20)] * 3)


def test_failure_of_a_worker_is_explained(make_dataset: MakeDataset) -> None:
    examples = [_example(label) for label in range(6)]
    dataset = make_dataset([*examples[:5], _example(5, b'no image')], 6, shards=3)
    worker = Worker(2, 3)
    with (
        pytest.raises(InputError, match=r'train-00002-of-00003, record 1: its image cannot be prepared'),
        naming_failures(dataset, _lenet(), range(6), SEED, worker),
    ):
        list(training_batches(dataset, _lenet(), 2, SEED, 0, worker=worker).take(1))


# The tf.data service


@pytest.mark.quick('24')
@pytest.mark.parametrize('first', [0, 24])
def test_batches_of_a_data_service_are_the_same(numbered: Dataset, first: int) -> None:
    preprocessing = get_preprocessing('inception', IMAGE_SIZE)
    plain = training_batches(numbered, preprocessing, 8, SEED, first).take(9)
    with data_service() as address:
        served = training_batches(numbered, preprocessing, 8, SEED, first, data_service=address).take(9)
        for key in ('image', 'label'):
            np.testing.assert_array_equal(_joined(served, key), _joined(plain, key))


@pytest.mark.full
def test_two_workers_of_a_service_make_each_batch_once(numbered: Dataset) -> None:
    plain = training_batches(numbered, _lenet(), 8, SEED, 0).take(60)
    expected = [batch['label'].numpy().tobytes() for batch in plain]
    with data_service(workers=2) as address:
        served = training_batches(numbered, _lenet(), 8, SEED, 0, data_service=address).take(20)
        taken = [batch['label'].numpy().tobytes() for batch in served]
    assert len(set(taken)) == 20
    assert set(taken) <= set(expected)


@pytest.mark.parametrize(
    ('address', 'message'),
    [
        ('localhost:5000', 'must be grpc://host:port'),
        ('grpc://localhost', 'must be grpc://host:port'),
        ('grpc://localhost:1', 'no dispatcher can be reached there'),
        ('grpc://localhost:99999', 'no dispatcher can be reached there'),
    ],
)
def test_service_that_is_not_there(address: str, message: str) -> None:
    with pytest.raises(InputError, match=f'--data_service={address}: {message}'):
        service.check(address)


# Synthetic data


def _itself(batches: tf.data.Dataset) -> tf.data.Dataset:
    return batches


def test_nothing_tunes_what_the_cores_of_this_machine_prepare(numbered: Dataset) -> None:
    preprocessing = Lenet(IMAGE_SIZE)
    evaluation = evaluation_batches(numbered, preprocessing, 8)
    for batches in (training_batches(numbered, preprocessing, 8, SEED, 0), evaluation, endless(evaluation)):
        assert batches.options().autotune.enabled is False
        assert distribute(tf.distribute.OneDeviceStrategy('CPU:0'), functools.partial(_itself, batches)) is batches


def test_synthetic_batches(numbered: Dataset) -> None:
    dataset = get_dataset('synthetic', None, 'train[:100]', labels_offset=1)
    assert (dataset.num_examples, dataset.num_classes) == (100, 1000)
    preprocessing = get_preprocessing('inception', IMAGE_SIZE)
    batches = training_batches(dataset, preprocessing, 4, SEED, 0)
    assert batches.element_spec == training_batches(numbered, preprocessing, 4, SEED, 0).element_spec
    first, second = batches.take(2)
    np.testing.assert_array_equal(first['image'], second['image'])
    assert len(np.unique(first['image'])) > 200


@pytest.mark.parametrize('replicas', [1, 2])
def test_synthetic_evaluation_counts_each_example_once(replicas: int) -> None:
    dataset = get_dataset('synthetic', None, 'validation[:10]')
    batches = list(evaluation_batches(dataset, _lenet(), 4, replicas=replicas))
    assert len(batches) == 3 * replicas
    assert _joined(batches, 'number').tolist() == [*range(10), -1, -1]
    assert batches[0]['image'].shape == (4 // replicas, IMAGE_SIZE, IMAGE_SIZE, 3)


# Positions


def _stream(
    dataset: Dataset, name: str, seed: int, first: int, last: int, batch_size: int = 1
) -> dict[str, np.ndarray]:
    """Returns the training images and labels at positions `first` to before `last`."""
    batches = training_batches(dataset, get_preprocessing(name, IMAGE_SIZE), batch_size, seed, first)
    chosen = list(batches.take((last - first) // batch_size))
    return {key: _joined(chosen, key) for key in ('image', 'label')}


def _assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for key in ('image', 'label'):
        np.testing.assert_array_equal(actual[key], expected[key])


@pytest.mark.quick('cifarnet')
@pytest.mark.parametrize('name', RANDOM_PREPROCESSINGS)
def test_starting_anywhere_goes_on_with_the_same_stream(numbered: Dataset, name: str) -> None:
    last = 3 * NUM_RECORDS
    whole = _stream(numbered, name, SEED, 0, last)
    for first in (1, 17, NUM_RECORDS, 2 * NUM_RECORDS + 5):
        tail = {key: values[first:] for key, values in whole.items()}
        _assert_equal(_stream(numbered, name, SEED, first, last), tail)


@pytest.mark.full
@pytest.mark.parametrize('name', RANDOM_PREPROCESSINGS)
def test_stream_does_not_depend_on_the_size_of_the_parts(numbered: Dataset, name: str) -> None:
    """Replicas take batch_size / replicas examples in turn."""
    singly = _stream(numbered, name, SEED, 40, 80)
    for batch_size in (2, 5, 20):
        _assert_equal(_stream(numbered, name, SEED, 40, 80, batch_size), singly)


@pytest.mark.quick('inception')
@pytest.mark.parametrize('name', RANDOM_PREPROCESSINGS)
def test_augmentation_differs_between_epochs_and_seeds(make_dataset: MakeDataset, name: str) -> None:
    dataset = make_dataset([_example(1)], num_classes=2)
    first, second = (_stream(dataset, name, seed, 0, 20)['image'] for seed in (0, 1))
    assert len(np.unique(first, axis=0)) > 10
    assert not np.array_equal(first, second)


def test_training_batches_are_what_they_say(numbered: Dataset) -> None:
    spec = training_batches(numbered, get_preprocessing('inception', IMAGE_SIZE), 4, SEED, 0).element_spec
    assert spec == {
        'image': tf.TensorSpec([4, IMAGE_SIZE, IMAGE_SIZE, 3], tf.uint8),
        'label': tf.TensorSpec([4], tf.int32),
    }


@pytest.mark.parametrize('num_examples', [1, 2, 3])
def test_training_on_very_few_examples(make_dataset: MakeDataset, num_examples: int) -> None:
    dataset = make_dataset([_example(label) for label in range(num_examples)], num_classes=3)
    labels = _joined(training_batches(dataset, _lenet(), 4, SEED, 0).take(3), 'label')
    assert np.bincount(labels).tolist() == [12 // num_examples] * num_examples


# Evaluation


@pytest.mark.quick('53-1-None', '54-2-None', '20-2-41')
@pytest.mark.parametrize(
    ('batch_size', 'replicas', 'num_examples'),
    [
        (20, 1, None),
        (20, 2, None),
        (NUM_RECORDS, 1, None),
        (NUM_RECORDS + 1, 2, None),
        (100, 1, None),  # larger than the split
        (100, 2, None),  # so that the second replica has filling only
        (20, 1, 40),
        (20, 2, 41),
        (2, 2, 1),
    ],
)
def test_evaluation_takes_every_example_once(
    numbered: Dataset, batch_size: int, replicas: int, num_examples: int | None
) -> None:
    batches = list(evaluation_batches(numbered, _lenet(), batch_size, num_examples, replicas))
    count = NUM_RECORDS if num_examples is None else num_examples
    full_batches = -(-count // batch_size)
    assert len(batches) == full_batches * replicas
    assert {len(batch['label']) for batch in batches} == {batch_size // replicas}

    mask = _joined(batches, 'number') >= 0
    filling = full_batches * batch_size - count
    assert mask.tolist() == [True] * count + [False] * filling
    assert _joined(batches, 'label').tolist() == [*range(count), *[0] * filling]
    images = _joined(batches, 'image')
    assert not images[~mask].any()
    centres = [_pixels(number)[2:10, 1:9] for number in range(count)]
    np.testing.assert_array_equal(images[mask], centres)


def test_evaluation_batches_are_what_they_say(numbered: Dataset) -> None:
    batches = evaluation_batches(numbered, get_preprocessing('inception', IMAGE_SIZE), batch_size=4, replicas=2)
    assert batches.element_spec == {
        'image': tf.TensorSpec([2, IMAGE_SIZE, IMAGE_SIZE, 3], tf.float32),
        'label': tf.TensorSpec([2], tf.int32),
        'number': tf.TensorSpec([2], tf.int64),
    }


# Failures

NUM_CLASSES = 5


def _read_all(dataset: Dataset, preprocessing: Preprocessing, seed: int | None) -> list[Any]:
    count = dataset.num_examples
    if seed is None:
        return list(evaluation_batches(dataset, preprocessing, count))
    return list(training_batches(dataset, preprocessing, count, seed, 0).take(1))


def _explained(dataset: Dataset, preprocessing: Preprocessing, seed: int | None) -> str:
    """Returns the message for the failure of reading all of a split once."""
    with (
        pytest.raises(InputError) as raised,
        naming_failures(dataset, preprocessing, range(dataset.num_examples), seed),
    ):
        _read_all(dataset, preprocessing, seed)
    return str(raised.value)


def _labelled(*values: int) -> tf.train.Example:
    example = _example()
    example.features.feature['image/class/label'].int64_list.value[:] = values
    return example


KEYS = 'image/format (bytes), image/height (int64), image/width (int64)'
OTHER_KEYS = 'write the records so, or name other keys by --record_keys=image=KEY,label=KEY'
NO_IMAGE = 'its image cannot be prepared: '
OUTSIDE = 'label {} is outside the 5 classes 0 to 4; '

# what is wrong with a record -> (the record, labels_offset, beginning of what is said of it)
BAD_RECORDS: dict[str, tuple[tf.train.Example, int, str]] = {
    'text for an image': (_example(1, b'not an image'), 0, f'{NO_IMAGE}Unknown image file format. One of '),
    'half a PNG': (_example(1, _png()[:100]), 0, NO_IMAGE),
    'half a JPEG': (_example(1, tf.io.encode_jpeg(_pixels(0)).numpy()[:-100]), 0, NO_IMAGE),
    'empty image': (
        _example(1, b''),
        0,
        f'image/encoded is empty; its keys are image/class/label (int64), image/encoded (bytes), {KEYS}; {OTHER_KEYS}',
    ),
    'no image': (
        _without('image/encoded'),
        0,
        f'has no key image/encoded; its keys are image/class/label (int64), {KEYS}; {OTHER_KEYS}',
    ),
    'no label': (
        _without('image/class/label'),
        0,
        f'has no key image/class/label; its keys are image/encoded (bytes), {KEYS}; {OTHER_KEYS}',
    ),
    'no feature at all': (tf.train.Example(), 0, 'has no key image/encoded; it has no keys at all'),
    'two labels': (_labelled(1, 2), 0, 'image/class/label holds 2 values, and must hold one int64; its keys are '),
    'no value in the label': (_labelled(), 0, 'image/class/label holds no values, and must hold one int64; its keys '),
    'label one too large': (
        _example(5),
        0,
        OUTSIDE.format(5)
        + 'if the labels begin at 1, labels.txt needs a line 0:background and --labels_offset=1 omits it',
    ),
    'label much too large': (_example(9), 0, OUTSIDE.format(9) + 'is labels.txt the one of these files?'),
    'label beyond 32 bits': (_example(2**32), 0, OUTSIDE.format(2**32) + 'is labels.txt the one of these files?'),
    'label below the offset': (
        _example(1),
        2,
        'label 1 is outside the 3 classes 2 to 4; use a --labels_offset of at most 1',
    ),
}


@pytest.mark.quick('*-evaluation', 'half a JPEG-training')
@pytest.mark.parametrize(
    'seed', [pytest.param(None, id='evaluation', marks=pytest.mark.full), pytest.param(SEED, id='training')]
)
@pytest.mark.parametrize('case', BAD_RECORDS)
def test_bad_record_is_named_with_its_fault(make_dataset: MakeDataset, case: str, seed: int | None) -> None:
    bad, labels_offset, problem = BAD_RECORDS[case]
    good = _example(4)
    dataset = make_dataset([good, good, good, good, bad, good], NUM_CLASSES, 2, labels_offset)
    message = _explained(dataset, _lenet(), seed)
    assert message.startswith(f'{_index(dataset).paths[1]}, record 1: {problem}')
    assert message.count('\n') == 0
    assert 'device' not in message  # nothing of TensorFlow's own places
    if not problem.startswith((NO_IMAGE, 'image/class/label')):
        assert message.endswith(problem)


def test_label_too_large_without_labels_txt(tmp_path: Path) -> None:
    tfrecord.write_records(str(tmp_path / 'cifar10_test.tfrecord'), [_example(9), _example(10)])
    dataset = get_dataset('cifar10', str(tmp_path), 'test')
    assert _explained(dataset, _lenet(), None) == (
        f'{tmp_path}/cifar10_test.tfrecord, record 1: label 10 is outside the 10 classes 0 to 9; '
        'list the classes in a labels.txt beside the files, id:name a line, the ids from 0'
    )


def test_following_the_hint_for_labels_from_1_helps(make_dataset: MakeDataset) -> None:
    examples = [_example(label) for label in (1, 2, 3)]
    assert '--labels_offset=1' in _explained(make_dataset(examples, num_classes=3), _lenet(), None)
    dataset = make_dataset(examples, num_classes=4, labels_offset=1)
    assert _joined(_read_all(dataset, _lenet(), None), 'label').tolist() == [0, 1, 2]
    assert dataset.num_classes == 3


def test_box_that_lacks_sides(make_dataset: MakeDataset) -> None:
    example = _example(1)
    example.features.feature['image/object/bbox/ymin'].float_list.value.append(0.5)
    dataset = make_dataset([_example(1), example], NUM_CLASSES)
    message = _explained(dataset, _BoxesForImage(IMAGE_SIZE), SEED)
    problem = 'image/object/bbox/ holds 1 ymin, 0 xmin, 0 ymax, 0 xmax, and must hold all four of each box; its keys '
    assert message.startswith(f'{_index(dataset).paths[0]}, record 1: {problem}')


def _flip_a_bit(dataset: Dataset, record: int) -> None:
    with open(_index(dataset).paths[0], 'r+b') as file:
        place = int(_index(dataset).offsets[record]) + 40
        file.seek(place)
        (value,) = file.read(1)
        file.seek(place)
        file.write(bytes([value ^ 1]))


def _cut_within(dataset: Dataset, record: int) -> None:
    os.truncate(_index(dataset).paths[0], int(_index(dataset).offsets[record]) + 40)


@pytest.mark.parametrize('seed', [None, SEED], ids=['evaluation', 'training'])
@pytest.mark.parametrize('damage', [_flip_a_bit, _cut_within])
def test_damaged_file_is_named(
    make_dataset: MakeDataset, damage: Callable[[Dataset, int], None], seed: int | None
) -> None:
    dataset = make_dataset([_example(1)] * 6, NUM_CLASSES)
    damage(dataset, 5)
    assert _explained(dataset, _lenet(), seed) == (
        f'{_index(dataset).paths[0]}, record 5: corrupt: a checksum does not match; make or copy this file again'
    )


def test_image_that_only_training_refuses(make_dataset: MakeDataset) -> None:
    """Evaluation pads what is too small for cifarnet's crop."""
    dataset = make_dataset([_example(1)], NUM_CLASSES)
    preprocessing = get_preprocessing('cifarnet', 32)
    assert _explained(dataset, preprocessing, SEED) == (
        f'{_index(dataset).paths[0]}, record 0: its image cannot be prepared: the image is '
        'smaller than its crop; make this file again'
    )
    assert len(_read_all(dataset, preprocessing, None)) == 1


DATA_ERROR = tf.errors.InvalidArgumentError(None, None, 'from elsewhere')
OTHER_ERROR = tf.errors.ResourceExhaustedError(None, None, 'out of memory')


@pytest.mark.parametrize(
    ('error', 'positions', 'seed', 'raised'),
    [
        (DATA_ERROR, [0, 1, 2], None, InputError),
        (DATA_ERROR, [0, 2], None, type(DATA_ERROR)),
        (DATA_ERROR, [0, 2], SEED, type(DATA_ERROR)),
        (OTHER_ERROR, [0, 1, 2], None, type(OTHER_ERROR)),
    ],
)
def test_only_errors_that_examples_of_these_positions_cause_are_explained(
    make_dataset: MakeDataset, error: Exception, positions: list[int], seed: int | None, raised: type[Exception]
) -> None:
    bad = [] if seed is not None else [_example(1, b'not an image')]
    dataset = make_dataset([_example(1), *bad, _example(1)], NUM_CLASSES)
    with pytest.raises(raised), naming_failures(dataset, _lenet(), positions, seed):
        raise error


def test_bytes_that_are_no_text_are_explained(tmp_path):
    """TensorFlow quotes them in its error, and Python then fails to decode the message."""
    path = tmp_path / 'digits_train.tfrecord'
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b'\xff\xff\xffhello')
    examples = RecordExamples(tfrecord.index_files([str(path)]))
    dataset = Dataset('digits', str(tmp_path), 'train', examples, 10, 0, (), 1)
    preprocessing = get_preprocessing('lenet', 8, channels=1, source_channels=1)
    with (
        pytest.raises(InputError, match=r'digits_train.tfrecord, record 0: not a tf.train.Example, but 8 bytes like b'),
        naming_failures(dataset, preprocessing, range(1)),
    ):
        next(iter(evaluation_batches(dataset, preprocessing, 1)))
