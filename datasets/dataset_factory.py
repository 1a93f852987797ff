"""Data sets by name.

dataset = get_dataset('imagenet', '/data/imagenet', 'validation', labels_offset=1)
dataset = get_dataset('mnist', '/data/mnist', 'train[:90%]')
dataset = get_dataset('image_folder', '/data/pets', None)       # the split to evaluate
len(dataset.examples), dataset.num_classes, dataset.label_names[0]
"""

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from configs.data import SLIM_NAMES, RecordNames
from datasets import digits, records, slices, synthetic, tfds
from datasets.class_folders import find_folders
from datasets.collection import Collection, DatasetSpec
from datasets.examples import Examples, FileExamples, StoredExamples
from datasets.regular_files import check_file_system, check_local
from datasets.source import shuffled
from support.errors import InputError, unknown_name

# As slim's download_and_convert_*.py and build_imagenet_data.py write them, and the embedded one.
DATASETS = {
    'cifar10': DatasetSpec(('train', 'test'), 'cifar10_{split}.tfrecord', num_classes=10),
    'digits': DatasetSpec(('train', 'test'), digits.FILE_PATTERN, num_classes=10, channels=1, write=digits.write),
    'flowers': DatasetSpec(('train', 'validation'), 'flowers_{split}_*.tfrecord', num_classes=5),
    'imagenet': DatasetSpec(('train', 'validation'), '{split}-*', num_classes=1001),  # class 0: an unused background
    'mnist': DatasetSpec(('train', 'test'), 'mnist_{split}.tfrecord', num_classes=10, channels=1),
}
EMBEDDED = 'digits'
_IMAGE_FOLDER, _SYNTHETIC, _TFDS = 'image_folder', 'synthetic', 'tfds:'


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a data set, or a part of a split.

    Attributes:
        name: Its name, as in `--dataset_name`.
        dataset_dir: The folder that holds the files.
        split: Name of the split, or the slices of splits.
        examples: Its examples.
        num_classes: Number of classes after subtracting `labels_offset`.
        labels_offset: Subtracted from the labels of the examples.
        label_names: Name of each class, or empty if unknown.
        channels: 1 if the images are gray, else 3.
        record_names: Names of its files and keys, if they differ from slim's.
    """

    name: str
    dataset_dir: str
    split: str
    examples: Examples
    num_classes: int
    labels_offset: int
    label_names: tuple[str, ...]
    channels: int
    record_names: RecordNames = SLIM_NAMES

    @property
    def num_examples(self) -> int:
        return len(self.examples)

    def identity(self) -> str:
        """Returns a digest of the examples that does not depend on where their files are; not for cached examples."""
        assert isinstance(self.examples, StoredExamples)
        return self.examples.identity()


def is_there(name: str, dataset_dir: str) -> bool:
    """Returns whether a data set exists in a folder, so that opening it writes nothing there.

    Returns True for data sets that are neither written nor downloaded when missing; opening them reports any error.
    """
    if name.startswith(_TFDS):
        return tf.io.gfile.isdir(os.path.join(dataset_dir, re.split('[/:]', name.removeprefix(_TFDS))[0]))
    spec = DATASETS.get(name)
    if spec is None or spec.write is None:
        return True
    names = [spec.file_pattern.format(split=split) for split in spec.splits]
    return all(tf.io.gfile.exists(os.path.join(dataset_dir, file)) for file in (*names, 'labels.txt'))


def get_dataset(
    name: str,
    dataset_dir: str | None,
    split: str | None,
    labels_offset: int = 0,
    split_flag: str = 'dataset_split_name',
    classes_of_net: Sequence[str] | None = None,
    record_names: RecordNames = SLIM_NAMES,
) -> Dataset:
    """Finds the examples of a split and counts them.

    Args:
        name: A key of `DATASETS`, image_folder, synthetic, or tfds:<name>.
        dataset_dir: Its folder; the embedded and the synthetic data set do not need one.
        split: A split, or slices of splits as in `slices`; None selects the evaluation split, validation or test.
        labels_offset: Subtracted from labels and number of classes.
        split_flag: The flag that messages name for `split`.
        classes_of_net: For a data set other than the net's training data: the names of the net's classes, or () if
            unknown; see `class_folders.find_folders`.
        record_names: Names of the files and keys of TFRecords.

    Raises:
        InputError: The name or split is unknown, files are missing or truncated, or the offset is too large.
    """
    before = [''] * labels_offset  # the classes that the net leaves out
    names = [*before, *classes_of_net] if classes_of_net else classes_of_net
    collection = open_collection(name, dataset_dir, names, record_names)
    if split is None:
        split = _evaluation_split(name, collection, split_flag)
    examples = _open_split(name, collection, split, split_flag)
    num_classes = collection.num_classes - labels_offset
    if num_classes < 2:
        raise InputError(f'--labels_offset={labels_offset} leaves {num_classes} of {collection.num_classes} classes')
    if labels_offset and (name == _IMAGE_FOLDER or name.startswith(_TFDS)):
        _refuse_smaller_labels(examples, labels_offset, collection)
    return Dataset(
        name,
        collection.dataset_dir,
        split,
        examples,
        num_classes,
        labels_offset,
        collection.label_names[labels_offset:],
        collection.channels,
        record_names,
    )


def _refuse_smaller_labels(examples: StoredExamples, labels_offset: int, collection: Collection) -> None:
    """Raises InputError before training if `labels_offset` would drop a class that has images.

    Records are not ordered by label, so enough of them are read to expect each class many times.
    """
    for labels in read_labels(examples, 20 * collection.num_classes):
        smaller = labels[(labels >= 0) & (labels < labels_offset)]
        if len(smaller):
            label = int(smaller.min())
            of_name = f' ({collection.label_names[label]})' if collection.label_names else ''
            raise InputError(
                f'--labels_offset={labels_offset}: there are images of label {label}{of_name}; use an offset of at '
                f'most {label}'
            )


def read_labels(examples: StoredExamples, count: int) -> Iterator[np.ndarray]:
    """Yields labels in int64 batches: of all image files; of records, up to `count` or the first that is damaged."""
    if isinstance(examples, FileExamples):
        yield examples.labels
        return
    numbers = tf.data.Dataset.range(min(count, len(examples)))
    labels = numbers.map(lambda number: examples.load(number, with_boxes=False)['label'], num_parallel_calls=8)
    with contextlib.suppress(tf.errors.OpError, UnicodeDecodeError):  # a damaged record is reported when it is read
        yield from labels.batch(64).as_numpy_iterator()


def open_collection(
    name: str,
    dataset_dir: str | None,
    classes_of_net: Sequence[str] | None = None,
    record_names: RecordNames = SLIM_NAMES,
) -> Collection:
    """Opens the folder of a data set, converted or not.

    Raises:
        InputError: The name is unknown (the message lists all), or record names do not apply; see also the openers.
    """
    if not name.startswith(_TFDS) and name not in (*DATASETS, _IMAGE_FOLDER, _SYNTHETIC):
        raise unknown_name('dataset_name', name, [*DATASETS, _IMAGE_FOLDER, _SYNTHETIC, f'{_TFDS}<name>'])
    check_file_system('dataset_dir', dataset_dir)
    if name in DATASETS:
        return records.open_records(name, DATASETS[name], dataset_dir, record_names)
    if record_names:
        raise InputError(
            f'{record_names.flags}: only for the data sets of slim ({", ".join(DATASETS)}), not for '
            f'--dataset_name={name}'
        )
    converted = records.open_converted(name, dataset_dir) if dataset_dir is not None else None
    if converted is not None:
        return converted
    if name.startswith(_TFDS):
        return tfds.open_collection(name.removeprefix(_TFDS), dataset_dir)
    return _open_folder(dataset_dir, classes_of_net) if name == _IMAGE_FOLDER else synthetic.open_synthetic()


def _open_folder(dataset_dir: str | None, classes_of_net: Sequence[str] | None) -> Collection:
    """Opens a folder of class folders, or of splits that contain class folders."""
    if dataset_dir is None:
        raise InputError('--dataset_dir is missing: the folder of the images')
    check_local('dataset_dir', dataset_dir)
    folders = find_folders(records.existing_folder(dataset_dir), classes_of_net)

    def open_split(split: str) -> FileExamples:
        # As in a conversion: sorted by class, a slice would contain only some classes.
        images = shuffled(folders.list_images(split))
        return FileExamples([image.path for image in images], np.array([image.label for image in images], np.int64))

    names = folders.class_names
    is_one_split = len(set(folders.paths.values())) < len(folders.paths)
    return Collection(dataset_dir, tuple(folders.paths), len(names), names, 3, open_split, is_one_split)


def _evaluation_split(name: str, collection: Collection, flag: str) -> str:
    """Returns the split for evaluation: validation or test."""
    if collection.is_one_split:
        raise InputError(
            f'{collection.dataset_dir} is not divided into splits; name the split of its images: --{flag}=test'
        )
    if len(collection.splits) > 1:
        return collection.splits[-1]
    (split,) = collection.splits
    raise InputError(
        f'{name} has only the split {split}, so none is left to evaluate; name a part of it that was not trained '
        f"on, as in --{flag}='{split}[90%:]'"
    )


def _open_split(name: str, collection: Collection, text: str, flag: str) -> StoredExamples:
    opened: dict[str, StoredExamples] = {}
    chosen: list[StoredExamples] = []
    parts = slices.parse(text, flag)
    if collection.is_one_split and len({part.split for part in parts}) > 1:
        raise InputError(f'--{flag}={text}: {collection.dataset_dir} is not divided into splits; name one')
    for part in parts:
        if part.split not in collection.splits:
            raise InputError(f'--{flag}={text}: {name} has the splits {", ".join(collection.splits)}')
        if part.split not in opened:
            opened[part.split] = collection.open_split(part.split)
        whole = opened[part.split]
        chosen.append(whole.select(part.numbers(len(whole), flag)))
    return functools.reduce(lambda joined, more: joined + more, chosen)
