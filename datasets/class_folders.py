"""Images in one folder per class, optionally within one folder per split.

    photos/roses/1.jpg                      # one split, `train`
    photos/train/roses/1.jpg                # splits `train`, `validation` (or `val`), `test`
    source = open_source('photos')
    source.splits['train'][0].name, source.class_names    # 'train/roses/1.jpg', ('roses', 'tulips')
    find_folders('photos').list_images('validation')      # only this split

Labels are positions in the sorted folders of `train`, or come from a `labels.txt` (`id:name` a line) beside them.
System folders (`@eaDir`, `__MACOSX`, ...) and hidden folders are not classes; their images are ignored.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence

from absl import logging

from datasets.files import (
    IMAGE_SUFFIXES,
    LeftOut,
    check_folder,
    check_name,
    in_one_form,
    is_image,
    is_of_system,
    list_folder,
    list_subfolders,
    shown,
    sort_images,
)
from datasets.orientation import read_orientation
from datasets.source import Source, SourceImage
from support.errors import InputError

LABELS_FILE = 'labels.txt'
_SPLIT_FOLDERS = {'train': 'train', 'validation': 'validation', 'val': 'validation', 'test': 'test'}
_LIKE_SPLITS = {*_SPLIT_FOLDERS, 'training', 'testing', 'valid'}
_LOOKED_AT = 64  # images of a split whose orientation is checked
_LOOKED_AT_BYTES = 2**16  # of each image, where cameras write the orientation


@dataclasses.dataclass(frozen=True)
class SplitFolders:
    """The folders of the splits; their images are not listed yet.

    Attributes:
        paths: Split -> the folder that holds its class folders.
        class_names: Name of each label, in Unicode's composed form (NFC).
        named_by: The source of the class names, for messages.
    """

    paths: dict[str, str]
    class_names: tuple[str, ...]
    named_by: str = 'train or labels.txt'

    def list_images(self, split: str) -> tuple[SourceImage, ...]:
        """Returns the images of a split, including those in sub-folders of the class folders.

        Logs once which files are left out, and whether cameras stored images rotated.

        Raises:
            InputError: A class folder is empty or not among the classes, a symbolic link is broken, or a file or folder
                cannot be read.
        """
        left_out = LeftOut()
        images = sort_images(self._list(split, left_out))
        if str(left_out):
            _say_once(logging.INFO, f'{self.paths[split]}: {left_out}')
        _warn_of_turned(self.paths[split], images)
        return images

    def _list(self, split: str, left_out: LeftOut) -> Iterator[SourceImage]:
        folder = self.paths[split]
        folders = _class_folders(folder)
        if not folders:
            raise InputError(f'{folder}: has no class folders')
        labels = {name: label for label, name in enumerate(self.class_names)}
        _count_beside(folder, left_out)
        for name, path in folders.items():
            if name not in labels:
                raise InputError(f'{path}: {name!r} is not one of the {len(labels)} classes of {self.named_by}')
            entries = list_folder(path, left_out)
            images = [entry for entry in entries if is_image(entry.name)]
            left_out.add_files(entry.name for entry in entries if not is_image(entry.name))
            if not images:
                raise InputError(
                    f'{path}: the class folder holds no images ({", ".join(IMAGE_SUFFIXES)})'
                    f'{f"; {left_out}" if str(left_out) else ""}'
                )
            for entry in images:
                yield SourceImage(f'{split}/{name}/{entry.name}', entry.path, entry.offset, entry.size, labels[name])


def open_source(source_dir: str) -> Source:
    """Lists the images of every split found; see `find_folders` and `SplitFolders.list_images`."""
    folders = find_folders(source_dir)
    return Source({split: folders.list_images(split) for split in folders.paths}, folders.class_names)


def find_folders(source_dir: str, classes_of_net: Sequence[str] | None = None) -> SplitFolders:
    """Finds the splits and classes of a folder.

    Args:
        source_dir: The folder. It has the layout with splits if a sub-folder is named like a split and has sub-folders.
        classes_of_net: For a folder other than the net's training data: the names of the net's classes, or () if
            unknown. They are used as the folder's classes unless it has a labels.txt; a folder that is not divided
            into splits then serves as any split. None: the folder alone determines the classes.

    Raises:
        InputError: There are no class folders or only one, a class appears twice, or something cannot be read.
    """
    check_folder('source_dir', source_dir)
    paths = _find_splits(source_dir)
    if classes_of_net is not None and source_dir in paths.values():
        paths = dict.fromkeys(('train', 'validation', 'test'), source_dir)
    if classes_of_net and not os.path.exists(os.path.join(source_dir, LABELS_FILE)):
        return SplitFolders(
            paths, tuple(map(in_one_form, classes_of_net)), 'the net; name the folders after them, or give --class_map'
        )
    names = _find_class_names(source_dir, paths)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f'{os.path.join(source_dir, LABELS_FILE)}: {twice!r} is listed twice; each class has one label'
        )
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
        logging.warning('%s: no splits, and left out: %s', source_dir, ', '.join(map(shown, others)))
    return {_SPLIT_FOLDERS[name]: os.path.join(source_dir, name) for name in found}


def _find_class_names(source_dir: str, folders: Mapping[str, str]) -> tuple[str, ...]:
    if os.path.exists(os.path.join(source_dir, LABELS_FILE)):
        from datasets.records import load_label_names  # imports TensorFlow, which conversions mostly do without

        return load_label_names(source_dir)
    if 'train' not in folders:
        raise InputError(f'{source_dir}: has neither a train folder nor a labels.txt to define the classes')
    names = tuple(_class_folders(folders['train']))
    for name in names:
        if name != name.strip():
            raise InputError(f'{folders["train"]}: the name {name!r} begins or ends with white space; rename it')
    if len(names) < 2:
        raise InputError(
            f'{folders["train"]}: must hold at least two class folders, but holds '
            f'{"only " + names[0] if names else "none"}'
        )
    return names


def _class_folders(folder: str) -> dict[str, str]:
    """Returns class name -> path of each class folder, sorted by name.

    Raises:
        InputError: Two names differ only in their Unicode form.
    """
    found: dict[str, str] = {}
    for name in list_subfolders(folder):
        check_name(name, folder)
        path = os.path.join(folder, name)
        if other := found.get(in_one_form(name)):
            raise InputError(
                f'{folder}: {os.path.basename(other)!a} and {name!a} are the same name in two Unicode forms; put their '
                'images into one folder'
            )
        found[in_one_form(name)] = path
    return dict(sorted(found.items()))


def _count_beside(folder: str, left_out: LeftOut) -> None:
    """Counts files and system folders that stand beside the class folders."""
    with os.scandir(folder) as found:
        for item in found:
            if item.is_dir():
                if is_of_system(item.name):
                    left_out.add_folder(item.name)
            elif not item.name.startswith('.') and item.name != LABELS_FILE:
                left_out.add_files([item.name])


def _warn_of_turned(folder: str, images: Sequence[SourceImage]) -> None:
    """Warns that EXIF orientations are not applied, if any image has one."""
    chosen = images[:: -(-len(images) // _LOOKED_AT) or 1]
    turned = sum(_is_turned(image.path) for image in chosen)
    if turned:
        _say_once(
            logging.WARNING,
            f'{folder}: {turned} of {len(chosen)} images looked at have an EXIF orientation, which training and '
            'evaluation ignore, as slim does; predict applies it, unless --apply_exif_orientation=false. To train on '
            'upright images, turn the files',
        )


def _is_turned(path: str) -> bool:
    try:
        with open(path, 'rb') as file:
            return read_orientation(file.read(_LOOKED_AT_BYTES)) != 1
    except OSError:
        return False  # reported when the image is read


@functools.cache  # a folder is listed again for each of its slices
def _say_once(level: int, message: str) -> None:
    logging.log(level, '%s', message)
