"""How images become the records of a data set: names of the files, keys of the records, what is encoded anew.

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
        jpeg_only: Everything becomes JPEG; otherwise JPEG and PNG stay, and the others become PNG.
        keep_png: What was PNG stays PNG even if it is resized.
        resize_shorter_side: Pixels that the shorter side has at most; None leaves all sizes.
        jpeg_quality: Of resized images, 1 to 100.
    """

    jpeg_only: bool = False
    keep_png: bool = False
    resize_shorter_side: int | None = None
    jpeg_quality: int = 90


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a worker needs to know to make a record of an image.

    Attributes:
        read: Gives the bytes of an image.
        encoding: How they are stored.
        imagenet: Whether records have the keys of slim's ImageNet, or the five of its other data sets.
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
        pattern: Their names, with `{split}` and, unless a split is one file, `{number}` and `{count}`.
        shards: Number of files of a split; of one that is not named here, it follows from its size.
        imagenet: Whether records have the keys of slim's ImageNet, and all images are JPEGs.
        keep_png: Whether PNGs stay PNGs even if they are resized.
    """

    pattern: str = _NUMBERED
    shards: Mapping[str, int] = dataclasses.field(default_factory=dict)
    imagenet: bool = False
    keep_png: bool = False

    @property
    def one_file(self) -> bool:
        """Whether a split is always one file."""
        return '{number' not in self.pattern

    def glob(self, split: str) -> str:
        """Returns a pattern that matches the files of a split, however many there are."""
        return self.pattern.replace(':05d', '').format(split=split, number='*', count='*')


# As slim writes them: research/slim/datasets/build_imagenet_data.py and download_and_convert_*.py.
_LAYOUTS = {
    'cifar10': Layout('cifar10_{split}.tfrecord', keep_png=True),
    'flowers': Layout(f'flowers_{_NUMBERED}.tfrecord'.replace('{split}-', '{split}_'), {'train': 5, 'validation': 5}),
    'image_folder': Layout(),
    'imagenet': Layout(shards={'train': 1024, 'validation': 128}, imagenet=True),
    'mnist': Layout('mnist_{split}.tfrecord', keep_png=True),
}
_TFDS_LAYOUT = Layout()


def layout_of(name: str) -> Layout:
    """Returns the layout of a data set; an unknown name is an InputError that lists them all."""
    if name.startswith(TFDS_PREFIX):
        return _TFDS_LAYOUT
    if name not in _LAYOUTS:
        raise unknown_name('dataset_name', name, [*_LAYOUTS, f'{TFDS_PREFIX}<name>'])
    return _LAYOUTS[name]
