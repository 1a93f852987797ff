"""The source of a conversion: the images of each split, and where their bytes are.

A source names images without reading them, so that any process can take any of them:

    source = imagenet.open_source(options)
    for image in source.splits['train']:
        encoded = source.read(image)      # the image file's bytes, whatever its format
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class SourceImage:
    """One image that is not yet converted.

    Attributes:
        name: Its name within the source, unique in the split and the same on every machine, such as
            `train/n01440764/n01440764_10026.JPEG`; messages and the order of conversion use it.
        path: The file that holds its bytes: an image, an archive that is not compressed, a record file.
        offset: First of these bytes.
        size: Number of bytes.
        label: As it is written, the background class included.
        boxes: (ymin, xmin, ymax, xmax) as shares of the image's sides.
    """

    name: str
    path: str
    offset: int
    size: int
    label: int
    boxes: tuple[Box, ...] = ()


def read_range(path: str, offset: int, size: int) -> bytes:
    """Returns `size` bytes of a file, fewer if it ends before; an OSError says why it cannot be read."""
    with open(path, 'rb') as file:
        file.seek(offset)
        return file.read(size)


def read_bytes(image: SourceImage) -> bytes:
    """Returns the bytes of an image that lies as it is in its file."""
    return read_range(image.path, image.offset, image.size)


@dataclasses.dataclass(frozen=True)
class Source:
    """All that is to be converted.

    Attributes:
        splits: Name -> images, sorted by name.
        class_names: Name of each label, for labels.txt; the background class, if there is one, first.
        class_ids: Identifier of each label (a WordNet id), or empty if there are only names.
        read: Gives the bytes of an image; a module's function, so that other processes can call it.
        channels: 1 if the images are gray, else 3.
    """

    splits: dict[str, tuple[SourceImage, ...]]
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    read: Callable[[SourceImage], bytes] = read_bytes
    channels: int = 3


def shuffled(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Returns the images in an order without a pattern: by a hash of their names."""
    return sorted(images, key=lambda image: hashlib.sha256(image.name.encode()).digest())
