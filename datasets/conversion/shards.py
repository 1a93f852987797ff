"""Plans shards and writes them with several processes.

    shards = plan_shards(source.splits, {'train': 1024, 'validation': 128}, '{split}-{number:05d}-of-{count:05d}')
    shards[0].file, len(shards[0].images)            # 'train-00000-of-01024', 1251
    for num_images in write_shards(shards, recipe, journal, num_processes=8, max_bad_images=0):
        ...                                          # num_images more are done

The plan is a pure function of the images' names and labels: it depends neither on the number of processes nor on
the order of folders on disk. With many shards a process writes a whole one; with few, several processes write pieces
of one shard, and one of them joins the pieces.
"""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Generator, Iterator, Mapping, Sequence

from datasets.conversion import writer
from datasets.conversion.journal import FinishedShard, Journal
from datasets.conversion.recipe import Recipe
from datasets.conversion.workers import WorkerPool
from datasets.source import SourceImage, shuffled
from support.errors import InputError

# Large enough to be read at full speed from any disk, small enough to be copied easily.
_DEFAULT_BYTES = 128 * 2**20
_TASKS_PER_PROCESS = 8  # enough for all processes to finish at nearly the same time
_MIN_PIECE = 16  # images


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to write.

    Attributes:
        file: Its name in the folder of the data set.
        split: Its split.
        images: Its images, in order.
    """

    file: str
    split: str
    images: tuple[SourceImage, ...]


def default_count(images: Sequence[SourceImage]) -> int:
    """Returns the number of shards that makes each about 128 MiB."""
    return min(max(1, round(sum(image.size for image in images) / _DEFAULT_BYTES)), max(1, len(images)))


def plan_shards(splits: Mapping[str, Sequence[SourceImage]], counts: Mapping[str, int], pattern: str) -> list[Shard]:
    """Returns all shards: `counts[split]` files of each split, named by `{split}`, `{number}` (from 0) and `{count}`.

    Raises:
        InputError: A split has no images, or fewer images than files.
    """
    shards = []
    for split, images in splits.items():
        count, total = counts[split], len(images)
        if not total:
            raise InputError(f'split {split} of the source has no images')
        if count > total:
            flag = 'train_shards' if split == 'train' else 'validation_shards'
            raise InputError(
                f'--{flag}={count} (or by default): split {split} has only {total} images; give at most that many'
            )
        ordered = shuffled(images)
        for number in range(count):
            part = tuple(ordered[number * total // count : (number + 1) * total // count])
            shards.append(Shard(pattern.format(split=split, number=number, count=count), split, part))
    return shards


def fingerprint(shard: Shard) -> str:
    """Returns a digest of a shard's images as known before reading them: names, sizes, labels and boxes."""
    digest = hashlib.sha256()
    for image in shard.images:
        digest.update(repr((image.name, image.size, image.label, image.boxes)).encode())
    return digest.hexdigest()


def write_shards(
    shards: Sequence[Shard], recipe: Recipe, journal: Journal, num_processes: int, max_bad_images: int
) -> Generator[int, None, None]:
    """Writes shards and enters them in the journal; yields 0 when workers are ready, then numbers of finished images.

    Raises:
        InputError: Too many images are unreadable, counting those in the journal; the disk is full or fails.
    """
    pieces = math.ceil(num_processes * _TASKS_PER_PROCESS / max(1, len(shards)))
    tasks = [(shard, cut(shard.images, pieces)) for shard in shards]
    num_processes = min(num_processes, sum(len(parts) for _, parts in tasks))
    left = max_bad_images - sum(len(shard.skipped) for shard in journal.finished.values())
    if left < 0:
        raise InputError(
            f'{max_bad_images - left} images were left out already, and are in finished files: '
            f'--max_bad_images={max_bad_images} must be at least that many'
        )
    with WorkerPool(num_processes, writer.prepare_worker) as pool:
        for number, (shard, parts) in enumerate(tasks):
            for i, images in enumerate(parts):
                pool.submit((number, i), writer.write_piece, journal.part_path(shard.file, i), images, recipe, left)
        yield 0
        yield from _finish_shards(tasks, journal, pool, max_bad_images, left)


def cut(images: Sequence[SourceImage], pieces: int) -> list[tuple[SourceImage, ...]]:
    """Divides images into at most `pieces` parts of nearly equal size, none of them small."""
    total = len(images)
    count = max(1, min(pieces, total // _MIN_PIECE))
    return [tuple(images[i * total // count : (i + 1) * total // count]) for i in range(count)]


_Tasks = Sequence[tuple[Shard, list[tuple[SourceImage, ...]]]]


def _finish_shards(tasks: _Tasks, journal: Journal, pool: WorkerPool, max_bad_images: int, left: int) -> Iterator[int]:
    """Collects the results of the processes, and has the pieces of each complete shard joined."""
    written: dict[int, dict[int, writer.Piece]] = collections.defaultdict(dict)
    for key, result in pool.results():
        number, i = key
        shard, parts = tasks[number]
        if i is None:
            journal.add(_finished(shard, written.pop(number), *result), journal.part_path(shard.file, 0))
            continue
        written[number][i] = result
        left -= len(result.skipped)
        if left < 0:
            name, reason = result.skipped[-1]
            image = next(image for image in parts[i] if image.name == name)
            raise writer.bad_image(image, reason, max_bad_images)
        if len(written[number]) == len(parts):
            paths = [written[number][i].path for i in range(len(parts))]
            pool.submit((number, None), writer.join_pieces, paths, first=True)
        yield len(parts[i])


def _finished(shard: Shard, pieces: dict[int, writer.Piece], size: int, sha256: str) -> FinishedShard:
    labels: collections.Counter[int] = collections.Counter()
    changes: collections.Counter[str] = collections.Counter()
    skipped: list[tuple[str, str]] = []
    for _, piece in sorted(pieces.items()):
        labels.update(piece.labels)
        changes.update(piece.changes)
        skipped += piece.skipped
    return FinishedShard(
        shard.file,
        shard.split,
        fingerprint(shard),
        size,
        sha256,
        dict(sorted(labels.items())),
        skipped,
        dict(sorted(changes.items())),
    )
