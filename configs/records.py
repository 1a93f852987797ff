"""Names of TFRecord files and keys of their examples, where they differ from slim's.

names = RecordNames(('image=image_raw', 'label=label'), 'photos-{split}-*.tfrecord')
names.keys                  # {'image': 'image_raw', 'label': 'label'}
"""

import dataclasses
import string

from support.errors import InputError

PARTS = ('image', 'label', 'boxes')


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
        """The key of each part that is named."""
        return {part: key for part, _, key in (pair.partition('=') for pair in self.record_keys)}

    @property
    def flags(self) -> str:
        """Those that were given, for messages."""
        keys = [f'--record_keys={",".join(self.record_keys)}'] if self.record_keys else []
        return ' '.join([*keys, *([f'--file_pattern={self.file_pattern}'] if self.file_pattern else [])])

    def or_else(self, others: 'RecordNames') -> 'RecordNames':
        """Returns these names, and those of `others` for what these do not say."""
        return RecordNames(self.record_keys or others.record_keys, self.file_pattern or others.file_pattern)

    def __bool__(self) -> bool:
        return bool(self.record_keys or self.file_pattern)


SLIM_NAMES = RecordNames()
