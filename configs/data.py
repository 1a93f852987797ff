"""The options of training data: data set, batches and augmentation.

names = RecordNames(('image=image_raw', 'label=label'), 'photos-{split}-*.tfrecord')
names.keys                  # {'image': 'image_raw', 'label': 'label'}
"""

import dataclasses
import string

from configs.options import Options, option
from support.errors import InputError

PARTS = ('image', 'label', 'boxes')
_WORDS = ('auto', 'memory', 'off')
_NO_FOLDERS = {'', *_WORDS, 'mem', 'ram', 'on', 'none', 'no', 'yes', 'true', 'false', 'disk'}


@dataclasses.dataclass(frozen=True)
class RecordNames:
    """Names as the flags give them; by default slim's.

    Attributes:
        record_keys: `image=KEY`, `label=KEY`, `boxes=PREFIX`, each at most once.
        file_pattern: Glob of the files of a split, whose name `{split}` stands for; '' is the data set's own.
    """

    record_keys: tuple[str, ...] = ()
    file_pattern: str = ''

    def __post_init__(self) -> None:
        pairs = [pair.partition('=') for pair in self.record_keys]
        given = f'--record_keys={",".join(self.record_keys)}'
        for part, _, key in pairs:
            if part not in PARTS or not key:
                form = 'write image=KEY, label=KEY or boxes=PREFIX, separated by commas'
                raise InputError(f'{given}: unknown entry {part}={key}; {form}')
        for part in PARTS:
            if sum(name == part for name, _, _ in pairs) > 1:
                raise InputError(f'{given}: {part} is named twice')
        self._check_pattern()

    def _check_pattern(self) -> None:
        given = f'--file_pattern={self.file_pattern}'
        try:
            fields = {field for _, field, _, _ in string.Formatter().parse(self.file_pattern) if field is not None}
            self.file_pattern.format(split='train')
        except (ValueError, LookupError, AttributeError):
            fields = {''}
        if fields - {'split'}:
            raise InputError(f'{given}: only {{split}}, the name of the split, may appear in braces')
        if '/' in self.file_pattern or '\0' in self.file_pattern:
            raise InputError(f'{given}: must be a pattern of file names in --dataset_dir, without folders')

    @property
    def keys(self) -> dict[str, str]:
        """The given keys by part: image, label, boxes."""
        return {part: key for part, _, key in (pair.partition('=') for pair in self.record_keys)}

    @property
    def flags(self) -> str:
        """The given flags as text, for messages."""
        keys = [f'--record_keys={",".join(self.record_keys)}'] if self.record_keys else []
        return ' '.join([*keys, *([f'--file_pattern={self.file_pattern}'] if self.file_pattern else [])])

    def or_else(self, others: 'RecordNames') -> 'RecordNames':
        """Returns a copy in which the names of `others` replace missing ones."""
        return RecordNames(self.record_keys or others.record_keys, self.file_pattern or others.file_pattern)

    def __bool__(self) -> bool:
        return bool(self.record_keys or self.file_pattern)


SLIM_NAMES = RecordNames()


@dataclasses.dataclass(frozen=True)
class DataOptions(Options):
    """Training data and batches."""

    dataset_name: str | None = option(
        None,
        'Data set: imagenet, cifar10, mnist, flowers or digits (TFRecords); image_folder (one folder of images per '
        'class); tfds:<name>; synthetic. Default: imagenet, or digits without --dataset_dir.',
        fixed=True,
    )
    dataset_dir: str | None = option(
        None,
        'Folder of the data set. Not needed for digits (embedded) and synthetic; default for tfds:<name>: '
        '~/tensorflow_datasets.',
        path=True,
    )
    dataset_split_name: str = option(
        'train',
        "Split to train on, or part of one in TFDS notation: 'train[:90%]', 'train[100:200]', 'train+validation'.",
        fixed=True,
    )
    file_pattern: str | None = option(
        None,
        "Names of a split's TFRecord files, if they differ from slim's: 'photos-{split}-*.tfrecord'.",
    )
    record_keys: tuple[str, ...] = option(
        (),
        "Feature keys in the records, if they differ from slim's: image=image_raw,label=label; boxes=PREFIX for "
        'bounding boxes.',
        fixed=True,
    )
    labels_offset: int = option(
        0,
        'Number subtracted from the labels and from the number of classes; 1 removes the background class.',
        lower=0,
    )
    batch_size: int = option(32, 'Examples per step, over all devices (slim: per clone).', lower=1, upper=2**20)
    gradient_accumulation_steps: int = option(
        1,
        'Batches per update: gradients are summed over this many batches, as for a batch that much larger.',
        lower=1,
        upper=2**16,
    )
    preprocessing_name: str | None = option(None, "Preprocessing. Default: the net's own.")
    use_grayscale: bool = option(False, 'Feed the net one gray channel instead of three.')
    channels: int | None = option(
        None,
        'Channels of the input images: 3 (gray images are expanded), or 1, like --use_grayscale. Default: 3, or 1 '
        'for a gray data set if the preprocessing keeps its single channel.',
        choices=(1, 3),
    )
    cache: str = option(
        'auto',
        'Cache for decoded images: auto (in memory, if they take at most 512 MiB and are read at least twice), '
        'memory, off, or a folder for a file that later runs reuse. Caching does not change training.',
        path=True,
    )
    on_bad_image: str = option(
        'stop',
        'What to do if an example cannot be read or prepared: stop (after saving a checkpoint), or skip it and use '
        'the next example in training order instead.',
        choices=('stop', 'skip'),
    )
    max_bad_images: int = option(
        100,
        'With --on_bad_image=skip: maximum number of skipped examples, each of which is logged; one more stops '
        'training.',
        lower=0,
    )
    data_service: str | None = option(
        None,
        'Address (grpc://host:port) of the dispatcher of a tf.data service to read through; its workers need the '
        'same data at the same path.',
    )
    worker_files: str = option(
        'all',
        'all: each worker reads its share of every batch from all files, so batches do not depend on the number of '
        'workers; own: each worker reads only its own files, if there are enough of them, so it needs less disk or '
        'cache.',
        choices=('all', 'own'),
    )
    synthetic_images: str = option(
        'device',
        'With synthetic data: device keeps one batch on the device; host copies a batch to the device in every step.',
        choices=('device', 'host'),
    )
    seed: int = option(
        0,
        'Seed for initial weights, order of examples, augmentation and dropout.',
        lower=0,
        upper=2**63 - 1,
        fixed=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cache(self.cache)
        RecordNames(self.record_keys, self.file_pattern or '')
        if self.on_bad_image == 'skip' and self.data_service is not None:
            raise InputError(
                '--on_bad_image=skip cannot be combined with --data_service, which does not report skipped examples; '
                'leave one of them out'
            )

    @property
    def examples_per_step(self) -> int:
        """Examples per step, over all devices."""
        return self.batch_size * self.gradient_accumulation_steps


@dataclasses.dataclass(frozen=True)
class AugmentOptions(Options):
    """Augmentation of training images; evaluation images are never augmented."""

    random_flip: bool = option(
        True, 'Mirror half of the training images at random, if the preprocessing does. (slim: always)', fixed=True
    )
    min_crop_area: float = option(
        0.05,
        'inception preprocessing: minimum area of a crop, as a share of the image. A crop always contains at least a '
        'tenth of a bounding box (without boxes: of the image).',
        above=0.0,
        upper=1.0,
        fixed=True,
    )
    color_distortion: str = option(
        'fast',
        "inception preprocessing: fast changes brightness and saturation, like slim's scripts; full adds hue and "
        'contrast, in one of four orders; off leaves colours unchanged.',
        choices=('fast', 'full', 'off'),
        fixed=True,
    )
    use_bounding_boxes: bool = option(
        False,
        "inception preprocessing: sample crops around the records' bounding boxes. (slim: never)",
        fixed=True,
    )
    random_shift: int = option(
        0,
        'Shift each image by up to this many pixels along both axes, filling by reflection; 0 disables shifts. '
        '(slim: never)',
        lower=0,
        upper=2**13,
        fixed=True,
    )
    rand_augment_ops: int = option(
        0,
        "RandAugment: operations per image, drawn for each image from the paper's fourteen; 0 disables RandAugment.",
        lower=0,
        upper=16,
        fixed=True,
    )
    rand_augment_magnitude: float = option(
        9.0, 'RandAugment: magnitude of all operations, from 0 to 10.', lower=0.0, upper=10.0, fixed=True
    )
    random_erasing_prob: float = option(
        0.0,
        "Random erasing: probability that a box of 2 to 33 % of an image's area is set to zero in the net's input.",
        lower=0.0,
        upper=1.0,
        fixed=True,
    )
    mixup_alpha: float = option(
        0.0,
        'Mixup: blend pairs of images and their labels, with a share drawn from Beta(alpha, alpha); 0 disables Mixup.',
        lower=0.0,
        upper=100.0,
        fixed=True,
    )
    cutmix_alpha: float = option(
        0.0,
        'CutMix: exchange a box between the images of a pair, and the same share of their labels; the share that an '
        'image keeps is drawn from Beta(alpha, alpha). 0 disables CutMix.',
        lower=0.0,
        upper=100.0,
        fixed=True,
    )
    mixup_prob: float = option(
        1.0, 'Probability that Mixup or CutMix is applied to a pair.', lower=0.0, upper=1.0, fixed=True
    )
    mixup_switch_prob: float = option(
        0.5,
        'Probability of CutMix rather than Mixup for a mixed pair, if both are enabled.',
        lower=0.0,
        upper=1.0,
        fixed=True,
    )
    mixup_off_epoch: float = option(
        0.0, 'Epochs after which Mixup and CutMix stop; 0: never.', lower=0.0, upper=1e9, fixed=True
    )

    @property
    def mixes(self) -> bool:
        """Whether images are mixed at all."""
        return bool(self.mixup_alpha or self.cutmix_alpha)


def check_cache(cache: str) -> None:
    """Checks `--cache`: misspelt keywords and remote folders, whose files cannot be memory-mapped, are errors.

    Raises:
        InputError: names the allowed values.
    """
    if '://' in cache:
        raise InputError(
            f'--cache={cache}: must be auto, memory, off, or a folder on this machine (the file is memory-mapped)'
        )
    if cache.strip().lower() in _NO_FOLDERS and cache not in _WORDS:
        raise InputError(f'--cache={cache}: must be auto, memory, off, or a folder (./{cache.strip()} if you mean one)')
