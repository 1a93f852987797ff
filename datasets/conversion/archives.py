"""Reads archives without unpacking them: the offsets of a tar's members, and decompressed copies of tars.

    for entry in list_tar('/data/ILSVRC2012_img_val.tar'):     # reads headers only
        read_bytes(SourceImage(entry.name, entry.path, entry.offset, entry.size, label=0))
    tar = decompress('/data/flower_photos.tgz', '/data/work')  # '/data/work/flower_photos.tar'

No member is ever written to disk, so none can escape a folder. Unsafe names (`/x`, `../x`), links and devices are
refused all the same: an archive that has them is not the published one.
"""

import contextlib
import gzip
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from datasets.files import Entry, check_name, is_of_system
from datasets.regular_files import open_file
from support.atomic import atomic_file
from support.errors import InputError

_BLOCK = tarfile.BLOCKSIZE
_MAX_HEADER = 2**20  # a member's long name; tarfile would read whatever size a header claims into memory
_CHUNK = 2**20
_MAX_FILE = 2**50
MAX_BYTES = 2**30  # the largest data set that is published compressed has 0.24 GB
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class _Window(io.RawIOBase):
    """A part of a file, read without moving the file's position."""

    def __init__(self, descriptor: int, start: int, size: int):
        self._descriptor, self._start, self._size = descriptor, start, size
        self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        wanted = max(0, self._size - self._position)
        wanted = wanted if size < 0 else min(size, wanted)
        if wanted > _MAX_HEADER:
            raise tarfile.ReadError(f'a header of {size} bytes')
        data = os.pread(self._descriptor, wanted, self._start + self._position)
        self._position += len(data)
        return data


def list_tar(path: str, inner: Entry | None = None) -> list[Entry]:
    """Returns the files in an uncompressed tar, in its order, reading only headers.

    Args:
        path: The tar.
        inner: A member that is itself a tar, to list instead; offsets are still relative to `path`.

    Raises:
        InputError: Not a tar, truncated or damaged, or a member is a link or device or has an unsafe name.
    """
    where = path if inner is None else f'{path}, member {inner.name}'
    try:
        with open_file(path, _MAX_FILE) as file:
            start, size = (inner.offset, inner.size) if inner else (0, os.fstat(file.fileno()).st_size)
            members = _list_members(_Window(file.fileno(), start, size), where)
    except OSError as error:
        raise InputError(f'{where}: cannot be read: {error.strerror or error}') from error
    return [Entry(name, path, start + offset, size) for name, offset, size in members]


def _list_members(window: _Window, where: str) -> list[tuple[str, int, int]]:
    """Returns name, offset and size of each file of the tar that fills `window`."""
    members = []
    last = 'the beginning'
    try:
        with tarfile.open(fileobj=window, mode='r:') as tar:
            for member in tar:
                name = _safe_name(member, where)
                last = repr(name)
                if member.isreg() and not _is_hidden(name):
                    members.append((name, member.offset_data, member.size))
            end = tar.offset
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise _damaged(where, last, str(error)) from error
    # tarfile accepts anything that is not a header as the end; a real end is a block of zeros.
    window.seek(end)
    block = window.read(_BLOCK)
    if block != bytes(_BLOCK):
        raise _damaged(where, last, 'no end mark' if len(block) < _BLOCK else f'no header at byte {end}')
    return members


def _damaged(where: str, last: str, reason: str) -> InputError:
    hint = ' (or not a tar, or a compressed one)' if last == 'the beginning' else ''
    return InputError(f'{where}: truncated or corrupt after {last}{hint}: {reason}; copy or download it again')


def _safe_name(member: tarfile.TarInfo, where: str) -> str:
    check_name(member.name, where)
    if member.name.startswith('/') or '..' in member.name.split('/'):
        raise InputError(f'{where}: member {member.name!r} would leave the folder it is unpacked to; refused')
    if not member.isdir() and (member.type not in _REGULAR or member.issparse()):
        raise InputError(f'{where}: member {member.name!r} is a link, a device or a sparse file; refused')
    return '/'.join(part for part in member.name.split('/') if part not in ('', '.'))


def _is_hidden(name: str) -> bool:
    *folders, file = name.split('/')
    return file.startswith('.') or any(map(is_of_system, folders))


def decompress(path: str, folder: str, max_bytes: int = MAX_BYTES) -> str:
    """Decompresses `name.tar.gz`, `name.tgz` or `name.gz` into a folder unless done before; returns the new path.

    Raises:
        InputError: Not a gzip file, truncated or damaged, more than `max_bytes`, or not enough space.
    """
    name = os.path.basename(path)
    name = name.removesuffix('.tgz') + '.tar' if name.endswith('.tgz') else name.removesuffix('.gz')
    target = os.path.join(folder, name)
    modified = _modified(path)
    if modified is not None and _modified(target) == modified:
        return target
    try:
        os.makedirs(folder, exist_ok=True)
        with _open(path) as compressed, atomic_file(target) as part, open(part, 'wb') as file:
            _copy(compressed, file, path, folder, max_bytes)
            file.flush()
            os.utime(file.fileno(), ns=(modified or 0, modified or 0))  # identifies the content for the next run
    except OSError as error:
        raise InputError(f'cannot write {target}: {error.strerror or error}') from error
    return target


def _modified(path: str) -> int | None:
    return os.stat(path).st_mtime_ns if os.path.exists(path) else None


@contextlib.contextmanager
def _open(path: str) -> Iterator[gzip.GzipFile]:
    try:
        file = open_file(path, _MAX_FILE)
    except OSError as error:
        raise InputError(f'{path}: cannot be read: {error.strerror}') from error
    with file, gzip.GzipFile(fileobj=file) as compressed:
        yield compressed


def _copy(compressed: gzip.GzipFile, file: BinaryIO, path: str, folder: str, max_bytes: int) -> None:
    size = 0
    while chunk := _read_chunk(compressed, path, size):
        size += len(chunk)
        if size > max_bytes:
            raise InputError(f'{path}: holds more than {max_bytes} bytes, so it is not the published archive')
        if shutil.disk_usage(folder).free < len(chunk):
            raise InputError(f'{folder}: no space left to decompress {path}, after {size} bytes; free some')
        file.write(chunk)


def _read_chunk(compressed: gzip.GzipFile, path: str, position: int) -> bytes:
    try:
        return compressed.read(_CHUNK)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f'{path}: truncated or corrupt, or not a gzip file, after {position} bytes of content: {error}; '
            'copy or download it again'
        ) from error
