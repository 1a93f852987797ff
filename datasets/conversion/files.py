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
        InputError: it cannot be read, or a symbolic link in it leads nowhere.
    """
    names = []
    for name in list_names(folder):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            names.append(name)
        elif not os.path.exists(path):
            raise _dangling(path)
    return names


def _dangling(path: str) -> InputError:
    return InputError(f'{path}: a symbolic link to {os.readlink(path)}, which does not exist; remove or mend it')


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
            elif item.is_symlink():
                raise _dangling(item.path)


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
