"""Where the bytes of files lie, in a folder of the disk or in an archive.

entries = list_folder('/data/photos')     # Entry('roses/1.jpg', '/data/photos/roses/1.jpg', 0, 31337), ...
images = [entry for entry in entries if is_image(entry.name)]
"""

import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from configs.errors import InputError
from datasets.conversion.source import SourceImage

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.gif', '.webp')


class Entry(NamedTuple):
    """A file, on its own or within an archive that is not compressed.

    Attributes:
        name: Relative to the folder or archive that was listed, with `/` between folders.
        path: The file on the disk that holds its bytes.
        offset: First of these bytes.
        size: Number of bytes.
    """

    name: str
    path: str
    offset: int
    size: int


def is_image(name: str) -> bool:
    """Returns whether a file is an image by its extension, in either case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def list_names(folder: str) -> list[str]:
    """Returns the names in a folder, sorted and without the hidden ones.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError as error:
        raise InputError(f'{folder}: cannot be read: {error.strerror}') from error


def list_subfolders(folder: str) -> list[str]:
    """Returns the names of the folders in a folder, sorted and without the hidden ones.

    Raises:
        InputError: it or what lies in it cannot be read, or a symbolic link in it leads nowhere.
    """
    names = []
    for name in list_names(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            names.append(name)
        else:
            _refuse_unusable(path)
    return names


def check_folder(flag: str, path: str) -> None:
    """Refuses what a flag names if it is no folder that can be read."""
    try:
        os.scandir(path).close()
    except FileNotFoundError as error:
        raise InputError(f'--{flag}={path}: no such folder') from error
    except OSError as error:
        raise InputError(f'--{flag}={path}: not a folder that can be read: {error.strerror}') from error


def _refuse_unusable(path: str) -> None:
    """Refuses a symbolic link that leads nowhere, and what cannot even be looked at; pipes and devices are no harm."""
    try:
        os.stat(path)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and os.path.islink(path):
            message = f'{path}: a symbolic link to {os.readlink(path)}, which does not exist; remove or mend it'
            raise InputError(message) from error
        raise InputError(f'{path}: cannot be read: {error.strerror}') from error


def list_folder(folder: str) -> list[Entry]:
    """Returns the files in a folder and its sub-folders, sorted by name, without the hidden ones.

    Symbolic links are followed. What is neither a file nor a folder (a pipe, a device) is left out.

    Raises:
        InputError: a folder that cannot be read, a link that leads nowhere or in circles, a name that is no text.
    """
    try:
        return sorted(_walk(folder, '', ()))
    except OSError as error:
        raise InputError(f'{error.filename or folder}: cannot be read: {error.strerror}') from error


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise InputError(f'{folder}: a symbolic link to a folder that it lies in; remove it')
    with os.scandir(folder) as found:
        for item in found:
            if item.name.startswith('.'):
                continue
            check_name(item.name, folder)
            if item.is_dir():
                yield from _walk(item.path, f'{prefix}{item.name}/', (*above, identity))
            elif item.is_file():
                yield Entry(prefix + item.name, item.path, 0, item.stat().st_size)
            else:
                _refuse_unusable(item.path)


def check_name(name: str, where: str) -> None:
    """Refuses names that no line of text can hold: with control characters, or that are not UTF-8."""
    if not name.isprintable() and any(unicodedata.category(character) in ('Cc', 'Cs') for character in name):
        raise InputError(f'{where}: the name {name!r} has control characters or is not UTF-8; rename it')


def sort_images(images: Iterable[SourceImage]) -> tuple[SourceImage, ...]:
    """Returns images sorted by name.

    Raises:
        InputError: a name that is there twice (an archive may hold the same member again).
    """
    ordered = sorted(images, key=attrgetter('name'))
    for image, following in itertools.pairwise(ordered):
        if image.name == following.name:
            raise InputError(f'{image.name}: there twice, in {image.path} and {following.path}; remove one')
    return tuple(ordered)
