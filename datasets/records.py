"""TFRecords of slim's schema and a labels.txt in one folder: slim's and converted data sets.

collection = open_records('imagenet', DATASETS['imagenet'], '/data/imagenet')
collection = open_converted('image_folder', '/data/pets')       # by its dataset.json
examples = collection.open_split('validation')
"""

import collections
import dataclasses
import fnmatch
import json
import os
import re

import tensorflow as tf
from absl import logging

from configs.data import SLIM_NAMES, RecordNames
from configs.evaluation import EvalOptions
from configs.training import DataOptions
from datasets import manifest, tfrecord
from datasets.collection import Collection, DatasetSpec
from datasets.examples import RecordExamples
from datasets.files import check_folder, in_one_form
from datasets.regular_files import read_file
from support.errors import InputError, first_line
from support.input_files import NotUtf8Error, decode_text


def names_from(options: DataOptions | EvalOptions) -> RecordNames:
    """Returns the names of files and keys from flags."""
    return RecordNames(options.record_keys, options.file_pattern or '')


def open_records(
    name: str, spec: DatasetSpec, dataset_dir: str | None, record_names: RecordNames = SLIM_NAMES
) -> Collection:
    """Opens one of slim's data sets; an embedded one is first written to `dataset_dir` or the user's cache, if missing.

    With another file pattern, its splits are those that have files; a pattern without `{split}` has only `train`.

    Raises:
        InputError: The folder or labels.txt cannot be read; on opening a split, files are missing or truncated.
    """
    if spec.write is not None and record_names:
        raise InputError(f"{record_names.flags}: {name} is embedded, with slim's names and keys; leave it out")
    if spec.write is not None:
        dataset_dir = _write_embedded(name, spec, dataset_dir)
    if dataset_dir is None:
        raise InputError(
            f'--dataset_dir is missing: the folder of the TFRecords of {name} (only digits and synthetic need none)'
        )
    folder = existing_folder(dataset_dir)
    names = load_label_names(folder)
    schema = tfrecord.schema_of(record_names)
    if record_names.file_pattern:
        splits = _splits_of(record_names.file_pattern, folder) or spec.splits
        spec = dataclasses.replace(spec, file_pattern=record_names.file_pattern, splits=splits)

    def open_split(split: str) -> RecordExamples:
        paths = _find_files(name, spec, folder, split)
        return index_records(paths, f'the {name} files of split {split} in {folder}', schema)

    return Collection(folder, spec.splits, len(names) or spec.num_classes, names, spec.channels, open_split)


def _splits_of(pattern: str, folder: str) -> tuple[str, ...]:
    """Returns the splits that have files matching a pattern, in order from training to evaluation."""
    if '{split}' not in pattern:
        return ('train',)
    names = _names_in(folder)
    found = {split: set(fnmatch.filter(names, pattern.format(split=split))) for split in _SPLITS}
    # `{split}*` for val also matches the files of validation.
    return tuple(
        split
        for split, files in found.items()
        if files and not any(files <= found[longer] for longer in _SPLITS if longer != split and split in longer)
    )


def _names_in(folder: str) -> list[str]:
    """Returns the names in a folder, without the slash that some file systems append to folders."""
    try:
        return sorted(name.rstrip('/') for name in tf.io.gfile.listdir(folder))
    except UnicodeDecodeError as error:
        raise _no_text(folder, error) from error


def _no_text(folder: str, error: UnicodeDecodeError) -> InputError:
    file = os.path.basename(bytes(error.object))
    return InputError(f'--dataset_dir={folder} holds {file!r}, whose name is not UTF-8; rename it')


def open_converted(name: str, dataset_dir: str) -> Collection | None:
    """Opens the output of `download_and_convert_data.py`; returns None if the folder has none.

    Raises:
        InputError: dataset.json is damaged or another data set's; on opening a split, files are missing or truncated.
    """
    path = os.path.join(dataset_dir, manifest.MANIFEST)
    if not tf.io.gfile.exists(path):
        return None
    try:
        content = read_file(path)
        read = json.loads(content)
    except InputError:
        raise
    except (ValueError, RecursionError, OSError, tf.errors.OpError) as error:
        message = f'{path}: damaged, or of another version: {first_line(error)}; convert the data again'
        raise InputError(message) from error
    if b'images_per_class' not in content:
        return None  # other programs write files of this name too
    of_name = read.get('name') if isinstance(read, dict) else None
    if isinstance(of_name, str) and of_name != name:
        raise InputError(
            f'--dataset_name={name}: {dataset_dir} holds {of_name}, converted; name that, or another folder'
        )
    described = manifest.check(read, path)
    names, channels = tuple(map(in_one_form, described['class_names'])), described['channels']
    files = {split: [shard['file'] for shard in parts['shards']] for split, parts in described['splits'].items()}

    def open_split(split: str) -> RecordExamples:
        paths = [os.path.join(dataset_dir, name) for name in files[split]]
        for path in paths:
            if not tf.io.gfile.exists(path):
                raise InputError(f'{path}: missing, though dataset.json names it; convert or copy the data again')
        schema = dataclasses.replace(tfrecord.SLIM_SCHEMA, is_slims=False)  # the converter's keys: no flag for others
        return index_records(paths, f'the files of split {split} in {dataset_dir}', schema)

    return Collection(dataset_dir, tuple(files), len(names), names, channels, open_split)


# Names that a file pattern may use for splits; those for evaluation come last.
_SPLITS = ('train', 'training', 'dev', 'eval', 'val', 'valid', 'validation', 'test', 'testing')
_COMPRESSED = ('.gz', '.zlib', '.zz')


def index_records(paths: list[str], what: str, schema: tfrecord.Schema = tfrecord.SLIM_SCHEMA) -> RecordExamples:
    """Returns the records of all files.

    Raises:
        InputError: A file is truncated, or none of `what` holds a record.
    """
    index = tfrecord.index_files(paths)
    if not len(index):
        raise InputError(f'{what} hold no records: {", ".join(paths[:3])}')
    return RecordExamples(index, schema)


def existing_folder(dataset_dir: str) -> str:
    """Returns `dataset_dir` if it is a readable folder, otherwise raises InputError."""
    if '://' not in dataset_dir:
        check_folder('dataset_dir', dataset_dir)
    elif not tf.io.gfile.isdir(dataset_dir):
        raise InputError(f'--dataset_dir={dataset_dir}: no such folder')
    return dataset_dir


def _write_embedded(name: str, spec: DatasetSpec, dataset_dir: str | None) -> str:
    """Returns the folder of an embedded data set, and writes its files if they are missing."""
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
    pattern = spec.file_pattern.format(split=split)
    try:
        matching = tf.io.gfile.glob(os.path.join(glob_escape(dataset_dir), pattern))
        paths = sorted(path for path in matching if not tf.io.gfile.isdir(path))
        present = [] if paths else sorted(tf.io.gfile.listdir(dataset_dir))
    except UnicodeDecodeError as error:
        raise _no_text(dataset_dir, error) from error
    if not paths:
        raise InputError(
            f'--dataset_dir={dataset_dir} has no file {pattern} (split {split} of {name}); '
            f'it holds {", ".join(present[:5]) or "nothing"}{" ..." if len(present) > 5 else ""}{_advice(present)}'
        )
    _check_shards(paths, dataset_dir, split)
    return paths


def _advice(present: list[str]) -> str:
    """Returns advice for a folder without a matching file."""
    if any(name.endswith(_COMPRESSED) for name in present):
        return '; decompress these with: python download_and_convert_data.py --unpack'
    if any('record' in name for name in present):
        return "; give another --dataset_name, or the names of the files: --file_pattern='NAME-{split}-*'"
    return ''


def _check_shards(paths: list[str], dataset_dir: str, split: str) -> None:
    """Warns if shards are missing, or come from several conversions, where examples may be duplicated."""
    matches = [re.search(r'-of-(\d+)', os.path.basename(path)) for path in paths]
    counts = collections.Counter(int(match[1]) for match in matches if match)
    for count, found in counts.items():
        if found != count:
            logging.warning('%s: %d of %d shards of split %s found', dataset_dir, found, count, split)
    if len(counts) > 1:
        sets = ' and '.join(f'-of-{count}' for count in counts)
        logging.warning('%s: split %s is read from several sets of shards: %s', dataset_dir, split, sets)


def glob_escape(path: str) -> str:
    """Returns `path` with its glob characters escaped."""
    return re.sub(r'([*?\[\\])', r'\\\1', path)


def load_label_names(dataset_dir: str) -> tuple[str, ...]:
    """Reads slim's labels.txt (`id:name` a line); returns the names by id, or () if it is missing.

    Raises:
        InputError: A line has no id, or ids repeat or leave gaps.
    """
    path = os.path.join(dataset_dir, 'labels.txt')
    if not tf.io.gfile.exists(path):
        return ()
    rows = []
    try:
        lines = decode_text(read_file(path)).splitlines()
    except NotUtf8Error as error:
        raise InputError(f'{path}: not a file of UTF-8 text: {error}') from error
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'{path}: cannot be read: {first_line(error)}') from error
    for number, line in enumerate(lines, start=1):
        label, separator, name = line.partition(':')
        if separator and label.strip().isdecimal() and len(label) < 10:
            rows.append((int(label), in_one_form(name.strip())))
        elif line.strip():
            raise InputError(f'{path}, line {number}: {line!r} is not of the form id:name')
    rows.sort()
    if [label for label, _ in rows] != list(range(len(rows))):
        raise InputError(f'{path}: the ids must be 0 to {len(rows) - 1}, each once')
    return tuple(name for _, name in rows)
