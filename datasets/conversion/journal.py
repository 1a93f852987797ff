"""The folder that a conversion writes to, and what it remembers of it until it is complete, and after.

    with Journal('/data/records') as journal:            # locked: a second converter is refused
        journal.begin({'dataset_name': 'imagenet', ...}, patterns)   # another conversion's folder is refused
        journal.finished['train-00000-of-01024'].sha256
        journal.add(finished_shard)                      # one line of JSON more

The hidden file `.conversion.jsonl` has a line for the conversion and one for each finished shard. It stays, so that the
converter still knows the folder as its own when the data set is complete. `.conversion.lock` beside it is the lock's.
"""

import contextlib
import dataclasses
import errno
import fnmatch
import json
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from typing import Any

from datasets.conversion.stopping import cannot_write, write_text
from datasets.manifest import is_file_name, type_problems
from datasets.regular_files import refuse_irregular
from support.errors import InputError, first_line
from support.folder_lock import FolderLock

JOURNAL, LOCK = '.conversion.jsonl', '.conversion.lock'
_MAX_BYTES = 2**28  # that of ImageNet, whose shards each have all classes, has 15 MB
# A line of a finished shard, as `type_problems` takes it.
_ROW = {
    'file': str,
    'split': str,
    'source': str,
    'size': int,
    'sha256': str,
    'labels': {str: int},
    'skipped': [[str]],
    'changes': {str: int},
}


@dataclasses.dataclass(frozen=True)
class FinishedShard:
    """A file that is complete.

    Attributes:
        file: Its name.
        split: The split that it is part of.
        source: Fingerprint of the images that it was made from.
        size: In bytes.
        sha256: Of its content.
        labels: Label -> number of records.
        skipped: Name of each image that was left out, and why.
        changes: What was done to images -> to how many.
    """

    file: str
    split: str
    source: str
    size: int
    sha256: str
    labels: dict[int, int]
    skipped: list[tuple[str, str]]
    changes: dict[str, int]

    @property
    def num_images(self) -> int:
        """How many records it has."""
        return sum(self.labels.values())


class Journal:
    """Holds the folder's lock while it is open."""

    def __init__(self, dataset_dir: str):
        """Opens a folder, which is made if need be.

        Raises:
            InputError: it cannot be written to, or another converter is at work there.
        """
        self._dir = dataset_dir
        self._conversion: Mapping[str, Any] = {}
        self.finished: dict[str, FinishedShard] = {}
        with contextlib.ExitStack() as opened:
            try:
                os.makedirs(dataset_dir, exist_ok=True)
                opened.enter_context(FolderLock(dataset_dir, LOCK, flag='dataset_dir', user='converter'))
                path = os.path.join(dataset_dir, JOURNAL)
                refuse_irregular(path)
                # Unbuffered: what a full disk has refused must not be written again when the file is closed.
                self._file: FileIO = opened.enter_context(open(path, 'a+b', buffering=0))
            except OSError as error:
                raise InputError(f'--dataset_dir={dataset_dir}: cannot be written to: {error.strerror}') from error
            self._opened = opened.pop_all()

    def __enter__(self) -> 'Journal':
        return self

    def __exit__(self, *_: object) -> None:
        if self._conversion:
            self._remove_parts()
        self._opened.close()

    def begin(self, conversion: Mapping[str, Any], patterns: Sequence[str]) -> None:
        """Takes the folder for a conversion, or finds that it is this one's already; removes parts of files.

        Args:
            conversion: All that decides about the bytes beside the images; values as JSON gives them back.
            patterns: Globs of the files that the data set will be read from.

        Raises:
            InputError: the folder holds another conversion, or files from elsewhere.
        """
        before, self.finished = self._load()
        if before is not None and before != conversion and self.finished:
            raise InputError(
                f'--dataset_dir={self._dir} holds another conversion ({_differences(before, conversion)}); go on with '
                'the flags and files of that one, choose another folder, or delete this one'
            )
        if before is None or not self.finished:
            self._refuse_others(patterns if before is not None else (*patterns, 'labels.txt', 'dataset.json'))
        self._conversion = conversion
        self._remove_parts()
        if before != conversion:
            self._file.truncate(0)
            self._append(conversion)

    def _load(self) -> tuple[dict[str, Any] | None, dict[str, FinishedShard]]:
        """Reads the journal, and cuts off what a killed converter left of a line."""
        self._file.seek(0)
        size = os.fstat(self._file.fileno()).st_size
        if size > _MAX_BYTES:
            raise InputError(f'{self._file.name}: {size:,} bytes: not a journal of this converter; delete it')
        content = self._file.read()
        whole = content[: content.rfind(b'\n') + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        rows: list[Any] = []
        try:
            for number, line in enumerate(whole.splitlines(), start=1):
                rows.append(json.loads(line))
                if problem := next(_problems(rows[-1], is_head=number == 1), None):
                    raise ValueError(problem)
            shards = [_shard_from_json(row) for row in rows[1:]]
        except (ValueError, RecursionError) as error:
            raise InputError(
                f'{self._file.name}: not a journal of this converter; delete it, or its folder (line {len(rows) or 1}: '
                f'{first_line(error)})'
            ) from error
        head = rows[0] if rows else None
        return head, {shard.file: shard for shard in shards if self._is_there(shard)}

    def _is_there(self, shard: FinishedShard) -> bool:
        path = os.path.join(self._dir, shard.file)
        return os.path.isfile(path) and os.path.getsize(path) == shard.size

    def _refuse_others(self, patterns: Sequence[str]) -> None:
        for name in sorted(os.listdir(self._dir)):
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                raise InputError(
                    f'--dataset_dir={self._dir} holds {name}, which this converter did not write; choose another folder'
                )

    def add(self, shard: FinishedShard, part: str) -> None:
        """Gives a finished file, whose path is `part` until now, its name, and notes it; InputError: the disk fails."""
        # In this order a file with a final name is never one that the journal does not know.
        self._append(dataclasses.asdict(shard))
        try:
            os.replace(part, os.path.join(self._dir, shard.file))
        except OSError as error:
            raise cannot_write(self._dir, error) from error
        self.finished[shard.file] = shard

    def _append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row).encode() + b'\n'
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise cannot_write(self._dir, error) from error

    def sort(self, files: Sequence[str]) -> None:
        """Brings the rows of a complete data set into the order of its files, which not everything that ran had."""
        rows = [json.dumps(self._conversion), *(json.dumps(dataclasses.asdict(self.finished[file])) for file in files)]
        write_text(self._dir, JOURNAL, '\n'.join(rows) + '\n')

    def part_path(self, file: str, number: int) -> str:
        """Returns where piece `number` of a file is written."""
        # With the process, for the workers of one that was just killed may not have ended yet.
        return os.path.join(self._dir, f'.{file}.{number}.{os.getpid()}.part')

    def _remove_parts(self) -> None:
        """Removes what was not finished, of the names that `part_path` gives."""
        for name in os.listdir(self._dir):
            if re.fullmatch(r'\.+[^.].*\.\d+\.\d+\.part(\.\d+\.part)?', name):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(self._dir, name))


def _problems(row: Any, is_head: bool) -> Iterator[str]:
    """Yields what is wrong with a line of the journal."""
    yield from type_problems(row, {} if is_head else _ROW)
    if is_head:
        return
    if not is_file_name(row['file']):
        yield f'the file {row["file"]!r} is not one of this folder'
    if not all(label.isdecimal() and len(label) < 20 for label in row['labels']):
        yield f'labels are {reprlib.repr(list(row["labels"]))}, and must be numbers'
    if any(len(pair) != 2 for pair in row['skipped']):
        yield 'skipped are no pairs of name and reason'
    if extra := row.keys() - _ROW.keys():
        yield f'{sorted(extra)[0]!r} is no field of it'


def _shard_from_json(row: dict[str, Any]) -> FinishedShard:
    labels = {int(label): count for label, count in row['labels'].items()}
    return FinishedShard(**{**row, 'labels': labels, 'skipped': [(name, reason) for name, reason in row['skipped']]})


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ', '.join(f'{key} was {before.get(key)}, is {now.get(key)}' for key in keys)
