"""Reads Keras 3's `.keras` and `.weights.h5` files under slim's variable names, without running any code in them.

    reader = KerasReader('/tmp/lenet.keras')
    reader.get_tensor('LeNet/conv1/weights')

Only numbers are read: the config in a `.keras` file, which can name any Python function, is never deserialised, and
HDF5's links to other files, virtual data sets and user blocks of pickles are refused. The declared unpacked size is
compared with the stored size before memory is allocated. Data whose declared size is not binding is refused: zip's
other methods and HDF5's filters, which Keras does not use, do not stop at the size that the file declares.

Files written by `export/` carry a JSON text beside the weights, `METADATA`: the content of model.json, the step, and a
checksum of each variable, which HDF5 lacks.
"""

import io
import itertools
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from engine.checkpoints.names import STEP_KEY
from nets.variables import SEPARATOR, SLIM_NAMES

METADATA = 'slim.json'
HDF5_MAGIC, ZIP_MAGIC = b'\x89HDF\r\n\x1a\n', b'PK\x03\x04'

_WEIGHTS = 'model.weights.h5'
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MAX_EXPANSION, _ALWAYS_ALLOWED, _PIECE = 100, 1 << 20, 1 << 20
_MAX_DEPTH, _MAX_OBJECTS, _MAX_STEP = 16, 100_000, np.iinfo(np.int64).max
_KERNELS = tuple(SLIM_NAMES.values())
# Slim's names of a layer's variables, which Keras only numbers, by the layer's class.
_NAMES_OF_CLASS = {
    'depthwise_conv2d': ('depthwise_weights', 'biases'),
    'separable_conv2d': ('depthwise_weights', 'pointwise_weights', 'biases'),
}
# In slim, batch normalisation has a scale (gamma) only on request.
_BATCH_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')


class KerasReader:
    """A `.keras` or `.weights.h5` file, with the methods of `tf.train.load_checkpoint`'s reader.

    Attributes:
        metadata: The description that `export/` wrote beside the weights; empty in foreign files.

    Raises:
        ValueError, OSError, RuntimeError, KeyError, TypeError, ArithmeticError or zipfile.BadZipFile, here and when
            reading: the file is damaged or has forbidden content.
    """

    def __init__(self, path: str) -> None:
        metadata: Any = None
        with tf.io.gfile.GFile(path, 'rb') as file:
            self._size = file.size()
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
            if is_zip:
                content, metadata = _unzip(file)
            elif '://' in path:
                file.seek(0)
                content = io.BytesIO(file.read())
        self._file = h5py.File(content if is_zip or '://' in path else path, 'r')
        if metadata is None and METADATA in self._file:
            metadata = bytes(_numbers(_child(self._file, METADATA), self._size).astype(np.uint8))
        self.metadata = _parse(metadata) if metadata is not None else {}
        self._datasets = _by_slims_names(self._file)
        if not self._datasets:
            raise ValueError('it holds no weights in the format of Keras 3')

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Returns the shape of each variable by name."""
        shapes = {name: list(dataset.shape) for name, dataset in self._datasets.items()}
        return {**shapes, STEP_KEY: []} if STEP_KEY in self.metadata else shapes

    def get_tensor(self, name: str) -> np.ndarray:
        """Reads a variable."""
        if name == STEP_KEY and name not in self._datasets:
            return np.asarray(self.metadata[STEP_KEY], np.int64)
        value = _numbers(self._datasets[name], self._size)
        checksum = self.metadata.get('crc32', {}).get(name)
        if checksum is not None and checksum != crc32(value):
            raise ValueError('its checksum does not match')
        return value


def crc32(value: np.ndarray) -> int:
    """Returns a variable's checksum, as stored in the metadata."""
    return zlib.crc32(np.ascontiguousarray(value).data)


def _parse(text: bytes) -> dict[str, Any]:
    metadata = json.loads(text)
    kinds = {STEP_KEY: int, 'crc32': dict, 'model': dict}
    if not isinstance(metadata, dict) or any(
        type(metadata.get(key, kind())) is not kind for key, kind in kinds.items()
    ):
        raise ValueError(f'{METADATA} in it is not as this project writes it')
    if not 0 <= metadata.get(STEP_KEY, 0) <= _MAX_STEP:
        raise ValueError(f'{STEP_KEY} in its {METADATA} is not from 0 to {_MAX_STEP}')
    return metadata


def _unzip(file: tf.io.gfile.GFile) -> tuple[io.BytesIO, bytes | None]:
    """Returns the HDF5 file and the metadata (None in foreign files) from a `.keras` file."""
    with zipfile.ZipFile(file) as archive:
        size = file.size()
        names = set(archive.namelist())
        if _WEIGHTS not in names:
            raise ValueError(f'a zip file without {_WEIGHTS}, so no .keras file')
        weights = _member(archive, _WEIGHTS, size)
        return weights, _member(archive, METADATA, size).getvalue() if METADATA in names else None


def _member(archive: zipfile.ZipFile, name: str, archive_size: int) -> io.BytesIO:
    info = archive.getinfo(name)
    if info.compress_type not in _METHODS:
        raise ValueError(f'{name} in it is compressed by method {info.compress_type}; Keras stores or deflates')
    _refuse_bomb(name, info.file_size, min(info.compress_size, archive_size))
    content = io.BytesIO()
    with archive.open(info) as member:  # it verifies the checksum
        # In pieces: a single read would unpack all the data before cutting it to `file_size`.
        while piece := member.read(min(info.file_size - content.tell(), _PIECE)):
            content.write(piece)
    if content.tell() != info.file_size:
        raise ValueError(f'{name} in it holds {content.tell()} bytes, not {info.file_size} as the zip directory says')
    return content


def _refuse_bomb(name: str, size: int, stored: int) -> None:
    if size > _ALWAYS_ALLOWED + _MAX_EXPANSION * stored:
        raise ValueError(f'{name} in it would unpack {stored} bytes to {size}: refused as a decompression bomb')


def _by_slims_names(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Returns the layers' variables by slim's names, and all other variables by their path in the file."""
    found: dict[str, h5py.Dataset] = {}
    scope = ''
    for place, name, datasets in _variable_groups(file, '', 0, itertools.count(1)):
        if not place:
            scope = name
        layer = [scope, *name.split(SEPARATOR)] if _is_layer(place) else [place or scope]
        names = _variable_names(place, len(datasets)) if _is_layer(place) else tuple(map(str, range(len(datasets))))
        found |= {'/'.join([*filter(None, layer), kind]): value for kind, value in zip(names, datasets, strict=True)}
    for name in found:
        if not name.isprintable():
            raise ValueError(f'{name!r} in it is no name of a variable')
    return found


def _is_layer(place: str) -> bool:
    return place.startswith('layers/')


def _variable_groups(
    group: h5py.Group, place: str, depth: int, opened: Iterator[int]
) -> Iterator[tuple[str, str, list[h5py.Dataset]]]:
    """Yields path, layer name and variables of every group with variables, outermost first; counts opened objects."""
    if depth > _MAX_DEPTH:
        raise ValueError(f'groups in groups in it, more than {_MAX_DEPTH} deep')
    members = _members(group, opened)
    members.pop(METADATA, None)
    variables = members.pop('vars', None)
    if isinstance(variables, h5py.Group):
        datasets = _members(variables, opened)
        in_order = [datasets[key] for key in sorted(datasets, key=lambda key: (len(key), key))]
        yield place, _layer_name(variables, place), [item for item in in_order if isinstance(item, h5py.Dataset)]
    for key, member in members.items():
        if isinstance(member, h5py.Group):
            yield from _variable_groups(member, f'{place}/{key}'.lstrip('/'), depth + 1, opened)


def _members(group: h5py.Group, opened: Iterator[int]) -> dict[str, h5py.Group | h5py.Dataset]:
    members = {}
    for key, number in zip(group, opened, strict=False):
        # Each path counts: hard links can make a few groups reachable by many paths.
        if number > _MAX_OBJECTS:
            raise ValueError(f'more than {_MAX_OBJECTS} groups and variables in it')
        members[key] = _child(group, key)
    return members


def _child(group: h5py.Group, key: str) -> h5py.Group | h5py.Dataset:
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f'{group.name}/{key} in it is a link, which is not followed')
    child = group[key]
    if isinstance(child, h5py.Dataset) and child.shape is None:
        raise ValueError(f'{group.name}/{key} in it is a data set of no shape')
    return child


def _layer_name(variables: h5py.Group, place: str) -> str:
    name = variables.attrs.get('name', place.rpartition('/')[2])
    return name.decode() if isinstance(name, bytes) else str(name)


def _variable_names(place: str, number: int) -> tuple[str, ...]:
    layer_class = re.sub(r'_\d+$', '', place.rpartition('/')[2])
    if layer_class == 'batch_normalization':
        return _BATCH_NORM[len(_BATCH_NORM) - number :] if number <= len(_BATCH_NORM) else ()
    names = _NAMES_OF_CLASS.get(layer_class, _KERNELS)
    return (*names[:number], *map(str, range(len(names), number)))


def _dtype(dataset: h5py.Dataset) -> np.dtype:
    # NumPy has no bfloat16, so Keras records it in an attribute.
    is_bfloat16 = dataset.dtype.itemsize == 2 and str(dataset.attrs.get('dtype')) == 'bfloat16'
    dtype = np.dtype(tf.bfloat16.as_numpy_dtype) if is_bfloat16 else dataset.dtype
    if not is_bfloat16 and dtype.kind not in 'fiub':
        raise ValueError(f'{dataset.name} in it holds {dtype}, not numbers')
    return dtype


def _numbers(dataset: h5py.Dataset, file_size: int) -> np.ndarray:
    """Reads a data set; raises ValueError unless it holds numbers, uncompressed and in this file."""
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'{dataset.name} in it is no array')
    dtype = _dtype(dataset)
    if dataset.external or dataset.is_virtual:
        raise ValueError(f'{dataset.name} in it lies in another file, which is not read')
    # HDF5 loads whole chunks, however small the data set's shape.
    numbers = max(math.prod(dataset.shape), math.prod(dataset.chunks or ()))
    stored = min(dataset.id.get_storage_size(), file_size)
    _refuse_bomb(str(dataset.name), numbers * dtype.itemsize, stored)
    if dataset.id.get_create_plist().get_nfilters():
        raise ValueError(f'{dataset.name} in it is compressed, as Keras never does; h5repack -f NONE makes it readable')
    value = np.asarray(dataset[()])
    return value if value.dtype == dtype else value.view(dtype)
