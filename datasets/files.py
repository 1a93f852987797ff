"""Listing files in a folder, and their place on disk or in an archive.

entries = list_folder('/data/photos')     # Entry('roses/1.jpg', '/data/photos/roses/1.jpg', 0, 31337), ...
images = [entry for entry in entries if is_image(entry.name)]
"""

import collections
import errno
import functools
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from absl import logging

from datasets.source import SourceImage
from support.errors import InputError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.gif', '.webp')
# In lower case: folders that NAS systems, macOS, Windows, file systems and tools create (thumbnails, deleted files).
_SYSTEM_FOLDERS = frozenset(
    (
        '@eadir', '@__thumb', '@tmp', '@recycle', '@recently-snapshot', '#recycle', '#snapshot', '~snapshot',
        '__macosx', 'network trash folder', 'temporary items', 'lost+found', '__pycache__',
        '$recycle.bin', 'system volume information', 'found.000',
    )
)  # fmt: skip

# Accented letters have two Unicode forms; which one a name has depends on the file system.
in_one_form = functools.partial(unicodedata.normalize, 'NFC')


class Entry(NamedTuple):
    """A file, on its own or in an uncompressed archive.

    Attributes:
        name: Path relative to the listed folder or archive, with `/` separators.
        path: The file on the disk that holds its bytes.
        offset: First byte in `path`.
        size: Number of bytes.
    """

    name: str
    path: str
    offset: int
    size: int


class LeftOut:
    """Counts the files and folders that a listing leaves out, and reports them in one line.

    left_out = LeftOut()
    entries = list_folder('/data/photos', left_out)
    left_out.add_files(entry.name for entry in entries if not is_image(entry.name))
    str(left_out)       # '12 files left out: 9 .tif, 3 .db; 1 folder left out: 1 @eaDir', or '' if none
    left_out.log('/data/photos')
    """

    def __init__(self) -> None:
        self._files: collections.Counter[str] = collections.Counter()
        self._folders: collections.Counter[str] = collections.Counter()

    def add_files(self, names: Iterable[str]) -> None:
        """Counts files by extension."""
        self._files.update(os.path.splitext(name)[1].lower() or 'without an ending' for name in names)

    def add_folder(self, name: str) -> None:
        """Counts a folder."""
        self._folders[name] += 1

    def log(self, where: str) -> None:
        """Logs what was left out of a folder or archive, if anything."""
        if str(self):
            logging.info('%s: %s', where, self)

    def __str__(self) -> str:
        kinds = (('file', self._files), ('folder', self._folders))
        return '; '.join(_counted(kind, counts) for kind, counts in kinds if counts)


def _counted(kind: str, counts: collections.Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = ', '.join(f'{count} {shown(name)}' for name, count in ordered)
    return f'{counts.total()} {kind}{"s" * (counts.total() > 1)} left out: {listed}'


def shown(name: str) -> str:
    """Returns a printable name unchanged; otherwise quoted, with line breaks and other control characters escaped."""
    return name if name.isprintable() else repr(name)


def is_image(name: str) -> bool:
    """Returns whether a file name has an image extension, in upper or lower case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_of_system(folder: str) -> bool:
    """Returns whether a folder name is hidden, or belongs to a system or tool."""
    return folder.startswith('.') or folder.lower() in _SYSTEM_FOLDERS


def list_names(folder: str) -> list[str]:
    """Returns the names in a folder, sorted, without hidden ones.

    Raises:
        InputError: The folder cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise InputError(f'{folder}: cannot be read: {error.strerror}') from error


def list_subfolders(folder: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden and system folders.

    Raises:
        InputError: The folder or its content cannot be read, or it holds a broken symbolic link.
    """
    names = []
    for name in list_names(folder):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            _refuse_unusable(path)
        elif not is_of_system(name):
            names.append(name)
    return names


def check_folder(flag: str, path: str) -> None:
    """Raises InputError unless the path of a flag is a readable folder."""
    try:
        os.scandir(path).close()
    except FileNotFoundError as error:
        raise InputError(f'--{flag}={path}: no such folder') from error
    except OSError as error:
        raise InputError(f'--{flag}={path}: not a readable folder: {error.strerror}') from error


def _refuse_unusable(path: str) -> None:
    """Raises InputError for a broken symbolic link or a path that cannot be examined, but not for pipes and devices."""
    try:
        os.stat(path)
    except OSError as error:
        raise InputError(f'{path}: {problem_of(error, path)}') from error


def problem_of(error: OSError, path: str | None = None) -> str:
    """Returns why something, at `path` if given, cannot be read."""
    if isinstance(error, FileNotFoundError) and path is not None and os.path.islink(path):
        return f'a symbolic link to {os.readlink(path)}, which does not exist; remove or mend it'
    if error.errno == errno.ELOOP:
        return 'a symbolic link that leads to itself; remove it'
    return f'cannot be read: {error.strerror}'


def list_folder(folder: str, left_out: LeftOut | None = None) -> list[Entry]:
    """Returns the files in a folder and its sub-folders, sorted by name; `walk` lists what is left out.

    Raises:
        InputError: A folder cannot be read, a link is broken or circular, or a name is not valid text.
    """

    def refuse(path: str, error: OSError | None) -> None:
        raise error or InputError(f'{path}: a symbolic link to one of its parent folders; remove it')

    entries = []
    try:
        for item in walk(folder, left_out or LeftOut(), refuse, check_name):
            if item.is_file():
                name = item.path.removeprefix(folder).lstrip('/')
                entries.append(Entry(name, item.path, 0, item.stat().st_size))
            else:
                _refuse_unusable(item.path)
    except OSError as error:
        raise InputError(f'{error.filename or folder}: {problem_of(error)}') from error
    return sorted(entries)


def walk(
    folder: str,
    left_out: LeftOut,
    refuse: Callable[[str, OSError | None], object],
    check: Callable[[str, str], object] = lambda name, folder: None,
    above: tuple[tuple[int, int], ...] = (),
) -> Iterator[os.DirEntry[str]]:
    """Yields the files and broken links in a folder and its sub-folders; follows links to folders.

    Hidden files, pipes, devices and system folders are left out; system folders are counted.

    Args:
        folder: The folder to walk.
        left_out: Counts the system folders.
        refuse: Called with an unusable path and the error; None if a link points to a folder that contains it.
        check: Called with each name not left out, and its folder.
        above: Device and inode of the folders that contain this one.
    """
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            items = list(found)
    except OSError as error:
        refuse(folder, error)
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        refuse(folder, None)
        return
    for item in items:
        try:
            is_folder, is_file = item.is_dir(), item.is_file()
        except OSError as error:  # a link to itself
            refuse(item.path, error)
            continue
        if is_folder and is_of_system(item.name):
            left_out.add_folder(item.name)
        elif is_folder:
            check(item.name, folder)
            yield from walk(item.path, left_out, refuse, check, (*above, identity))
        elif not item.name.startswith('.'):
            check(item.name, folder)
            if is_file or item.is_symlink():
                yield item


def check_name(name: str, where: str) -> None:
    """Raises InputError for a name with control characters or that is not UTF-8: no line of text can hold it."""
    if not name.isprintable() and any(unicodedata.category(character) in ('Cc', 'Cs') for character in name):
        raise InputError(f'{where}: the name {name!r} has control characters or is not UTF-8; rename it')


def sort_images(images: Iterable[SourceImage]) -> tuple[SourceImage, ...]:
    """Returns images sorted by name.

    Raises:
        InputError: A name appears twice (an archive may hold a member twice).
    """
    ordered = sorted(images, key=attrgetter('name'))
    for image, following in itertools.pairwise(ordered):
        if image.name == following.name:
            raise InputError(f'{image.name}: found twice, in {image.path} and {following.path}; remove one')
    return tuple(ordered)
