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
                raise InputError(f'{given}: {part}={key} is none of these: {form}')
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
            raise InputError(f'{given}: only {{split}}, the name of a split, may stand in braces')
        if '/' in self.file_pattern or '\0' in self.file_pattern:
            raise InputError(f'{given}: a pattern of names in --dataset_dir, without folders')

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
    """Which examples are read, and how they become a batch."""

    dataset_name: str | None = option(
        None,
        'Data set: imagenet, cifar10, mnist, flowers or digits (TFRecords); image_folder (a folder of images a class); '
        'tfds:<name>; synthetic. Default: imagenet; digits without --dataset_dir.',
        fixed=True,
    )
    dataset_dir: str | None = option(
        None,
        'Folder of the data set. digits, which is embedded, and synthetic need none; that of tfds:<name> is '
        'by default ~/tensorflow_datasets.',
        path=True,
    )
    dataset_split_name: str = option(
        'train',
        "Split to train on, or part of it as in TFDS: 'train[:90%]', 'train[100:200]', 'train+validation'.",
        fixed=True,
    )
    file_pattern: str | None = option(
        None,
        "Names of the TFRecord files of a split, if they are not slim's: 'photos-{split}-*.tfrecord'.",
    )
    record_keys: tuple[str, ...] = option(
        (),
        "Keys in the records, if they are not slim's: image=image_raw,label=label; boxes=PREFIX for bounding boxes.",
        fixed=True,
    )
    labels_offset: int = option(
        0,
        'Subtracted from the labels and from the number of classes (1 leaves out the background class).',
        lower=0,
    )
    batch_size: int = option(32, 'Examples a step over all devices. (slim: per clone)', lower=1, upper=2**20)
    gradient_accumulation_steps: int = option(
        1,
        'Batches whose gradients are added up for each step, which is then that of a so many times larger batch.',
        lower=1,
        upper=2**16,
    )
    preprocessing_name: str | None = option(None, "Preprocessing; the default is the net's own.")
    use_grayscale: bool = option(False, 'Give the net one gray channel instead of three.')
    channels: int | None = option(
        None,
        'Channels of the images that the net takes: 3, to which gray images are expanded; or 1, as --use_grayscale. '
        'Default: 3, or 1 for a gray data set if the preprocessing keeps its one channel.',
        choices=(1, 3),
    )
    cache: str = option(
        'auto',
        'Keep decoded images: auto (in memory, for at most 512 MiB of them, if they are read at least twice), memory, '
        'off, or a folder for a file of them, which later runs find again. Training does not change by it.',
        path=True,
    )
    on_bad_image: str = option(
        'stop',
        'What to do with an example that cannot be read or prepared: stop, after saving what was trained; or skip it, '
        'and take the next one in the order of training in its place.',
        choices=('stop', 'skip'),
    )
    max_bad_images: int = option(
        100, 'With --on_bad_image=skip: how many may be skipped, each of which is named; one more stops.', lower=0
    )
    data_service: str | None = option(
        None,
        'Read through the tf.data service whose dispatcher listens at grpc://host:port; its workers need the same '
        'data at the same path.',
    )
    worker_files: str = option(
        'all',
        'all: each worker reads its share of every batch from all files, so that batches do not depend on the number '
        'of workers; own: it reads files of its own, where there are enough, which fewer bytes of disk or cache serve.',
        choices=('all', 'own'),
    )
    synthetic_images: str = option(
        'device',
        'synthetic data: device keeps one batch there; host sends one to the device in every step.',
        choices=('device', 'host'),
    )
    seed: int = option(
        0, 'Seed of initial weights, order of examples, augmentation and dropout.', lower=0, upper=2**63 - 1, fixed=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_cache(self.cache)
        RecordNames(self.record_keys, self.file_pattern or '')
        if self.on_bad_image == 'skip' and self.data_service is not None:
            raise InputError(
                '--on_bad_image=skip: does not go with --data_service, which does not report what it skips; leave one '
                'of them out'
            )

    @property
    def examples_per_step(self) -> int:
        """Examples per step, over all devices."""
        return self.batch_size * self.gradient_accumulation_steps


@dataclasses.dataclass(frozen=True)
class AugmentOptions(Options):
    """How training images are varied; evaluation never is."""

    random_flip: bool = option(
        True, 'Mirror every other training image, where the preprocessing does. (slim: always)', fixed=True
    )
    min_crop_area: float = option(
        0.05,
        "inception preprocessing: smallest share of the image's area that a crop takes. At least a tenth of a box, "
        'which without boxes is the whole image, is always inside.',
        above=0.0,
        upper=1.0,
        fixed=True,
    )
    color_distortion: str = option(
        'fast',
        "inception preprocessing: fast is brightness and saturation, all that slim's scripts reach; full adds hue and "
        'contrast in one of four orders; off leaves the colours as they are.',
        choices=('fast', 'full', 'off'),
        fixed=True,
    )
    use_bounding_boxes: bool = option(
        False,
        'inception preprocessing: sample crops around the boxes of the records. (slim never passes them in)',
        fixed=True,
    )
    random_shift: int = option(
        0,
        'Shift each image by up to so many pixels along both sides, and fill by reflection; 0: not. (slim: never)',
        lower=0,
        upper=2**13,
        fixed=True,
    )
    rand_augment_ops: int = option(
        0,
        'RandAugment: operations applied to each image, drawn anew for each from the fourteen of the paper; 0: none.',
        lower=0,
        upper=16,
        fixed=True,
    )
    rand_augment_magnitude: float = option(
        9.0, 'Strength of all operations of RandAugment, of 10.', lower=0.0, upper=10.0, fixed=True
    )
    random_erasing_prob: float = option(
        0.0,
        "Probability of an image to lose a box of 2 to 33 % of its area, which becomes zero in the net's input.",
        lower=0.0,
        upper=1.0,
        fixed=True,
    )
    mixup_alpha: float = option(
        0.0,
        'Blend the images, and the labels, of pairs: one has a share drawn from Beta(alpha, alpha). 0: not.',
        lower=0.0,
        upper=100.0,
        fixed=True,
    )
    cutmix_alpha: float = option(
        0.0,
        'Exchange a box between the images of pairs, and as much of the labels: what is left of an image is drawn '
        'from Beta(alpha, alpha). 0: not.',
        lower=0.0,
        upper=100.0,
        fixed=True,
    )
    mixup_prob: float = option(
        1.0, 'Probability of a pair to be mixed by --mixup_alpha or --cutmix_alpha.', lower=0.0, upper=1.0, fixed=True
    )
    mixup_switch_prob: float = option(
        0.5,
        'Probability of a mixed pair to be mixed by --cutmix_alpha, where --mixup_alpha is given too.',
        lower=0.0,
        upper=1.0,
        fixed=True,
    )
    mixup_off_epoch: float = option(
        0.0, 'Mix nothing any more after so many epochs; 0: never stop.', lower=0.0, upper=1e9, fixed=True
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
            f'--cache={cache}: must be auto, memory, off, or a folder of this machine, for its file is mapped'
        )
    if cache.strip().lower() in _NO_FOLDERS and cache not in _WORDS:
        raise InputError(f'--cache={cache}: must be auto, memory, off, or a folder (./{cache.strip()} if you mean one)')
