"""Slim's TFRecords of `tf.train.Example`: schema, writing, parsing, and the offset of each record.

    index = index_files(paths)         # (file, offset) of every record; its length is the size of the data set
    record = read_record(index.paths, index.file_numbers[i], index.offsets[i])       # the bytes of record i
    example = parse_example(record)                                                  # {'image', 'label', 'boxes'}

The schema is that of research/slim/datasets/dataset_utils.py and build_imagenet_data.py. A TFRecord file is a sequence
of: length (uint64, little endian), masked crc32c of the length (4 bytes), data, masked crc32c of the data (4 bytes).
"""

import dataclasses
import io
import mmap
import os
import shlex
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
import tensorflow as tf
from absl import logging

from configs.data import RecordNames
from datasets.array_tables import DamagedTable, load_arrays, save_arrays
from datasets.files import problem_of
from datasets.record_faults import compression_of
from support.atomic import atomic_file
from support.errors import InputError, first_line

_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_FIRST_BYTES = 2**16  # enough to recognise a compressed file
MISSING_LABEL = -1
_FILE_NAMES = ('image/filename', 'file_name')  # keys of slim and of TFDS; a record has at most one
_Seen = TypeVar('_Seen')


@dataclasses.dataclass(frozen=True)
class Schema:
    """The keys of a record, a serialized `tf.train.Example`.

    Attributes:
        name: The schema's name in messages.
        image: Key of the image file's bytes.
        label: Key of the label, one int64.
        boxes: Prefix of the keys of the boxes' sides, each a list of floats; None for no boxes.
        is_slims: Whether flags may name other keys.
    """

    name: str
    image: str
    label: str
    boxes: str | None = None
    is_slims: bool = dataclasses.field(default=True, repr=False)  # the name of a cache follows from the repr


SLIM_SCHEMA = Schema("slim's schema", 'image/encoded', 'image/class/label', 'image/object/bbox/')


def schema_of(names: RecordNames) -> Schema:
    """Returns slim's schema with the keys replaced that flags name."""
    keys = names.keys
    return dataclasses.replace(
        SLIM_SCHEMA,
        image=keys.get('image', SLIM_SCHEMA.image),
        label=keys.get('label', SLIM_SCHEMA.label),
        boxes=keys.get('boxes', SLIM_SCHEMA.boxes),
    )


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """The place of each record of a split.

    Attributes:
        paths: The files, in order.
        file_numbers: int32 [records], index into `paths`.
        offsets: int64 [records], first byte of the record's header.
    """

    paths: tuple[str, ...]
    file_numbers: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def __add__(self, other: 'RecordIndex') -> 'RecordIndex':
        file_numbers = np.concatenate([self.file_numbers, other.file_numbers + np.int32(len(self.paths))])
        return RecordIndex(self.paths + other.paths, file_numbers, np.concatenate([self.offsets, other.offsets]))

    def describe(self, record: int) -> str:
        """Returns a record's file and its number in the file (from 0), for messages."""
        file_number = self.file_numbers[record]
        first = int(np.searchsorted(self.file_numbers, file_number))
        return f'{self.paths[file_number]}, record {record - first}'


def image_example(encoded: bytes, image_format: str, height: int, width: int, label: int) -> tf.train.Example:
    """Returns slim's `image_to_tfexample`: the keys that all its data sets share."""
    return _example(
        texts={'image/encoded': encoded, 'image/format': image_format.encode()},
        numbers={'image/class/label': [label], 'image/height': [height], 'image/width': [width]},
    )


def imagenet_example(
    encoded: bytes,
    height: int,
    width: int,
    label: int,
    *,
    synset: str,
    text: str,
    filename: str,
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> tf.train.Example:
    """Returns the record that slim's `build_imagenet_data.py` writes for a JPEG.

    `synset` is the WordNet id of the class, `text` its name, `filename` has no folder, and `boxes` are (ymin,
    xmin, ymax, xmax) as shares of the image's sides.
    """
    ymin, xmin, ymax, xmax = zip(*boxes, strict=True) if boxes else ((),) * 4
    prefix = 'image/object/bbox/'
    return _example(
        texts={
            'image/colorspace': b'RGB',
            'image/class/synset': synset.encode(),
            'image/class/text': text.encode(),
            'image/format': b'JPEG',
            'image/filename': filename.encode(),
            'image/encoded': encoded,
        },
        numbers={
            'image/height': [height],
            'image/width': [width],
            'image/channels': [3],
            'image/class/label': [label],
            f'{prefix}label': [label] * len(boxes),
        },
        sides={f'{prefix}xmin': xmin, f'{prefix}xmax': xmax, f'{prefix}ymin': ymin, f'{prefix}ymax': ymax},
    )


def _example(
    texts: Mapping[str, bytes], numbers: Mapping[str, Sequence[int]], sides: Mapping[str, Sequence[float]] | None = None
) -> tf.train.Example:
    features = {key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text])) for key, text in texts.items()}
    for key, values in numbers.items():
        features[key] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    for key, lengths in (sides or {}).items():
        features[key] = tf.train.Feature(float_list=tf.train.FloatList(value=lengths))
    return tf.train.Example(features=tf.train.Features(feature=features))


def write_records(path: str, examples: Iterable[tf.train.Example]) -> int:
    """Writes a TFRecord file atomically; returns the number of records."""
    count = 0
    # Several processes may write the embedded data set at once.
    with atomic_file(path, shared=True) as part, tf.io.TFRecordWriter(part) as writer:
        for example in examples:
            # Otherwise the order of the keys follows a hash table, and differs between processes.
            writer.write(example.SerializeToString(deterministic=True))
            count += 1
    return count


def index_files(paths: Sequence[str]) -> RecordIndex:
    """Returns the place of every record in `paths`, reading only headers.

    Large splits take a while (a header every 100 KB). An index that took more than two seconds is saved beside the
    files, if they are writable, and reused while names, sizes and times agree.

    Raises:
        InputError: A file cannot be read or ends within a record; the message names the file and the record.
    """
    cache = os.path.join(os.path.dirname(paths[0]), f'.{os.path.basename(paths[0])}.{len(paths)}.index.npz')
    key = '\n'.join(_looking_at(file_key, paths))
    cached = _load_index(cache, key)
    if cached is None:
        start = time.monotonic()
        cached = _scan_files(paths)
        if time.monotonic() - start > 2:
            _save_index(cache, key, *cached)
    return RecordIndex(tuple(paths), *cached)


def file_key(path: str) -> str:
    """Returns name, size and time of a file, by which a cache recognises it."""
    if '://' in path:
        stat = tf.io.gfile.stat(path)
        return f'{os.path.basename(path)} {stat.length} {stat.mtime_nsec}'
    local = os.stat(path)  # TensorFlow's stat has only seconds
    return f'{os.path.basename(path)} {local.st_size} {local.st_mtime_ns}'


def _scan_files(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    offsets = [np.array(of_file, np.int64) for of_file in _looking_at(_scan_file, paths)]
    file_numbers = np.repeat(np.arange(len(paths), dtype=np.int32), [len(of_file) for of_file in offsets])
    return file_numbers, np.concatenate(offsets)


def _looking_at(look: Callable[[str], _Seen], paths: Iterable[str]) -> Iterator[_Seen]:
    """Yields `look(path)` for each path; raises InputError with the path if a file is missing or unreadable."""
    for path in paths:
        try:
            yield look(path)
        except OSError as error:
            raise InputError(f'{path}: {problem_of(error, path)}') from error
        except tf.errors.OpError as error:
            raise InputError(f'{path}: cannot be read: {first_line(error)}') from error


def _scan_file(path: str) -> list[int]:
    """Returns the offsets of the records of one file."""
    size = tf.io.gfile.stat(path).length
    offsets: list[int] = []
    position = 0
    with _open(path) as file:
        while position < size:
            file.seek(position)
            header = file.read(8)
            end = position + _HEADER_BYTES + _FOOTER_BYTES
            if len(header) == 8:
                end += struct.unpack('<Q', header)[0]
            if len(header) < 8 or end > size:
                file.seek(0)
                if (compression := compression_of(file.read(_FIRST_BYTES))) is not None:
                    raise compressed(path, compression)
                raise InputError(
                    f'{path}: truncated or corrupt: record {len(offsets)}, which begins at byte {position}, ends '
                    f'beyond the end of the file ({size} bytes); make or copy this file again'
                )
            offsets.append(position)
            position = end
    return offsets


def compressed(path: str, compression: str) -> InputError:
    """Returns the error for a compressed file, which must be unpacked before its records can be read."""
    folder = os.path.dirname(path) or '.'
    script = ['python', 'download_and_convert_data.py']
    command = shlex.join([*script, '--unpack', f'--source_dir={folder}', '--dataset_dir=NEW_FOLDER'])
    return InputError(
        f'{path}: compressed ({compression}), so its records cannot be read by offset; unpack the folder '
        f'with: {command}'
    )


def _open(path: str) -> mmap.mmap | BinaryIO:
    if '://' in path:
        return tf.io.gfile.GFile(path, 'rb')
    if os.path.getsize(path) == 0:  # an empty file cannot be mapped
        return io.BytesIO()
    with open(path, 'rb') as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(pages, 'madvise'):
        pages.madvise(mmap.MADV_RANDOM)  # otherwise the kernel reads ahead, including all data between the headers
    return pages


def _load_index(cache: str, key: str) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        arrays = load_arrays(cache)
        if str(arrays['key']) == key:
            return arrays['file_numbers'], arrays['offsets']
    except OSError:
        pass  # usually: not written yet
    except (DamagedTable, KeyError):
        logging.warning('%s: damaged, or of another version; the index is built again', cache)
    return None


def _save_index(cache: str, key: str, file_numbers: np.ndarray, offsets: np.ndarray) -> None:
    arrays = {'key': np.array(key), 'file_numbers': file_numbers, 'offsets': offsets}
    try:
        with atomic_file(cache, shared=True) as part, open(part, 'wb') as file:
            save_arrays(file, arrays)
    except OSError:
        pass  # the folder is not writable: the index is built again next time


def read_record(paths: tf.Tensor, file_number: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Returns the record at `offset` of a file, a string scalar; inside or outside tf.data.

    The kernel of `tf.data.TFRecordDataset` accepts a start offset, which the public class does not expose; unbuffered,
    it reads only the record. One map that reads, parses and decodes takes 15 % less time for a photograph than an
    interleave of TFRecordDatasets before it, whose threads wake each other for every record.

    Args:
        paths: string [files].
        file_number: int32 scalar, index into `paths`.
        offset: int64 scalar, first byte of the record's header.

    Raises:
        tf.errors.DataLossError: When run, if a checksum does not match.
    """
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.reshape(paths[file_number], [1]),
        compression_type='',
        buffer_size=tf.constant(0, tf.int64),
        byte_offsets=tf.reshape(offset, [1]),
    )
    return tf.data.experimental.from_variant(records, tf.TensorSpec([], tf.string)).take(1).get_single_element()


def parse_example(record: tf.Tensor, schema: Schema = SLIM_SCHEMA) -> dict[str, tf.Tensor]:
    """Parses one serialized `tf.train.Example`.

    Returns:
        image: string scalar, the image file's bytes, empty if the record has none;
        label: int64 scalar, `MISSING_LABEL` if the record has none;
        boxes: float32 [boxes, 4], (ymin, xmin, ymax, xmax) as shares of the image's sides.
    """
    features = {
        schema.image: tf.io.FixedLenFeature([], tf.string, default_value=''),
        schema.label: tf.io.FixedLenFeature([], tf.int64, default_value=MISSING_LABEL),
    }
    sides = [f'{schema.boxes}{side}' for side in ('ymin', 'xmin', 'ymax', 'xmax')] if schema.boxes else []
    parsed = tf.io.parse_single_example(record, {**features, **dict.fromkeys(sides, tf.io.RaggedFeature(tf.float32))})
    boxes = tf.stack([parsed[key] for key in sides], axis=-1) if sides else tf.zeros([0, 4])
    return {'image': parsed[schema.image], 'label': parsed[schema.label], 'boxes': boxes}


def parse_file_name(record: tf.Tensor) -> tf.Tensor:
    """Returns the name of the image file in a serialized `tf.train.Example` of slim or TFDS, '' if it has none."""
    features = dict.fromkeys(_FILE_NAMES, tf.io.FixedLenFeature([], tf.string, default_value=''))
    return tf.strings.join(list(tf.io.parse_single_example(record, features).values()))
