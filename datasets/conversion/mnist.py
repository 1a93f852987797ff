"""MNIST from its four published files, compressed or not.

    source = open_source('/data/mnist', '/tmp/work')    # /data/mnist holds train-images-idx3-ubyte.gz and three more
    source.read(source.splits['test'][0])               # a gray PNG

LeCun, Cortes and Burges. An idx file is: two zeros, 8 for uint8, the number of dimensions, each of them (uint32, big
endian), the data. Fashion-MNIST and similar sets have the same files, and would get the names of digits.
"""

import io
import math
import os
import struct
from collections.abc import Iterator

from PIL import Image

from datasets.conversion.archives import decompress
from datasets.source import Source, SourceImage, read_bytes, read_range
from support.errors import InputError

CLASS_NAMES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
_PREFIXES = {'train': 'train', 'test': 't10k'}
_SIDE = 28
_MAX_BYTES = 2**26  # the largest file has 47 MB


def open_source(source_dir: str, work_dir: str) -> Source:
    """Lists the images of the splits `train` and `test`, in the order of the files.

    Args:
        source_dir: Folder of `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, each with or without `.gz`.
        work_dir: Folder for the decompressed files, from which images are read.

    Raises:
        InputError: A file is missing, damaged or not of the expected kind, or there is not enough space.
    """
    splits = {split: tuple(_list_split(split, source_dir, work_dir)) for split in _PREFIXES}
    return Source(splits, CLASS_NAMES, read=read_png, channels=1)


def read_png(image: SourceImage) -> bytes:
    """Returns an image's gray values as a PNG."""
    png = io.BytesIO()
    Image.frombytes('L', (_SIDE, _SIDE), read_bytes(image)).save(png, 'PNG')
    return png.getvalue()


def _list_split(split: str, source_dir: str, work_dir: str) -> Iterator[SourceImage]:
    images = _find(f'{_PREFIXES[split]}-images-idx3-ubyte', source_dir, work_dir)
    labels = _find(f'{_PREFIXES[split]}-labels-idx1-ubyte', source_dir, work_dir)
    (count, *sides), first = _read_header(images, 3)
    (label_count,), first_label = _read_header(labels, 1)
    if sides != [_SIDE, _SIDE] or count != label_count or not count:
        raise InputError(
            f'{images}: {count} images of {sides[0]}x{sides[1]} with {label_count} labels; '
            'those of MNIST are 28x28, with a label each'
        )
    size = _SIDE * _SIDE
    content = read_range(labels, first_label, label_count)
    for i, label in enumerate(content):
        if label >= len(CLASS_NAMES):
            raise InputError(f'{labels}: label {i} is {label}; there are 0 to 9')
        yield SourceImage(f'{split}/{i:05d}', images, first + i * size, size, label)


def _find(name: str, source_dir: str, work_dir: str) -> str:
    path = os.path.join(source_dir, name)
    if os.path.isfile(path):
        return path
    if os.path.isfile(f'{path}.gz'):
        return decompress(f'{path}.gz', work_dir, _MAX_BYTES)
    raise InputError(f'--source_dir={source_dir} has neither {name} nor {name}.gz')


def _read_header(path: str, dimensions: int) -> tuple[list[int], int]:
    """Returns the dimensions of an idx file of bytes, and the offset of its data."""
    length = 4 + 4 * dimensions
    try:
        size = os.path.getsize(path)
        header = read_range(path, 0, length)
    except OSError as error:
        raise InputError(f'{path}: cannot be read: {error.strerror}') from error
    if len(header) < length or header[:4] != bytes([0, 0, 8, dimensions]):
        raise InputError(f'{path}: not an idx file of bytes with {dimensions} dimensions')
    shape = list(struct.unpack(f'>{dimensions}I', header[4:]))
    expected = length + math.prod(shape)
    if size != expected:
        raise InputError(f'{path}: truncated or corrupt: {size} bytes instead of {expected}; download it again')
    return shape, length
