"""The flowers of slim's walkthrough, from the published archive or its unpacked folder.

    source = open_source('/data', '/tmp/work')      # /data holds flower_photos.tgz or flower_photos/
    len(source.splits['validation'])                # 350

There is no published split. Slim's depended on the order of files on disk; here the 350 images whose names have the
smallest hashes are for validation, the same on every machine.
"""

import hashlib
import os

from datasets.conversion.archives import decompress, list_tar
from datasets.files import Entry, LeftOut, is_image, list_folder, sort_images
from datasets.source import Source, SourceImage
from support.errors import InputError

CLASS_NAMES = ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')
_FOLDER = 'flower_photos'
_VALIDATION_IMAGES = 350
_SEED = 0


def open_source(source_dir: str, work_dir: str) -> Source:
    """Lists the images of `train` and `validation`; validation has 350 of the 3670, or a tenth of an incomplete set.

    Args:
        source_dir: Folder that holds `flower_photos.tgz` or the folder `flower_photos`, or that folder itself.
        work_dir: Folder for the decompressed archive, from which images are read.

    Raises:
        InputError: Neither is found, a class is missing or unknown, an archive is damaged or unsafe, or the disk full.
    """
    images, left_out = {}, LeftOut()
    for entry in _find(source_dir, work_dir):
        folder, _, name = entry.name.removeprefix(f'{_FOLDER}/').partition('/')
        if not is_image(name):  # the licence
            left_out.add_files([name or folder])
            continue
        if folder not in CLASS_NAMES:
            raise InputError(f'{entry.path}: {entry.name} is of none of the classes {", ".join(CLASS_NAMES)}')
        images[f'{folder}/{name}'] = entry
    left_out.log(source_dir)
    missing = set(CLASS_NAMES) - {name.partition('/')[0] for name in images}
    if missing:
        raise InputError(f'--source_dir={source_dir}: there are no images of {", ".join(sorted(missing))}')
    validation = choose_validation(list(images))
    splits: dict[str, list[SourceImage]] = {'train': [], 'validation': []}
    for name, entry in images.items():
        split = 'validation' if name in validation else 'train'
        label = CLASS_NAMES.index(name.partition('/')[0])
        splits[split].append(SourceImage(f'{split}/{name}', entry.path, entry.offset, entry.size, label))
    return Source({split: sort_images(listed) for split, listed in splits.items()}, CLASS_NAMES)


def choose_validation(names: list[str]) -> set[str]:
    """Returns the names of the validation images: those with the smallest SHA-256 of `0/class/file.jpg`."""
    count = min(_VALIDATION_IMAGES, max(1, len(names) // 10))
    return set(sorted(names, key=lambda name: hashlib.sha256(f'{_SEED}/{name}'.encode()).digest())[:count])


def _find(source_dir: str, work_dir: str) -> list[Entry]:
    archive = os.path.join(source_dir, f'{_FOLDER}.tgz')
    if os.path.isfile(archive):
        return list_tar(decompress(archive, work_dir))
    for folder in (os.path.join(source_dir, _FOLDER), source_dir):
        if os.path.isdir(os.path.join(folder, CLASS_NAMES[0])):
            return list_folder(folder)
    raise InputError(f'--source_dir={source_dir} holds neither {_FOLDER}.tgz nor the five class folders of {_FOLDER}/')
