"""Images of noise with random labels, made once, to measure everything except reading.

collection = open_synthetic()
batches = training_batches(preprocessing, num_classes=1001, batch_size=32)    # repeats one batch
"""

import numpy as np
import tensorflow as tf

from datasets.collection import Collection
from datasets.examples import Example, StoredExamples
from preprocessing.preprocessing_factory import Preprocessing

_SIDE = 256  # pixels
# Sizes of ILSVRC2012, with slim's background class.
_NUM_EXAMPLES = {'train': 1_281_167, 'validation': 50_000}
_NUM_CLASSES = 1001


class SyntheticExamples(StoredExamples):
    """Examples with one shared image of noise; `training_batches` and `evaluation_batches` deliver them faster."""

    are_synthetic = True

    def __init__(self, num_examples: int):
        self._num_examples = num_examples

    def __len__(self) -> int:
        return self._num_examples

    def __add__(self, other: StoredExamples) -> 'SyntheticExamples':
        return SyntheticExamples(len(self) + len(other))

    @property
    def num_files(self) -> int:
        return 1

    def select(self, numbers: slice) -> 'SyntheticExamples':
        return SyntheticExamples(len(range(len(self))[numbers]))

    def fingerprint(self) -> str:
        return self.identity()

    def identity(self) -> str:
        return f'synthetic {len(self)}'

    def load(self, number: tf.Tensor, with_boxes: bool = True) -> Example:
        del with_boxes  # there are none
        noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
        return {'image': tf.constant(noise), 'label': number % _NUM_CLASSES, 'boxes': tf.zeros([0, 4])}

    def check(self, number: int) -> Example:
        return self.load(tf.constant(number, tf.int64))

    def describe(self, number: int) -> str:
        return f'synthetic example {number}'


def open_synthetic() -> Collection:
    """Opens the synthetic data set, which has the sizes of ILSVRC2012 and needs no folder."""
    return Collection(
        '', tuple(_NUM_EXAMPLES), _NUM_CLASSES, (), 3, lambda split: SyntheticExamples(_NUM_EXAMPLES[split])
    )


def make_batch(preprocessing: Preprocessing, num_classes: int, batch_size: int) -> dict[str, tf.Tensor]:
    """Returns image: uint8 [batch, height, width, channels] and label: int32 [batch], the same for the same sizes."""
    size, random = preprocessing.image_size, np.random.default_rng(0)
    shape = (batch_size, size, size, preprocessing.source_channels)
    return {
        'image': tf.constant(random.integers(0, 256, shape, np.uint8)),
        'label': tf.constant(random.integers(0, num_classes, batch_size, np.int32)),
    }


def training_batches(preprocessing: Preprocessing, num_classes: int, batch_size: int) -> tf.data.Dataset:
    """Returns the batch of `make_batch`, repeated endlessly."""
    return tf.data.Dataset.from_tensors(make_batch(preprocessing, num_classes, batch_size)).repeat()


def evaluation_batches(
    preprocessing: Preprocessing, num_classes: int, batch_size: int, num_examples: int, num_rows: int
) -> tf.data.Dataset:
    """Returns batches as `input_pipeline.evaluation_batches` does.

    Of the `num_rows` rows in all batches, the first `num_examples` are examples.
    """
    batch = make_batch(preprocessing, num_classes, batch_size)
    batch['image'] = tf.cast(batch['image'], tf.float32)
    if preprocessing.views:
        batch['image'] = tf.repeat(batch['image'][:, tf.newaxis], preprocessing.views.num_crops, axis=1)

    def with_numbers(index: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = index * batch_size + tf.range(batch_size, dtype=tf.int64)
        return {**batch, 'number': tf.where(numbers < num_examples, numbers, -1)}

    return tf.data.Dataset.range(num_rows // batch_size).map(with_numbers)
