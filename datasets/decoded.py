"""Caches a small data set's decoded images, so that training does not decode them in every epoch.

    dataset = with_cache(dataset, 'auto', channels=3, passes=20.0)

All pixels are stored one image after another in a single memory-mapped file, in memory or in a folder; the kernel keeps
as much resident as fits. The pixels equal those from decoding, so a cache does not change training.
"""

import contextlib
import dataclasses
import functools
import math
import mmap
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import psutil
import tensorflow as tf
from absl import logging

from configs.data import check_cache
from datasets.array_tables import DamagedTable, load_arrays, save_arrays
from datasets.dataset_factory import Dataset
from datasets.examples import Example, Examples, StoredExamples, T
from datasets.input_pipeline import without_tuning
from preprocessing import images
from support.atomic import atomic_file
from support.errors import InputError, first_line
from support.processor import usable_cores
from support.progress import Progress

_AUTO_LIMIT_BYTES = 2**29
_SAMPLES = 32  # examples from which the size of all is estimated
_AT_ONCE = 256  # examples in a batch while decoding
_REPORT_SECS = 5
_BLOCK_BYTES, _MAX_BLOCKS = 2**22, 2**10  # of a file, read for its checksum: up to 4 GiB
_MAP_NORESERVE = getattr(mmap, 'MAP_NORESERVE', 0x4000 if sys.platform == 'linux' else 0)


class ImageTable(NamedTuple):
    """The place of each image in the pixels, with its label and boxes.

    Attributes:
        starts: int64 [images], first byte of the image.
        shapes: int64 [images, 3], height, width, channels.
        labels: int64 [images].
        box_ranges: int64 [images, 2], range of its boxes: start, stop.
        boxes: float32 [boxes of all images, 4].
    """

    starts: np.ndarray
    shapes: np.ndarray
    labels: np.ndarray
    box_ranges: np.ndarray
    boxes: np.ndarray

    @property
    def num_bytes(self) -> int:
        return int(self.starts[-1] + self.shapes[-1].prod())

    def undecoded(self) -> np.ndarray:
        """Returns the numbers of the images that could not be decoded and have no pixels: int64 [undecoded images]."""
        return np.flatnonzero(self.shapes.prod(axis=1) == 0)


@dataclasses.dataclass(frozen=True)
class DecodedExamples(Examples):
    """Examples whose decoded images are cached.

    Attributes:
        source: The original examples.
        pixels: uint8 [bytes of all images].
        table: The place of each image.
    """

    source: Examples
    pixels: tf.Tensor
    table: ImageTable

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_files(self) -> int:
        return self.source.num_files

    @functools.cached_property
    def _tensors(self) -> dict[str, tf.Tensor]:
        with tf.init_scope():  # the functions of tf.data share them
            return {name: tf.constant(column) for name, column in self.table._asdict().items()}

    @functools.cached_property
    def _undecoded(self) -> np.ndarray:
        return self.table.undecoded()

    def load(self, number: tf.Tensor, with_boxes: bool = True) -> Example:
        table = self._tensors
        shape = table['shapes'][number]
        pixels = tf.slice(self.pixels, [table['starts'][number]], [tf.reduce_prod(shape)])
        image = tf.reshape(pixels, shape)
        image = tf.ensure_shape(image, [None, None, int(self.table.shapes[0, 2])])
        boxes = tf.zeros([0, 4])
        if with_boxes:
            start, stop = tf.unstack(table['box_ranges'][number])
            boxes = table['boxes'][start:stop]
        return {'image': image, 'label': table['labels'][number], 'boxes': boxes}

    def prepare(self, number: tf.Tensor, make: Callable[[Example], T], with_boxes: bool = True) -> T:
        def of_kept() -> T:
            return make(self.load(number, with_boxes))

        if not len(self._undecoded):
            return of_kept()
        # The crop may miss the damaged part of an image: as without a cache, the original is used.
        is_kept = tf.reduce_prod(self._tensors['shapes'][number]) > 0
        return tf.cond(is_kept, of_kept, lambda: make(self.source.load(number, with_boxes)))

    def describe(self, number: int) -> str:
        return self.source.describe(number)

    def check(self, number: int) -> Example:
        if number in self._undecoded:
            return self.source.check(number)
        return self.load(tf.constant(number, tf.int64))

    def not_an_image(self, number: int) -> str | None:
        return self.source.not_an_image(number)


def with_cache(dataset: Dataset, cache: str, channels: int, passes: float, keeps_bad: bool = False) -> Dataset:
    """Returns the data set with its decoded images cached, if `cache` calls for it.

    Args:
        dataset: The data set to read.
        cache: 'off'; 'memory'; a folder for a file that later runs reuse; or 'auto': memory, if the data set will be
            read at least twice and takes at most 512 MiB and a quarter of the free memory.
        channels: Channels of the decoded images: 3 or 1.
        passes: How often the data set will be read; infinity if unknown.
        keeps_bad: Whether images that cannot be decoded are kept undecoded; otherwise they are errors.

    Raises:
        InputError: An image cannot be decoded, the images exceed memory, or the folder is not writable.
    """
    check_cache(cache)
    examples = dataset.examples
    if not isinstance(examples, StoredExamples) or examples.are_synthetic or cache == 'off':
        return dataset
    if cache == 'auto' and (
        passes < 2 or _estimated_bytes(examples, channels, keeps_bad) > min(_AUTO_LIMIT_BYTES, _free_memory() // 4)
    ):
        return dataset
    if cache == 'memory':
        _refuse_more_than_memory(examples, channels, keeps_bad)
    try:
        if cache in ('auto', 'memory'):
            decoded = _decode_in_memory(dataset, channels, keeps_bad)
        else:
            decoded = _decode_in_folder(dataset, channels, os.path.expanduser(cache), keeps_bad)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--cache={cache}: {first_line(error)}; name a writable folder') from error
    return dataclasses.replace(dataset, examples=decoded)


def _refuse_more_than_memory(examples: StoredExamples, channels: int, keeps_bad: bool) -> None:
    size, free = _estimated_bytes(examples, channels, keeps_bad), _free_memory()
    if size > free:
        raise InputError(
            f'--cache=memory: about {size / 2**30:.1f} GiB of decoded images, but {free / 2**30:.1f} GiB of memory are '
            'free; name a folder, --cache=FOLDER, or leave them encoded, --cache=off'
        )


def _free_memory() -> int:
    """Returns the free memory in bytes of this machine, or of its container if that has less."""
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such files, or no limit
        limit, used = (int(Path(f'/sys/fs/cgroup/memory.{name}').read_text()) for name in ('max', 'current'))
        free = min(free, limit - used)
    return max(free, 0)


def _estimated_bytes(examples: StoredExamples, channels: int, keeps_bad: bool) -> int:
    chosen = np.unique(np.linspace(0, len(examples) - 1, min(_SAMPLES, len(examples))).astype(int))
    sizes = []
    for number in chosen:
        try:
            sizes.append(int(tf.size(_decode_alone(examples, int(number), channels))))
        except InputError:
            if not keeps_bad:
                raise
    return int(np.mean(sizes) * len(examples)) if sizes else 0


def _decode_alone(examples: Examples, number: int, channels: int) -> tf.Tensor:
    """Decodes one example.

    Raises:
        InputError: The example cannot be read or decoded; the message names its place.
    """
    try:
        return images.decode(examples.check(number)['image'], channels)
    except InputError as error:
        raise InputError(f'{examples.describe(number)}: {error}') from None
    except tf.errors.OpError as error:
        problem = examples.image_problem(number, 'decoded', error)
        raise InputError(f'{examples.describe(number)}: {problem}') from error


def _decode_in_memory(dataset: Dataset, channels: int, keeps_bad: bool) -> DecodedExamples:
    has_memory_files = hasattr(os, 'memfd_create')
    with os.fdopen(os.memfd_create('decoded images'), 'w+b') if has_memory_files else tempfile.TemporaryFile() as file:
        table = _decode_all(dataset, channels, file, keeps_bad)
        return DecodedExamples(dataset.examples, _map(file), table)


def _decode_in_folder(dataset: Dataset, channels: int, folder: str, keeps_bad: bool) -> DecodedExamples:
    """Loads the decoded images from a folder, or decodes them and writes them there."""
    examples = dataset.examples
    assert isinstance(examples, StoredExamples)
    os.makedirs(folder, exist_ok=True)
    _remove_stale_parts(folder)
    name = f'{re.sub(r"[^a-z0-9_]+", "_", dataset.name)}-{channels}-{examples.fingerprint()[:16]}'
    pixels_path, table_path = os.path.join(folder, f'{name}.pixels'), os.path.join(folder, f'{name}.npz')
    table = _load_table(table_path, pixels_path, len(examples))
    if table is None or (len(table.undecoded()) and not keeps_bad):
        with atomic_file(pixels_path, shared=True) as part, open(part, 'w+b') as file:
            table = _decode_all(dataset, channels, file, keeps_bad)
            checksum = np.array(_checksum(part))
        with atomic_file(table_path, shared=True) as part, open(part, 'wb') as file:
            save_arrays(file, {'checksum': checksum, **table._asdict()})
    with open(pixels_path, 'rb') as file:
        return DecodedExamples(examples, _map(file), table)


def _remove_stale_parts(folder: str) -> None:
    """Removes partial files of this machine's killed processes."""
    for name in os.listdir(folder):
        match = re.fullmatch(r'\..+\.(\d+)\.part', name)
        if match and not psutil.pid_exists(int(match[1])):
            with contextlib.suppress(OSError):
                os.remove(os.path.join(folder, name))


def _load_table(table_path: str, pixels_path: str, num_images: int) -> ImageTable | None:
    """Returns the table of a complete cache, or None if it is missing or damaged."""
    damaged = '%s: damaged; the images are decoded again'
    try:
        columns = load_arrays(table_path)
        checksum = columns.pop('checksum')
        table = ImageTable(**columns)
        whole = len(table.starts) == num_images and os.path.getsize(pixels_path) == table.num_bytes
        if not whole or checksum != _checksum(pixels_path):
            logging.warning(damaged, pixels_path)
            return None
    except OSError:
        return None  # usually: not written yet
    except (DamagedTable, KeyError, TypeError):
        logging.warning(damaged.replace('damaged', 'damaged, or of another version'), table_path)
        return None
    return table


def _checksum(path: str) -> int:
    """Returns the CRC-32 of a file, or of `_MAX_BLOCKS` evenly spaced blocks of a large one, read in seconds."""
    blocks = math.ceil(os.path.getsize(path) / _BLOCK_BYTES)
    chosen = np.unique(np.linspace(0, blocks - 1, min(blocks, _MAX_BLOCKS)).astype(np.int64))
    checksum, buffer = 0, memoryview(bytearray(_BLOCK_BYTES))
    with open(path, 'rb', buffering=0) as file:
        for block in chosen.tolist():
            file.seek(block * _BLOCK_BYTES)
            checksum = zlib.crc32(buffer[: file.readinto(buffer)], checksum)
    return checksum


def _map(file: BinaryIO) -> tf.Tensor:
    """Returns a file's bytes as uint8 [bytes], memory-mapped: pages are loaded on use."""
    # Private, since TensorFlow accepts only writable arrays; pages are aligned as its kernels require.
    # Without NORESERVE the kernel would refuse a file larger than memory, as if all of it might be written to.
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    pages = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    # One buffer without a copy, because an epoch in another order needs random access to the images.
    return tf.experimental.dlpack.from_dlpack(np.frombuffer(pages, np.uint8).__dlpack__())


def _decode_all(dataset: Dataset, channels: int, file: BinaryIO, keeps_bad: bool) -> ImageTable:
    """Writes the pixels of all images to a file, in the order of the examples."""
    examples, done = dataset.examples, 0
    start = reported = time.monotonic()
    shapes, labels, counts, boxes = [], [], [], []
    with Progress(f'decoding {dataset.name}', len(examples), unit='image') as progress:
        for batch in _decoded_batches(examples, channels, keeps_bad):
            file.write(batch['pixels'].flat_values.numpy())
            shapes.append(batch['shape'].numpy())
            labels.append(batch['label'].numpy())
            counts.append(batch['boxes'].row_lengths().numpy())
            boxes.append(batch['boxes'].flat_values.numpy().reshape(-1, 4))
            done += len(labels[-1])
            if time.monotonic() - reported > _REPORT_SECS:
                progress.report(done, f'decoding {dataset.name} [{done}/{len(examples)}]')
                reported = time.monotonic()
    file.flush()
    all_shapes, box_counts = np.concatenate(shapes), np.concatenate(counts)
    sizes, box_ends = all_shapes.prod(axis=1), np.cumsum(box_counts)
    table = ImageTable(
        starts=np.cumsum(sizes) - sizes,
        shapes=all_shapes,
        labels=np.concatenate(labels),
        box_ranges=np.stack([box_ends - box_counts, box_ends], axis=1),
        boxes=np.concatenate(boxes),
    )
    seconds, size = time.monotonic() - start, table.num_bytes / 2**20
    logging.info('decoded %d images of %s in %.1f s, %.1f MiB', len(examples), dataset.name, seconds, size)
    if undecoded := len(table.undecoded()):
        logging.info('%d of them cannot be decoded; each is retried when its turn comes', undecoded)
    if not table.num_bytes:
        _decode_alone(examples, 0, channels)  # raises the error that all of them share
    return table


def _decoded_batches(examples: Examples, channels: int, keeps_bad: bool) -> Iterator[dict[str, tf.Tensor]]:
    """Yields batches of all examples in order: ragged pixels and boxes, shape and label.

    Raises:
        InputError: An example cannot be read or decoded, with its place; with `keeps_bad` it has no pixels instead.
    """

    @tf.autograph.experimental.do_not_convert
    def decode(number: tf.Tensor) -> dict[str, tf.Tensor]:
        example = examples.load(number)
        image = images.decode(example['image'], channels)
        return {
            'pixels': _of_any_length(tf.reshape(image, [-1])),
            'shape': tf.cast(tf.shape(image), tf.int64),
            'label': example['label'],
            'boxes': _of_any_length(example['boxes']),
        }

    @tf.autograph.experimental.do_not_convert
    def decode_or_leave(number: tf.Tensor) -> dict[str, tf.Tensor]:
        nothing = {
            'pixels': _of_any_length(tf.zeros([0], tf.uint8)),
            'shape': tf.constant([0, 0, channels], tf.int64),
            'label': tf.constant(0, tf.int64),
            'boxes': _of_any_length(tf.zeros([0, 4])),
        }
        tried = tf.data.Dataset.from_tensors(number).map(decode).ignore_errors()
        return tried.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()

    numbers = tf.data.Dataset.range(len(examples))
    decoded = (
        numbers.map(decode_or_leave if keeps_bad else decode, num_parallel_calls=usable_cores())
        .ragged_batch(_AT_ONCE)
        .prefetch(2)
    )
    batches = iter(without_tuning(decoded))
    for first in range(0, len(examples), _AT_ONCE):
        try:
            yield next(batches)
        except (tf.errors.OpError, UnicodeDecodeError):
            for number in range(first, min(first + _AT_ONCE, len(examples))):
                _decode_alone(examples, number, channels)
            raise


def _of_any_length(values: tf.Tensor) -> tf.Tensor:
    """Hides the static length, so that `ragged_batch` returns a ragged tensor even if all lengths are equal."""
    return tf.raw_ops.PlaceholderWithDefault(input=values, shape=[None, *values.shape[1:]])
