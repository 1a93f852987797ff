"""CIFAR-10 from its published archives, binary or Python version, or from the unpacked folders.

    source = open_source('/data', '/tmp/work')      # /data holds cifar-10-binary.tar.gz or cifar-10-python.tar.gz
    source.read(source.splits['test'][0])           # a PNG

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. An image of the binary version is a byte for
its label and 3 x 1024 bytes of red, green and blue; the Python version is first rewritten in this form.
"""

import io
import os
from collections.abc import Iterator

from PIL import Image

from datasets.conversion.archives import decompress, list_tar
from datasets.conversion.pickled_arrays import load_images
from datasets.files import Entry, list_folder
from datasets.source import Source, SourceImage, read_bytes, read_range
from support.atomic import atomic_file
from support.errors import InputError

CLASS_NAMES = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')
_BATCHES = {'train': tuple(f'data_batch_{number}' for number in range(1, 6)), 'test': ('test_batch',)}
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_MAX_PICKLE = 2**26  # the published ones have 31 MB


def open_source(source_dir: str, work_dir: str) -> Source:
    """Lists the images of the splits `train` and `test`, each in the order of the archive.

    Args:
        source_dir: Folder of `cifar-10-binary.tar.gz`, `cifar-10-python.tar.gz` or a folder that they unpack to; or
            such an unpacked folder itself.
        work_dir: Folder for the decompressed archive, from which images are read.

    Raises:
        InputError: None of these is found, a file is missing, damaged or unsafe, or there is not enough space.
    """
    files, pickled = _find(source_dir, work_dir)
    splits = {}
    for split, batches in _BATCHES.items():
        names = batches if pickled else tuple(f'{batch}.bin' for batch in batches)
        if missing := [name for name in names if name not in files]:
            raise InputError(f'{source_dir}: CIFAR-10 lacks {missing[0]}')
        entries = [_unpickle(files[name], work_dir) if pickled else files[name] for name in names]
        splits[split] = tuple(image for entry in entries for image in _list_batch(split, entry))
    return Source(splits, CLASS_NAMES, read=read_png)


def read_png(image: SourceImage) -> bytes:
    """Returns an image, stored as three planes, as a PNG."""
    planes = read_bytes(image)
    size = _SIDE * _SIDE
    bands = [Image.frombytes('L', (_SIDE, _SIDE), planes[start : start + size]) for start in (0, size, 2 * size)]
    png = io.BytesIO()
    Image.merge('RGB', bands).save(png, 'PNG')
    return png.getvalue()


def _find(source_dir: str, work_dir: str) -> tuple[dict[str, Entry], bool]:
    """Returns the files of the version found, and whether it is the Python version."""
    for version, pickled in (('binary', False), ('python', True)):
        archive = os.path.join(source_dir, f'cifar-10-{version}.tar.gz')
        if os.path.isfile(archive):
            return _by_name(list_tar(decompress(archive, work_dir))), pickled
    for folder, pickled in (('cifar-10-batches-bin', False), ('cifar-10-batches-py', True)):
        if os.path.isdir(os.path.join(source_dir, folder)):
            return _by_name(list_folder(os.path.join(source_dir, folder))), pickled
    for first, pickled in (('data_batch_1.bin', False), ('data_batch_1', True)):
        if os.path.isfile(os.path.join(source_dir, first)):
            return _by_name(list_folder(source_dir)), pickled
    raise InputError(
        f'--source_dir={source_dir} holds neither cifar-10-binary.tar.gz nor cifar-10-python.tar.gz, nor what they hold'
    )


def _by_name(entries: list[Entry]) -> dict[str, Entry]:
    return {os.path.basename(entry.name): entry for entry in entries}


def _unpickle(entry: Entry, work_dir: str) -> Entry:
    """Rewrites a batch of the Python version as one of the binary version."""
    where = f'{entry.path}, {entry.name}'
    if entry.size > _MAX_PICKLE:
        raise InputError(f'{where}: has {entry.size} bytes, so it is not the published file')
    pixels, labels = load_images(_read(entry), _PIXELS, where)
    name = f'{os.path.basename(entry.name)}.bin'
    path = os.path.join(work_dir, name)
    try:
        os.makedirs(work_dir, exist_ok=True)
        with atomic_file(path) as part, open(part, 'wb') as file:
            for i, label in enumerate(labels):
                file.write(bytes([label]) + pixels[i * _PIXELS : (i + 1) * _PIXELS])
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror}') from error
    return Entry(name, path, 0, os.path.getsize(path))


def _list_batch(split: str, entry: Entry) -> Iterator[SourceImage]:
    batch = os.path.basename(entry.name).removesuffix('.bin')
    count, rest = divmod(entry.size, 1 + _PIXELS)
    if rest or not count:
        raise InputError(f'{entry.path}, {entry.name}: truncated: {entry.size} bytes are no images of {1 + _PIXELS}')
    labels = _read(entry)[:: 1 + _PIXELS]
    for i, label in enumerate(labels):
        if label >= len(CLASS_NAMES):
            raise InputError(f'{entry.path}, {entry.name}: image {i} has the label {label}; there are 0 to 9')
        offset = entry.offset + i * (1 + _PIXELS) + 1
        yield SourceImage(f'{split}/{batch}/{i:05d}', entry.path, offset, _PIXELS, label)


def _read(entry: Entry) -> bytes:
    try:
        return read_range(entry.path, entry.offset, entry.size)
    except OSError as error:
        raise InputError(f'{entry.path}: cannot be read: {error.strerror}') from error
