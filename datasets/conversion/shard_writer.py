"""From planned shards to finished ones: which process writes what, and when a file gets its name.

    for num_images in write_shards(shards, recipe, journal, num_processes=8, max_bad_images=0):
        ...                                          # so many more are done

With many shards a process writes a whole one; with few, several write pieces of the same, which one of them then joins.
"""

import collections
import math
from collections.abc import Generator, Iterator, Sequence

from datasets.conversion import writer
from datasets.conversion.journal import FinishedShard, Journal
from datasets.conversion.recipe import Recipe
from datasets.conversion.shards import Shard, fingerprint
from datasets.conversion.workers import WorkerPool
from datasets.source import SourceImage
from support.errors import InputError

_TASKS_PER_PROCESS = 8  # so many that all processes end at nearly the same time
_MIN_PIECE = 16  # images


def write_shards(
    shards: Sequence[Shard], recipe: Recipe, journal: Journal, num_processes: int, max_bad_images: int
) -> Generator[int, None, None]:
    """Writes shards and enters them in the journal; yields 0 when all is ready, then numbers of images that are done.

    Raises:
        InputError: too many unreadable images, counting those that the journal knows; the disk is full, or fails.
    """
    pieces = math.ceil(num_processes * _TASKS_PER_PROCESS / max(1, len(shards)))
    tasks = [(shard, cut(shard.images, pieces)) for shard in shards]
    num_processes = min(num_processes, sum(len(parts) for _, parts in tasks))
    left = max_bad_images - sum(len(shard.skipped) for shard in journal.finished.values())
    if left < 0:
        raise InputError(
            f'{max_bad_images - left} images were left out already, and are in finished files: '
            f'--max_bad_images={max_bad_images} must be at least so many'
        )
    with WorkerPool(num_processes, writer.prepare_worker) as pool:
        for number, (shard, parts) in enumerate(tasks):
            for i, images in enumerate(parts):
                pool.submit((number, i), writer.write_piece, journal.part_path(shard.file, i), images, recipe, left)
        yield 0
        yield from _finish_shards(tasks, journal, pool, max_bad_images, left)


def cut(images: Sequence[SourceImage], pieces: int) -> list[tuple[SourceImage, ...]]:
    """Cuts images into at most `pieces` parts of nearly equal size, none of them small."""
    total = len(images)
    count = max(1, min(pieces, total // _MIN_PIECE))
    return [tuple(images[i * total // count : (i + 1) * total // count]) for i in range(count)]


_Tasks = Sequence[tuple[Shard, list[tuple[SourceImage, ...]]]]


def _finish_shards(tasks: _Tasks, journal: Journal, pool: WorkerPool, max_bad_images: int, left: int) -> Iterator[int]:
    """Takes what the processes have done, and lets them join the pieces of each shard once it has all of them."""
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
