r"""The examples of a split, accessed by number, from TFRecords or image files.

    examples = RecordExamples(tfrecord.index_files(paths))
    len(examples), examples.describe(7)                      # 1437, 'digits_train.tfrecord, record 7'
    examples.check(7)                                        # {'image': b'\\x89PNG...', 'label': 4, 'boxes': []}
    numbers.map(examples.load, num_parallel_calls=2)         # the same in tf.data, in parallel

An example has `image`: string scalar, an image file's bytes (from a cache: uint8 [height, width, channels]);
`label`: int64 scalar; `boxes`: float32 [boxes, 4], (ymin, xmin, ymax, xmax) as shares of the image's sides.
"""

import abc
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow as tf

from datasets import record_faults, tfrecord
from support.errors import InputError, first_line

Example = dict[str, tf.Tensor]
T = TypeVar('T')
_DECODING = 2  # increase when decoding changes, so that caches are rebuilt


# Access by number lets slices, order, workers and caches treat TFRecords, folders and TFDS alike.
class Examples(abc.ABC):
    """Examples with random access.

    Attributes:
        advice: What to do about a damaged example, for messages.
        are_synthetic: Whether they are noise, which is generated in batches and never read or cached.
    """

    advice: ClassVar[str] = 'make this file again'
    are_synthetic: ClassVar[bool] = False

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    @abc.abstractmethod
    def num_files(self) -> int:
        """The number of files that hold the examples."""

    @abc.abstractmethod
    def load(self, number: tf.Tensor, with_boxes: bool = True) -> Example:
        """Reads one example, inside or outside tf.data.

        Args:
            number: int64 scalar.
            with_boxes: Whether to read its boxes; False returns none and is faster.

        Raises:
            tf.errors.OpError: When run; `check` explains the error.
        """

    @abc.abstractmethod
    def describe(self, number: int) -> str:
        """Returns the place of an example, for messages."""

    @abc.abstractmethod
    def check(self, number: int) -> Example:
        """Returns one example, outside tf.data.

        Raises:
            InputError: What is wrong with the example; `describe` gives its place.
        """

    def prepare(self, number: tf.Tensor, make: Callable[[Example], T], with_boxes: bool = True) -> T:
        """Returns `make(example)`, inside or outside tf.data; arguments as in `load`."""
        return make(self.load(number, with_boxes))

    def not_an_image(self, number: int) -> str | None:
        """Describes what an example holds instead of an image, with advice; None if unknown."""
        found = record_faults.not_an_image(self.check(number)['image'].numpy())
        return found and f'it is {found}'

    def image_problem(self, number: int, doing: str, error: Exception) -> str:
        """Returns the message for an example whose image raised `error`; `doing` names the operation that failed."""
        found = self.not_an_image(number)
        return found or f'its image cannot be {doing}: {first_line(error)}; {self.advice}'


class StoredExamples(Examples):
    """Examples as the data set stores them, before any cache; they can be sliced and concatenated."""

    @abc.abstractmethod
    def __add__(self, other: Any) -> 'StoredExamples':
        """Returns these examples followed by `other`, of the same kind."""

    @abc.abstractmethod
    def select(self, numbers: slice) -> 'StoredExamples':
        """Returns the examples in a range of numbers."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Returns a digest of the examples and their order; copying the files does not change it."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Returns a digest of the examples and of their files' sizes and times."""

    def file_name(self, number: tf.Tensor) -> tf.Tensor:
        """Returns the name of an example's image file, a string scalar, '' if unknown; in tf.data, as `load`."""
        del number
        return tf.constant('')


def _digest(lines: Iterable[str], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f'{line}\n'.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _files(paths: Sequence[str], schema: tfrecord.Schema | None = None) -> Iterator[str]:
    """Yields lines that change when the files of a cache change."""
    yield f'{tf.__version__} {_DECODING} {schema}'  # another version may decode otherwise
    for path in paths:
        place = '/'.join(path.split('/')[-3:-1])  # with the class; the whole path changes when a folder is moved
        yield f'{place} {tfrecord.file_key(path)}'


@dataclasses.dataclass(frozen=True)
class RecordExamples(StoredExamples):
    """Records of TFRecord files.

    Attributes:
        index: All records of the files.
        schema: The keys of the records.
        numbers: int64 [examples], records in the index; None selects all.
    """

    index: tfrecord.RecordIndex
    schema: tfrecord.Schema = tfrecord.SLIM_SCHEMA
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __add__(self, other: 'RecordExamples') -> 'RecordExamples':
        numbers = np.concatenate([self._numbers, other._numbers + len(self.index)])
        return RecordExamples(self.index + other.index, self.schema, numbers)

    @functools.cached_property
    def _numbers(self) -> np.ndarray:
        return np.arange(len(self.index)) if self.numbers is None else self.numbers

    @functools.cached_property
    def _places(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        index, numbers = self.index, self._numbers
        with tf.init_scope():  # the functions of tf.data share them
            return tuple(map(tf.constant, (index.paths, index.file_numbers[numbers], index.offsets[numbers])))

    @functools.cached_property
    def num_files(self) -> int:
        return len(np.unique(self.index.file_numbers[self._numbers]))

    def select(self, numbers: slice) -> 'RecordExamples':
        return dataclasses.replace(self, numbers=self._numbers[numbers])

    def fingerprint(self) -> str:
        return _digest(_files(self.index.paths, self.schema), self._numbers)

    def identity(self) -> str:
        names = map(os.path.basename, self.index.paths)
        return _digest(names, self.index.file_numbers, self.index.offsets, self._numbers)

    def _record(self, number: tf.Tensor) -> tf.Tensor:
        paths, file_numbers, offsets = self._places
        return tfrecord.read_record(paths, file_numbers[number], offsets[number])

    def load(self, number: tf.Tensor, with_boxes: bool = True) -> Example:
        schema = self.schema if with_boxes else dataclasses.replace(self.schema, boxes=None)
        return tfrecord.parse_example(self._record(number), schema)

    def file_name(self, number: tf.Tensor) -> tf.Tensor:
        return tfrecord.parse_file_name(self._record(number))

    def describe(self, number: int) -> str:
        return self.index.describe(int(self._numbers[number]))

    def check(self, number: int) -> Example:
        try:
            record = self._record(tf.constant(number))
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):  # the latter if the file has been shortened
            raise InputError('corrupt: a checksum does not match; make or copy this file again') from None
        except tf.errors.OpError as error:
            raise InputError(f'cannot be read: {first_line(error)}') from error
        try:
            example = tfrecord.parse_example(record, self.schema)
        except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
            problem = record_faults.problem_of(record.numpy(), self.schema)
            raise InputError(problem or f'not a tf.train.Example of {self.schema.name}') from error
        if not example['image'] or example['label'] == tfrecord.MISSING_LABEL:  # both defaults can also be real values
            problem = record_faults.problem_of(record.numpy(), self.schema)
            if problem is not None:
                raise InputError(problem)
        return example

    def not_an_image(self, number: int) -> str | None:
        record = self._record(tf.constant(number)).numpy()
        others = record_faults.single_values(record)
        found = record_faults.not_an_image(others.pop(self.schema.image, b''), others)
        return found and f'{self.schema.image} is {found}'


@dataclasses.dataclass(frozen=True)
class FileExamples(StoredExamples):
    """Image files.

    Attributes:
        paths: The files.
        labels: int64 [examples].
    """

    advice: ClassVar[str] = 'remove it, or convert the folder with --max_bad_images'

    paths: Sequence[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def __add__(self, other: 'FileExamples') -> 'FileExamples':
        return FileExamples([*self.paths, *other.paths], np.concatenate([self.labels, other.labels]))

    @property
    def num_files(self) -> int:
        return len(self)

    def select(self, numbers: slice) -> 'FileExamples':
        return FileExamples(self.paths[numbers], self.labels[numbers])

    def fingerprint(self) -> str:
        return _digest(_files(self.paths), self.labels)

    def identity(self) -> str:
        in_class_folders = ('/'.join(path.split('/')[-2:]) for path in self.paths)
        return _digest(in_class_folders, self.labels)

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():  # the functions of tf.data share them
            return tf.constant(self.paths), tf.constant(self.labels, tf.int64)

    def load(self, number: tf.Tensor, with_boxes: bool = True) -> Example:
        del with_boxes  # there are none
        paths, labels = self._tensors
        return {'image': tf.io.read_file(paths[number]), 'label': labels[number], 'boxes': tf.zeros([0, 4])}

    def file_name(self, number: tf.Tensor) -> tf.Tensor:
        return self._tensors[0][number]

    def describe(self, number: int) -> str:
        return self.paths[number]

    def check(self, number: int) -> Example:
        try:
            return self.load(tf.constant(number))
        except tf.errors.OpError as error:
            raise InputError(f'cannot be read: {first_line(error)}') from error
