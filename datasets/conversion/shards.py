"""Which images go into which file, and in what order: a pure function of their names.

    shards = plan_shards(source.splits, {'train': 1024, 'validation': 128}, '{split}-{number:05d}-of-{count:05d}')
    shards[0].file, len(shards[0].images)      # 'train-00000-of-01024', 1251

Nothing depends on how many processes there are, on folders' order on the disk or on a random number generator.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

from datasets.source import SourceImage, shuffled
from support.errors import InputError

# Large enough to be read at full speed from any disk, small enough to be moved about.
_DEFAULT_BYTES = 128 * 2**20


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to be written.

    Attributes:
        file: Its name within the folder of the data set.
        split: The split that it is part of.
        images: What it holds, in order.
    """

    file: str
    split: str
    images: tuple[SourceImage, ...]


def default_count(images: Sequence[SourceImage]) -> int:
    """Returns a number of shards by which each has about 128 MiB."""
    return min(max(1, round(sum(image.size for image in images) / _DEFAULT_BYTES)), max(1, len(images)))


def plan_shards(splits: Mapping[str, Sequence[SourceImage]], counts: Mapping[str, int], pattern: str) -> list[Shard]:
    """Returns all files of a data set.

    Args:
        splits: Name -> images.
        counts: Name -> number of files.
        pattern: Names of the files, with `{split}`, `{number}` (from 0) and `{count}`.

    Raises:
        InputError: a split without images, or with fewer images than files.
    """
    shards = []
    for split, images in splits.items():
        count, total = counts[split], len(images)
        if not total:
            raise InputError(f'split {split} of the source has no images')
        if count > total:
            flag = 'train_shards' if split == 'train' else 'validation_shards'
            raise InputError(
                f'--{flag}={count} (or by default): split {split} has only {total} images; give at most so many'
            )
        ordered = shuffled(images)
        for number in range(count):
            part = tuple(ordered[number * total // count : (number + 1) * total // count])
            shards.append(Shard(pattern.format(split=split, number=number, count=count), split, part))
    return shards


def fingerprint(shard: Shard) -> str:
    """Returns a checksum of what is known of a shard's images before they are read."""
    digest = hashlib.sha256()
    for image in shard.images:
        digest.update(repr((image.name, image.size, image.label, image.boxes)).encode())
    return digest.hexdigest()
