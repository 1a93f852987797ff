"""How images become a data set: file names, record keys, and which images are encoded again.

recipe = Recipe(read_bytes, Encoding(jpeg_only=True), imagenet=True, class_names=..., class_ids=...)
layout_of('imagenet').pattern       # '{split}-{number:05d}-of-{count:05d}'
"""

import dataclasses
from collections.abc import Callable, Mapping

from datasets.source import SourceImage
from support.errors import unknown_name

TFDS_PREFIX = 'tfds:'
_NUMBERED = '{split}-{number:05d}-of-{count:05d}'


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How images are stored.

    Attributes:
        jpeg_only: Whether everything becomes JPEG; otherwise JPEG and PNG are kept, and others become PNG.
        keep_png: Whether PNGs stay PNGs even if resized.
        resize_shorter_side: Maximum of the shorter side in pixels; None keeps all sizes.
        jpeg_quality: Quality of resized images, 1 to 100.
    """

    jpeg_only: bool = False
    keep_png: bool = False
    resize_shorter_side: int | None = None
    jpeg_quality: int = 90


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that a worker needs to turn an image into a record.

    Attributes:
        read: Returns the bytes of an image.
        encoding: How images are stored.
        imagenet: Whether records have the keys of slim's ImageNet, instead of the five of its other data sets.
        class_names: Name of each label.
        class_ids: Identifier of each label, for ImageNet's keys.
    """

    read: Callable[[SourceImage], bytes]
    encoding: Encoding
    imagenet: bool
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a data set's files.

    Attributes:
        pattern: File names, with `{split}` and, unless a split is one file, `{number}` and `{count}`.
        shards: Number of files per split; other splits get a number according to their size.
        imagenet: Whether records have the keys of slim's ImageNet, and all images are JPEGs.
        keep_png: Whether PNGs stay PNGs even if resized.
    """

    pattern: str = _NUMBERED
    shards: Mapping[str, int] = dataclasses.field(default_factory=dict)
    imagenet: bool = False
    keep_png: bool = False

    @property
    def one_file(self) -> bool:
        """Whether each split is one file."""
        return '{number' not in self.pattern

    def glob(self, split: str) -> str:
        """Returns a glob that matches all files of a split."""
        return self.pattern.replace(':05d', '').format(split=split, number='*', count='*')


# Slim's layouts: research/slim/datasets/build_imagenet_data.py and download_and_convert_*.py.
_LAYOUTS = {
    'cifar10': Layout('cifar10_{split}.tfrecord', keep_png=True),
    'flowers': Layout(f'flowers_{_NUMBERED}.tfrecord'.replace('{split}-', '{split}_'), {'train': 5, 'validation': 5}),
    'image_folder': Layout(),
    'imagenet': Layout(shards={'train': 1024, 'validation': 128}, imagenet=True),
    'mnist': Layout('mnist_{split}.tfrecord', keep_png=True),
}
_TFDS_LAYOUT = Layout()


def layout_of(name: str) -> Layout:
    """Returns the layout of a data set; raises InputError with all valid names if unknown."""
    if name.startswith(TFDS_PREFIX):
        return _TFDS_LAYOUT
    if name not in _LAYOUTS:
        raise unknown_name('dataset_name', name, [*_LAYOUTS, f'{TFDS_PREFIX}<name>'])
    return _LAYOUTS[name]
