"""Data sets by name.

dataset = get_dataset('imagenet', '/data/imagenet', 'validation', labels_offset=1)
len(dataset.index), dataset.num_classes, dataset.label_names[0]
"""

import collections
import dataclasses
import os
import re

import tensorflow as tf
from absl import logging

from configs.errors import InputError, first_line, unknown_name
from datasets import cifar10, digits, flowers, imagenet, mnist, tfrecord
from datasets.spec import DatasetSpec

DATASETS: dict[str, DatasetSpec] = {
    'cifar10': cifar10.SPEC,
    'digits': digits.SPEC,
    'flowers': flowers.SPEC,
    'imagenet': imagenet.SPEC,
    'mnist': mnist.SPEC,
}
EMBEDDED = 'digits'


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a data set.

    Attributes:
        name: Its key in `DATASETS`.
        dataset_dir: The folder that the files were found in.
        split: Name of the split.
        index: Where its records lie; `num_examples` of them.
        num_classes: Number of classes once `labels_offset` is taken off.
        labels_offset: Subtracted from the labels of the records.
        label_names: Name of each class, or empty if the folder has no labels.txt.
        channels: 1 if the images are gray, else 3.
    """

    name: str
    dataset_dir: str
    split: str
    index: tfrecord.RecordIndex
    num_classes: int
    labels_offset: int
    label_names: tuple[str, ...]
    channels: int

    @property
    def num_examples(self) -> int:
        return len(self.index)


def get_spec(name: str) -> DatasetSpec:
    """Returns what is known of the data set `name`; an unknown name is an InputError that lists them all."""
    if name not in DATASETS:
        raise unknown_name('dataset_name', name, DATASETS)
    return DATASETS[name]


def evaluation_split(name: str) -> str:
    """Returns the split that a data set is evaluated on: validation, or test."""
    return get_spec(name).splits[-1]


def get_dataset(name: str, dataset_dir: str | None, split: str, labels_offset: int = 0) -> Dataset:
    """Finds the files of a split and counts their records.

    Args:
        name: A key of `DATASETS`.
        dataset_dir: Folder of its TFRecords; the embedded data set is written there, or into the user's cache.
        split: One of the data set's splits.
        labels_offset: Subtracted from labels and number of classes.

    Raises:
        InputError: an unknown name or split, a folder without its files, a truncated file, too large an offset.
    """
    spec = get_spec(name)
    if split not in spec.splits:
        raise InputError(f'--dataset_split_name={split}: {name} has the splits {", ".join(spec.splits)}')
    if spec.write is not None:
        dataset_dir = _write_embedded(name, spec, dataset_dir)
    if dataset_dir is None:
        raise InputError(f'--dataset_dir is missing: where the TFRecords of {name} lie (only {EMBEDDED} needs none)')
    paths = _find_files(name, spec, dataset_dir, split)
    index = tfrecord.index_files(paths)
    if not len(index):
        raise InputError(f'the {name} files of split {split} in {dataset_dir} hold no records: {", ".join(paths[:3])}')
    names = load_label_names(dataset_dir)
    num_classes = (len(names) or spec.num_classes) - labels_offset
    if num_classes < 2:
        raise InputError(
            f'--labels_offset={labels_offset} leaves {num_classes} of {num_classes + labels_offset} classes'
        )
    return Dataset(name, dataset_dir, split, index, num_classes, labels_offset, names[labels_offset:], spec.channels)


def _write_embedded(name: str, spec: DatasetSpec, dataset_dir: str | None) -> str:
    """Returns the folder of an embedded data set, written now unless its files are there."""
    if dataset_dir is None:
        cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        dataset_dir = os.path.join(cache, 'tf_slim_image_classification', name)
    files = [os.path.join(dataset_dir, spec.file_pattern.format(split=split)) for split in spec.splits]
    if not all(tf.io.gfile.exists(path) for path in (*files, os.path.join(dataset_dir, 'labels.txt'))):
        logging.info('writing the embedded %s as TFRecords to %s', name, dataset_dir)
        assert spec.write is not None
        try:
            spec.write(dataset_dir)
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'cannot write {name} to {dataset_dir}: {error}; choose another --dataset_dir') from error
    return dataset_dir


def _find_files(name: str, spec: DatasetSpec, dataset_dir: str, split: str) -> list[str]:
    if not tf.io.gfile.isdir(dataset_dir):
        raise InputError(f'--dataset_dir={dataset_dir}: no such folder')
    pattern = spec.file_pattern.format(split=split)
    matching = tf.io.gfile.glob(os.path.join(glob_escape(dataset_dir), pattern))
    paths = sorted(path for path in matching if not tf.io.gfile.isdir(path))
    if not paths:
        present = sorted(tf.io.gfile.listdir(dataset_dir))
        raise InputError(
            f'--dataset_dir={dataset_dir} has no file {pattern} (split {split} of {name}); '
            f'it holds {", ".join(present[:5]) or "nothing"}{" ..." if len(present) > 5 else ""}'
        )
    _check_shards(paths, dataset_dir, split)
    return paths


def _check_shards(paths: list[str], dataset_dir: str, split: str) -> None:
    """Warns if shards are missing, or are those of several conversions: then examples may be there twice."""
    matches = [re.search(r'-of-(\d+)', os.path.basename(path)) for path in paths]
    counts = collections.Counter(int(match[1]) for match in matches if match)
    for count, found in counts.items():
        if found != count:
            logging.warning('%s: %d of %d shards of split %s are there', dataset_dir, found, count, split)
    if len(counts) > 1:
        sets = ' and '.join(f'-of-{count}' for count in counts)
        logging.warning('%s: split %s is read from several sets of shards: %s', dataset_dir, split, sets)


def glob_escape(path: str) -> str:
    """Returns `path` with the characters that a glob would interpret escaped."""
    return re.sub(r'([*?\[\\])', r'\\\1', path)


def load_label_names(dataset_dir: str) -> tuple[str, ...]:
    """Reads slim's labels.txt (`id:name` a line); returns the names by id, or none without that file.

    Raises:
        InputError: a line without an id, or ids that repeat or leave gaps.
    """
    path = os.path.join(dataset_dir, 'labels.txt')
    if not tf.io.gfile.exists(path):
        return ()
    rows = []
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            lines = file.read().decode('utf-8-sig').splitlines()
    except (UnicodeDecodeError, tf.errors.OpError) as error:
        raise InputError(f'{path}: not a file of UTF-8 text: {first_line(error)}') from error
    for number, line in enumerate(lines, start=1):
        label, separator, name = line.partition(':')
        if separator and label.strip().isdecimal() and len(label) < 10:
            rows.append((int(label), name.strip()))
        elif line.strip():
            raise InputError(f'{path}, line {number}: {line!r} is not of the form id:name')
    rows.sort()
    if [label for label, _ in rows] != list(range(len(rows))):
        raise InputError(f'{path}: the ids must be 0 to {len(rows) - 1}, each once')
    return tuple(name for _, name in rows)
