"""The source of a conversion: the images of each split and the place of their bytes.

A source lists images without reading them, so any process can read any image:

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
    """An image to convert.

    Attributes:
        name: Name within the source, unique in the split and the same on every machine, such as
            `train/n01440764/n01440764_10026.JPEG`; used in messages and for the order of conversion.
        path: The file that holds its bytes: an image, an uncompressed archive, or a record file.
        offset: First byte in `path`.
        size: Number of bytes.
        label: The label to write, with the background class counted.
        boxes: (ymin, xmin, ymax, xmax) as shares of the image's sides.
    """

    name: str
    path: str
    offset: int
    size: int
    label: int
    boxes: tuple[Box, ...] = ()


def read_range(path: str, offset: int, size: int) -> bytes:
    """Returns `size` bytes of a file, fewer at its end; raises OSError if it cannot be read."""
    with open(path, 'rb') as file:
        file.seek(offset)
        return file.read(size)


def read_bytes(image: SourceImage) -> bytes:
    """Returns the bytes of an image that is stored unchanged in its file."""
    return read_range(image.path, image.offset, image.size)


@dataclasses.dataclass(frozen=True)
class Source:
    """The images and classes to convert.

    Attributes:
        splits: Name -> images, sorted by name.
        class_names: Name of each label, for labels.txt; the background class, if any, first.
        class_ids: Identifier of each label (a WordNet id), or empty.
        read: Returns the bytes of an image; a module-level function, so that other processes can call it.
        channels: 1 if the images are gray, else 3.
    """

    splits: dict[str, tuple[SourceImage, ...]]
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    read: Callable[[SourceImage], bytes] = read_bytes
    channels: int = 3


def shuffled(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Returns the images in pseudo-random order: by a hash of their names."""
    return sorted(images, key=lambda image: hashlib.sha256(image.name.encode()).digest())
