"""Decompresses TFRecords (`--unpack`), because only uncompressed files can be read at the offset of any record.

unpack(make_config(ConvertConfig, source_dir='/data/packed', dataset_dir='/data/records', unpack=True))     # 0

Records keep their bytes and their order. Uncompressed TFRecords and labels.txt are copied.
"""

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from configs.conversion import ConvertConfig
from datasets.conversion.stopping import cannot_write, run_until_signal
from datasets.files import check_folder, list_names
from datasets.manifest import LABELS
from datasets.regular_files import check_local
from support.atomic import atomic_file
from support.errors import InputError
from support.progress import Progress

if TYPE_CHECKING:
    import tensorflow as tf

_FIRST_BYTES = 2**16
_ENDINGS = ('.gz', '.gzip', '.zlib', '.zz')


class _File(NamedTuple):
    """A file of the source.

    Attributes:
        path: Its path.
        name: Its name in the new folder.
        compression: 'GZIP', 'ZLIB', or '' for a file to copy.
    """

    path: str
    name: str
    compression: str


def unpack(config: ConvertConfig) -> int:
    """Unpacks a folder as `download_and_convert_data.py --unpack` does, and prints a summary.

    Returns:
        The exit status: 0, or 128 + the number of the signal that stopped it.

    Raises:
        InputError: A folder is missing, no file is compressed, one is damaged, the disk is full, or files are foreign.
    """
    source_dir, dataset_dir = config.source.source_dir, config.records.dataset_dir
    if source_dir is None:
        raise InputError('--source_dir is missing: the folder of the compressed TFRecords')
    if dataset_dir is None:
        raise InputError('--dataset_dir is missing: the folder for the unpacked TFRecords')
    for flag, value in (('dataset_name', config.source.dataset_name), ('verify', config.work.verify)):
        if value:
            raise InputError(f'--{flag}={value}: --unpack takes all TFRecords of a folder, and does nothing else')
    check_local('dataset_dir', dataset_dir)
    check_folder('source_dir', source_dir)
    if os.path.realpath(source_dir) == os.path.realpath(dataset_dir):
        raise InputError(f'--dataset_dir={dataset_dir}: must be another folder than --source_dir')
    kept = 'files that are complete are kept; the same command goes on'
    return run_until_signal(lambda: _unpack(source_dir, dataset_dir), kept)


def _unpack(source_dir: str, dataset_dir: str) -> int:
    files = list(_find_files(source_dir))
    if not any(file.compression for file in files):
        raise InputError(f'--source_dir={source_dir} holds no TFRecords that are compressed by GZIP or ZLIB')
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'--source_dir={source_dir}: two files would be called {name}; move one away')
    try:
        os.makedirs(dataset_dir, exist_ok=True)
    except OSError as error:
        raise InputError(f'--dataset_dir={dataset_dir}: cannot be written to: {error.strerror}') from error
    counts = {'unpacked': 0, 'copied': 0}
    with Progress('unpacking', len(files), unit='file') as progress:
        for done, file in enumerate(files, start=1):
            _make(file, dataset_dir)
            counts['unpacked' if file.compression else 'copied'] += 1
            progress.report(done, f'unpacked {file.name} [{done}/{len(files)}]')
    print(f'{dataset_dir} is complete: {counts["unpacked"]} files unpacked, {counts["copied"]} copied')
    return 0


def _find_files(source_dir: str) -> Iterator[_File]:
    from datasets.record_faults import compression_of

    for name in list_names(source_dir):
        path = os.path.join(source_dir, name)
        if not os.path.isfile(path):
            continue
        try:
            with open(path, 'rb') as file:
                compression = compression_of(file.read(_FIRST_BYTES))
        except OSError as error:
            raise InputError(f'{path}: cannot be read: {error.strerror}') from error
        if compression is not None and _is_tfrecord(path, compression):
            stem, ending = os.path.splitext(name)
            yield _File(path, stem if ending in _ENDINGS else name, compression)
        elif name == LABELS or _is_tfrecord(path, ''):
            yield _File(path, name, '')


def _records(path: str, compression: str) -> 'tf.data.Dataset':
    import tensorflow as tf

    return tf.data.TFRecordDataset(path, compression_type=compression)


def _is_tfrecord(path: str, compression: str) -> bool:
    import tensorflow as tf

    try:
        return next(iter(_records(path, compression)), None) is not None
    except tf.errors.OpError:
        return False


def _make(file: _File, dataset_dir: str) -> None:
    """Writes a file atomically, unless it exists with the modification time of its source."""
    import tensorflow as tf

    target, time = os.path.join(dataset_dir, file.name), os.stat(file.path).st_mtime_ns
    if os.path.lexists(target):
        if os.lstat(target).st_mtime_ns == time:
            return
        raise InputError(f'--dataset_dir={dataset_dir} holds {file.name}, which was not made of {file.path}; name '
                         'another folder')  # fmt: skip
    try:
        with atomic_file(target) as part:
            if file.compression:
                _write_records(file, part)
            else:
                shutil.copyfile(file.path, part)
            os.utime(part, ns=(time, time))
    except (OSError, tf.errors.OpError) as error:
        raise cannot_write(dataset_dir, error) from error


def _write_records(file: _File, part: str) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(part) as writer:
        records, number = iter(_records(file.path, file.compression)), 0
        while True:
            try:
                record = next(records, None)
            except tf.errors.OpError as error:
                problem = 'damaged, or cut short; make or copy this file again'
                raise InputError(f'{file.path}, record {number}: {problem}') from error
            if record is None:
                return
            writer.write(record.numpy())
            number += 1
