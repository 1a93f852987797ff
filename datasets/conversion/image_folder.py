"""Images in a folder for each class, with or without a folder for each split above them.

    photos/roses/1.jpg                      # one split, `train`
    photos/train/roses/1.jpg                # splits `train`, `validation` (or `val`), `test`
    source = open_source('photos')
    source.splits['train'][0].name, source.class_names    # 'train/roses/1.jpg', ('roses', 'tulips')
    find_folders('photos').list_images('validation')      # of this split alone

Labels are the positions of the sorted folders of `train`, or those of a `labels.txt` (`id:name` a line) beside them.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping

from absl import logging

from configs import cli
from configs.errors import InputError
from datasets.conversion.files import (
    IMAGE_SUFFIXES,
    check_folder,
    check_name,
    is_image,
    list_folder,
    list_names,
    list_subfolders,
    sort_images,
)
from datasets.conversion.source import Source, SourceImage

LABELS_FILE = 'labels.txt'
_SPLIT_FOLDERS = {'train': 'train', 'validation': 'validation', 'val': 'validation', 'test': 'test'}
_LIKE_SPLITS = {*_SPLIT_FOLDERS, 'training', 'testing', 'valid'}


@dataclasses.dataclass(frozen=True)
class SplitFolders:
    """Where the splits lie; what they hold is not listed yet.

    Attributes:
        paths: Split -> the folder of its class folders.
        class_names: Name of each label.
    """

    paths: dict[str, str]
    class_names: tuple[str, ...]

    def list_images(self, split: str) -> tuple[SourceImage, ...]:
        """Returns the images of a split, those in sub-folders of the class folders too.

        Raises:
            InputError: a class folder without images or that is none of the classes, a symbolic link that leads
                nowhere, what cannot be read.
        """
        labels = {name: label for label, name in enumerate(self.class_names)}
        return sort_images(_list_split(split, self.paths[split], labels))


def open_source(source_dir: str) -> Source:
    """Lists the images of all splits that are there; see `find_folders` and `SplitFolders.list_images`."""
    folders = find_folders(source_dir)
    return Source({split: folders.list_images(split) for split in folders.paths}, folders.class_names)


def find_folders(source_dir: str) -> SplitFolders:
    """Finds splits and classes.

    Args:
        source_dir: The folder. If one of its sub-folders is named as a split and has sub-folders itself, the layout is
            that with splits.

    Raises:
        InputError: no class folders or only one, a class that labels.txt has twice, what cannot be read.
    """
    check_folder('source_dir', source_dir)
    paths = _find_splits(source_dir)
    names = _find_class_names(source_dir, paths)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f'{os.path.join(source_dir, LABELS_FILE)}: {twice!r} is there twice; each class has one label')
    return SplitFolders(paths, names)


def _find_splits(source_dir: str) -> dict[str, str]:
    """Returns the folder of each split."""
    names = list_subfolders(source_dir)
    found = [name for name in _SPLIT_FOLDERS if name in names and list_subfolders(os.path.join(source_dir, name))]
    if not found:
        like_splits = [name for name in names if name.lower() in _LIKE_SPLITS]
        if any(list_subfolders(os.path.join(source_dir, name)) for name in like_splits):
            raise InputError(f'{source_dir}: {", ".join(like_splits)}: no classes; name splits train, validation, test')
        return {'train': source_dir}
    if 'val' in found and 'validation' in found:
        raise InputError(f'{source_dir}: holds both val and validation; rename one')
    if others := sorted(set(names) - set(found)):
        logging.warning('%s: no splits, and left out: %s', source_dir, ', '.join(others))
    return {_SPLIT_FOLDERS[name]: os.path.join(source_dir, name) for name in found}


def _find_class_names(source_dir: str, folders: Mapping[str, str]) -> tuple[str, ...]:
    if os.path.exists(os.path.join(source_dir, LABELS_FILE)):
        with cli.quiet_import():  # of TensorFlow, for which a conversion otherwise need not wait
            from datasets.records import load_label_names

        return load_label_names(source_dir)
    if 'train' not in folders:
        raise InputError(f'{source_dir}: has neither a folder train nor a labels.txt, which say what the classes are')
    names = tuple(list_subfolders(folders['train']))
    for name in names:
        check_name(name, folders['train'])
        if name != name.strip():
            raise InputError(f'{folders["train"]}: the name {name!r} begins or ends with white space; rename it')
    if len(names) < 2:
        raise InputError(
            f'{folders["train"]}: must hold at least two class folders, and holds '
            f'{"only " + names[0] if names else "none"}'
        )
    return names


def _list_split(split: str, folder: str, labels: Mapping[str, int]) -> Iterator[SourceImage]:
    names = list_subfolders(folder)
    if not names:
        raise InputError(f'{folder}: has no class folders')
    left_out = len(set(list_names(folder)) - {*names, LABELS_FILE})
    for name in names:
        path = os.path.join(folder, name)
        if name not in labels:
            raise InputError(f'{path}: {name!r} is none of the {len(labels)} classes of train or labels.txt')
        entries = list_folder(path)
        images = [entry for entry in entries if is_image(entry.name)]
        if not images:
            raise InputError(f'{path}: the class folder holds no images ({", ".join(IMAGE_SUFFIXES)})')
        left_out += len(entries) - len(images)
        for entry in images:
            yield SourceImage(f'{split}/{name}/{entry.name}', entry.path, entry.offset, entry.size, labels[name])
    if left_out:
        logging.info('%s: %d files are no images of a class by their names and are left out', folder, left_out)
