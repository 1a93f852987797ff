"""Compares a converted data set with its dataset.json: every byte, every record, every image.

verify(make_config(ConvertConfig, dataset_dir='/data/records', verify=True))    # 0, or 1 after a line for each problem
"""

import collections
import dataclasses
import fnmatch
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from configs.conversion import ConvertConfig
from datasets import manifest
from datasets.conversion import writer
from datasets.conversion.recipe import layout_of
from datasets.conversion.stopping import run_until_signal
from datasets.conversion.workers import WorkerPool
from datasets.files import in_one_form
from datasets.regular_files import read_file
from support.errors import InputError, first_line
from support.input_files import NotUtf8Error, decode_text
from support.processor import usable_cores
from support.progress import Progress


@dataclasses.dataclass
class Checked:
    """The result of checking a file.

    Attributes:
        problems: Its faults, a line each.
        labels: Label -> number of records.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    labels: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)


def verify(config: ConvertConfig) -> int:
    """Checks a data set as `download_and_convert_data.py --verify` does, and prints its faults.

    Returns:
        The exit status: 0 if there is no fault, 1 otherwise, or 128 + the number of a signal.

    Raises:
        InputError: The folder is missing or has no dataset.json.
    """
    dataset_dir = config.records.dataset_dir
    if dataset_dir is None:
        raise InputError('--dataset_dir is missing: the folder to verify')
    described = manifest.load(dataset_dir)
    processes = config.work.num_processes or usable_cores()
    return run_until_signal(lambda: _verify(dataset_dir, described, processes), 'nothing was changed')


def _verify(dataset_dir: str, described: Mapping[str, Any], processes: int) -> int:
    problems = [*_folder_problems(dataset_dir, described), *_record_problems(dataset_dir, described, processes)]
    for problem in problems:
        print(f'error: {problem}', file=sys.stderr)
    if problems:
        return 1
    splits = described['splits'].values()
    files, images = sum(len(split['shards']) for split in splits), sum(split['images'] for split in splits)
    print(f'verified {images} images in {files} files')
    return 0


def _folder_problems(dataset_dir: str, described: Mapping[str, Any]) -> Iterator[str]:
    """Yields faults outside the records: in labels.txt, names, and surplus files that a reader would include."""
    path = os.path.join(dataset_dir, manifest.LABELS)
    try:
        text = decode_text(read_file(path)).replace('\r\n', '\n')
    except (OSError, NotUtf8Error) as error:
        yield f'{path}: {first_line(error)}'
    else:
        if in_one_form(text) != in_one_form(manifest.labels_text(described['class_names'])):
            yield f'{path}: its classes are not those of dataset.json'
    try:
        layout = layout_of(described['name'])
    except InputError as error:
        yield f'{os.path.join(dataset_dir, manifest.MANIFEST)}: {error}'
        return
    for split, content in described['splits'].items():
        files = {shard['file'] for shard in content['shards']}
        for name in sorted(os.listdir(dataset_dir)):
            if fnmatch.fnmatchcase(name, layout.glob(split)) and name not in files:
                yield f'{os.path.join(dataset_dir, name)}: not in dataset.json, but would be read as part of {split}'


def _record_problems(dataset_dir: str, described: Mapping[str, Any], processes: int) -> list[str]:
    shards = [(split, shard) for split, content in described['splits'].items() for shard in content['shards']]
    total = sum(shard['images'] for _, shard in shards)
    labels: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    problems: dict[int, list[str]] = {}
    done = reported = 0
    with (
        WorkerPool(min(processes, len(shards)), writer.prepare_worker) as pool,
        Progress('verifying', total, unit='image') as progress,
    ):
        for number, (_, shard) in enumerate(shards):
            pool.submit(
                number, check_file, os.path.join(dataset_dir, shard['file']), shard, len(described['class_names'])
            )
        for number, checked in pool.results():
            split, shard = shards[number]
            problems[number] = checked.problems
            labels[split].update(checked.labels)
            done += shard['images']
            if (done - reported) * 50 >= total or done == total:
                progress.report(done, f'verified {done:,} of {total:,} images')
                reported = done
    found = [problem for _, of_file in sorted(problems.items()) for problem in of_file]
    return found or list(_label_problems(dataset_dir, described, labels))


def _label_problems(
    dataset_dir: str, described: Mapping[str, Any], labels: Mapping[str, collections.Counter[int]]
) -> Iterator[str]:
    for split, content in described['splits'].items():
        if [labels[split][label] for label in range(len(described['class_names']))] != content['images_per_class']:
            path = os.path.join(dataset_dir, manifest.MANIFEST)
            yield f'{path}: split {split} has other numbers of images per class than its records'


def check_file(path: str, expected: Mapping[str, Any], num_classes: int) -> Checked:
    """Reads a file and all its records, and compares them with its entry in dataset.json."""
    checked = Checked()
    try:
        with open(path, 'rb') as file:
            sha256 = hashlib.file_digest(file, 'sha256').hexdigest()
            size = file.tell()
    except OSError as error:
        checked.problems.append(f'{path}: {error.strerror}')
        return checked
    if size != expected['bytes']:
        checked.problems.append(f'{path}: has {size:,} bytes, and {expected["bytes"]:,} in dataset.json')
    elif sha256 != expected['sha256']:
        checked.problems.append(f'{path}: its SHA-256 is not that of dataset.json')
    _check_records(path, num_classes, checked)
    if not checked.problems and checked.labels.total() != expected['images']:
        checked.problems.append(
            f'{path}: has {checked.labels.total()} images, and {expected["images"]} in dataset.json'
        )
    return checked


def _check_records(path: str, num_classes: int, checked: Checked) -> None:
    import tensorflow as tf

    number = 0
    try:
        for record in tf.data.TFRecordDataset(path):
            label, problem = _check_record(record, num_classes)
            checked.labels[label] += 1
            if problem:
                checked.problems.append(f'{path}, record {number}: {problem}')
            number += 1
    except tf.errors.DataLossError:
        checked.problems.append(f'{path}, record {number}: a checksum does not agree, or the file is cut short')


def _check_record(record: 'Any', num_classes: int) -> tuple[int, str | None]:
    """Returns the label of a record, and its fault or None."""
    import tensorflow as tf

    from datasets import tfrecord
    from datasets.conversion.encode import BadImage, image_format, read_header
    from datasets.record_faults import problem_of

    try:
        features = tf.train.Example.FromString(record.numpy()).features.feature
        example = tfrecord.parse_example(record)
        height, width = (features[f'image/{side}'].int64_list.value[0] for side in ('height', 'width'))
    except (tf.errors.OpError, ValueError, IndexError, UnicodeDecodeError):
        problem = problem_of(record.numpy(), tfrecord.SLIM_SCHEMA)
        return tfrecord.MISSING_LABEL, problem or "not a record of slim's schema"
    label = int(example['label'])
    if not 0 <= label < num_classes:
        return label, f'its label is {label}; there are {num_classes} classes'
    try:
        encoded = example['image'].numpy()
        read_header(encoded, image_format(encoded))
        shape = tf.io.decode_image(encoded, channels=3, expand_animations=False).shape
    except (tf.errors.OpError, BadImage) as error:
        return label, f'its image cannot be decoded: {first_line(error)}'
    if tuple(shape[:2]) != (height, width):
        return label, f'its image has {shape[1]} x {shape[0]} pixels, and the record says {width} x {height}'
    return label, None
