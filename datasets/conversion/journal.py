"""The output folder of a conversion and its journal of finished shards.

    with Journal('/data/records') as journal:            # locks the folder against a second converter
        journal.begin({'dataset_name': 'imagenet', ...}, patterns)   # another conversion's folder is refused
        journal.finished['train-00000-of-01024'].sha256
        journal.add(finished_shard)                      # appends one line of JSON

The hidden file `.conversion.jsonl` has a line for the conversion and one for each finished shard. It is kept, so that
the converter recognises its own folder after the data set is complete. `.conversion.lock` beside it is the lock file.
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
_MAX_BYTES = 2**28  # ImageNet's, whose shards each have all classes, has 15 MB
# The fields of a line for a finished shard, for `type_problems`.
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
    """A complete file of the data set.

    Attributes:
        file: Its name.
        split: Its split.
        source: Fingerprint of its source images.
        size: Size in bytes.
        sha256: SHA-256 of its content.
        labels: Label -> number of records.
        skipped: Name and reason of each image that was left out.
        changes: Change made to images -> number of images.
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
        """The number of records."""
        return sum(self.labels.values())


class Journal:
    """The journal of a folder, which it locks while open."""

    def __init__(self, dataset_dir: str):
        """Opens a folder, which is created if missing.

        Raises:
            InputError: The folder is not writable, or another converter is using it.
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
                # Unbuffered: bytes that a full disk refused must not be written again when the file is closed.
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
        """Claims the folder for a conversion or resumes the same one; removes partial files.

        Args:
            conversion: Everything that determines the bytes except the images; JSON values.
            patterns: Globs of the files that readers of the data set will open.

        Raises:
            InputError: The folder holds another conversion or foreign files.
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
        """Reads the journal, and truncates an incomplete line that a killed converter left."""
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
        """Enters a finished file in the journal and renames it from `part`; raises InputError if the disk fails."""
        # In this order, every file with a final name is in the journal.
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
        """Sorts the rows of a complete data set by file, as runs may finish files in any order."""
        rows = [json.dumps(self._conversion), *(json.dumps(dataclasses.asdict(self.finished[file])) for file in files)]
        write_text(self._dir, JOURNAL, '\n'.join(rows) + '\n')

    def part_path(self, file: str, number: int) -> str:
        """Returns the temporary path for piece `number` of a file."""
        # Includes the process id, because workers of a run that was just killed may still be writing.
        return os.path.join(self._dir, f'.{file}.{number}.{os.getpid()}.part')

    def _remove_parts(self) -> None:
        """Removes all partial files, recognised by the names from `part_path`."""
        for name in os.listdir(self._dir):
            if re.fullmatch(r'\.+[^.].*\.\d+\.\d+\.part(\.\d+\.part)?', name):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(self._dir, name))


def _problems(row: Any, is_head: bool) -> Iterator[str]:
    """Yields the faults of a line of the journal."""
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
