"""Data sets of TensorFlow Datasets as a source, and published archives downloaded by TFDS with checksums.

    source = open_source('beans', '/data/tfds')
    source.splits['test'][0]        # SourceImage('test/0000000', '/data/tfds/.../beans-test.tfrecord...', 77, 14811, 0)
    source_dir = download_archives('mnist', '/tmp/work', '/data/tfds')      # for mnist.open_source

Images are not copied out of the record files: only the few bytes around each are read, to find its offset.
"""

import mmap
import os
import struct
from collections.abc import Iterator

import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from datasets.source import Source, SourceImage
from datasets.tfds import TfdsBuilder, explained_download, open_builder
from datasets.tfrecord import index_files
from support.errors import InputError

_BUILDERS = {'cifar10': 'cifar10', 'mnist': 'mnist', 'flowers': 'tf_flowers'}
_HEADER_BYTES = 12
_BYTES_FIELD = 2  # wire type: a length, then that many bytes


def open_source(name: str, data_dir: str | None = None) -> Source:
    """Lists the images of all splits with labels, in the order of the records; prepares the data set first if missing.

    Args:
        name: In TFDS notation, see `datasets.tfds.open_builder`.
        data_dir: TFDS's folder of data sets; by default ~/tensorflow_datasets.

    Raises:
        InputError: As `open_builder`; also if no split has labels or a file is damaged.
    """
    builder = open_builder(name, data_dir)
    listed = {split: tuple(_list_split(builder, split)) for split in builder.splits}
    for split in [split for split, images in listed.items() if any(image.label < 0 for image in images)]:
        if len(listed) == 1:
            raise InputError(f'tfds:{name}: split {split} has images without labels')
        logging.warning('tfds:%s: split %s has images without labels, and is left out', name, split)
        del listed[split]
    return Source(listed, builder.class_names, channels=builder.channels)


def download_archives(name: str, work_dir: str, data_dir: str | None = None) -> str:
    """Returns a folder in `work_dir` with links to a data set's archives under their published names.

    The archives are kept in `downloads` of TFDS's `data_dir` (by default ~/tensorflow_datasets), downloaded if missing,
    and checked against their checksums.

    Raises:
        InputError: There is no network, a checksum is wrong, or there is not enough space.
    """
    import tensorflow_datasets as tfds

    builder = _BUILDERS[name]
    with explained_download(f'--dataset_name={name}'):
        infos = tfds.builder_cls(builder).url_infos
        manager = tfds.download.DownloadManager(
            download_dir=os.path.join(data_dir or tfds.core.constants.DATA_DIR, 'downloads'),
            url_infos=infos,
            dataset_name=builder,
            force_checksums_validation=True,
        )
        paths = manager.download({info.filename: url for url, info in infos.items()})
        folder = os.path.join(work_dir, 'downloads')
        os.makedirs(folder, exist_ok=True)
        for filename, path in paths.items():
            link = os.path.join(folder, filename)
            if os.path.lexists(link):
                os.remove(link)
            os.symlink(os.path.abspath(path), link)
    return folder


def _list_split(builder: TfdsBuilder, split: str) -> Iterator[SourceImage]:
    index = index_files(builder.splits[split])
    number = 0
    for file_number, path in enumerate(index.paths):
        offsets = index.offsets[index.file_numbers == file_number].tolist()
        if not offsets:  # an empty file cannot be mapped
            continue
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for i, offset in enumerate(offsets):
                start = offset + _HEADER_BYTES
                try:
                    image, label = _find_image(data, start, start + struct.unpack_from('<Q', data, offset)[0], builder)
                except (ValueError, IndexError, KeyError, DecodeError) as error:
                    raise InputError(f'{path}, record {i}: not an image with a label, or damaged: {error}') from error
                yield SourceImage(f'{split}/{number:07d}', path, image[0], image[1] - image[0], label)
                number += 1


def _find_image(data: mmap.mmap, start: int, end: int, builder: TfdsBuilder) -> tuple[tuple[int, int], int]:
    """Returns the range of the image's bytes in a serialized `tf.train.Example`, and the label.

    Example { Features features = 1; }, Features { map<string, Feature> feature = 1; }, a map entry { key = 1;
    value = 2; }, Feature { BytesList bytes_list = 1; ... }, BytesList { repeated bytes value = 1; }
    """
    features = {}
    for _, features_start, features_end in _fields(data, start, end):
        for _, entry_start, entry_end in _fields(data, features_start, features_end):
            entry = {field: (first, last) for field, first, last in _fields(data, entry_start, entry_end)}
            features[data[slice(*entry[1])].decode()] = entry[2]
    ((_, *values),) = _fields(data, *features[builder.image_key])
    ((_, image_start, image_end),) = _fields(data, *values)
    (label,) = tf.train.Feature.FromString(data[slice(*features[builder.label_key])]).int64_list.value
    if label >= len(builder.class_names):
        raise ValueError(f'its label is {label} of {len(builder.class_names)} classes')
    return (image_start, image_end), label


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields number, begin and end of each field of a protocol buffer that has only bytes or messages."""
    while position < end:
        tag, position = _varint(data, position)
        size, position = _varint(data, position)
        if tag & 7 != _BYTES_FIELD or position + size > end:
            raise ValueError(f'no field of a tf.train.Example at byte {position}')
        yield tag >> 3, position, position + size
        position += size


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """Returns the varint (seven bits a byte) at `position`, and its end."""
    value, shift = 0, 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
