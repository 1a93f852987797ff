"""Slices of splits in TFDS notation: `train[:90%]`, `train[90%:]`, `train[100:200]`, `train+validation`.

    parts = parse('train[:90%]+validation')
    parts[0].split, parts[0].numbers(1437)     # 'train', slice(0, 1293)

Percentages are rounded to the nearest example, the same from both sides: adjacent slices neither overlap nor leave
examples out. Negative bounds count from the end.
"""

import dataclasses
import re
from collections.abc import Callable

from support.errors import InputError

_PART = re.compile(r'(?P<split>[\w.-]+)(?:\[(?P<start>-?\d{1,18}%?)?:(?P<stop>-?\d{1,18}%?)?\])?')


@dataclasses.dataclass(frozen=True)
class Part:
    """A range of a split; each bound is a number of examples, a percentage, or None for the end of the split."""

    split: str
    start: str | None
    stop: str | None

    def numbers(self, num_examples: int, flag: str = 'dataset_split_name') -> slice:
        """Returns the range within a split of `num_examples`.

        Raises:
            InputError: A bound is outside the split, or the range is empty; the message names `flag`.
        """
        start = 0 if self.start is None else self._bound(self.start, num_examples, flag)
        stop = num_examples if self.stop is None else self._bound(self.stop, num_examples, flag)
        if start >= stop:
            raise InputError(f'--{flag}: {self} is empty: it goes from {start} to {stop} of {num_examples} examples')
        return slice(start, stop)

    def _bound(self, text: str, num_examples: int, flag: str) -> int:
        bound, percent = int(text.removesuffix('%')), text.endswith('%')
        limit = 100 if percent else num_examples
        if abs(bound) > limit:
            raise InputError(f'--{flag}: {self}: {text} is beyond the {num_examples} examples of {self.split}')
        bound = bound + limit if bound < 0 else bound
        return round(bound * num_examples / 100) if percent else bound

    def __str__(self) -> str:
        whole = self.start is None and self.stop is None
        return self.split if whole else f'{self.split}[{self.start or ""}:{self.stop or ""}]'


def overlap(first: str, second: str, num_examples: Callable[[str], int]) -> bool:
    """Returns whether two slices share an example; calls `num_examples(split)` only if both use the split.

    Raises:
        InputError: as `parse` and `Part.numbers`.
    """
    pairs = [(one, other) for one in parse(first) for other in parse(second) if one.split == other.split]
    for one, other in pairs:
        size = num_examples(one.split)
        numbers, others = one.numbers(size), other.numbers(size)
        if max(numbers.start, others.start) < min(numbers.stop, others.stop):
            return True
    return False


def parse(text: str, flag: str = 'dataset_split_name') -> tuple[Part, ...]:
    """Parses one or more parts joined by `+`.

    Raises:
        InputError: The text is not in this notation; the message names `flag`.
    """
    parts = []
    for part in text.split('+'):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InputError(
                f'--{flag}={text}: write split, split[from:to] with numbers or percentages, or several joined by +'
            )
        parts.append(Part(match['split'], match['start'], match['stop']))
    return tuple(parts)
