"""ILSVRC2012 as published, or unpacked into folders.

    source = open_source('/data/imagenet')          # ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar
    source.splits['train'][0].name                  # 'train/n01440764/n01440764_10026.JPEG'

Each split may be its archive or a folder: `train/<wnid>/`, and `validation/` or `val/`, flat or with class folders. The
archives are not compressed, so images are read directly from them and nothing is unpacked.
"""

import os
import re
from collections.abc import Iterator, Mapping

from absl import logging

from datasets.conversion import imagenet_labels
from datasets.conversion.archives import list_tar
from datasets.conversion.bounding_boxes import BoxesOfImage, open_boxes
from datasets.files import Entry, LeftOut, is_image, list_folder, list_names, list_subfolders, sort_images
from datasets.source import Source, SourceImage
from support.errors import InputError

_TRAIN = ('ILSVRC2012_img_train.tar', 'train')
_VALIDATION = ('ILSVRC2012_img_val.tar', 'validation', 'val')
_VALIDATION_IMAGE = re.compile(r'ILSVRC2012_val_(\d{8})\.\w+')
BACKGROUND = 'background'


def open_source(
    source_dir: str,
    validation_labels_file: str | None = None,
    class_names_file: str | None = None,
    bounding_box_dir: str | None = None,
) -> Source:
    """Lists the images of ILSVRC2012 with labels 1 to 1000; label 0, the background, has no images.

    Args:
        source_dir: Folder of the archives or folders. One of the two splits may be absent.
        validation_labels_file: WordNet id of validation image i in line i; see `load_validation_wnids`.
        class_names_file: `wnid name` a line; if None, the WordNet ids are the names.
        bounding_box_dir: Folder of annotation XML, or slim's CSV.

    Returns:
        The splits `train` and `validation`, or the only one found.

    Raises:
        InputError: No split is found, a class is unknown or has no images, a validation image has no label, an archive
            is damaged, a file of labels, names or boxes is invalid, or validation labels are given but not needed.
    """
    wnids = imagenet_labels.load_wnids()
    labels = {wnid: label for label, wnid in enumerate(wnids, start=1)}
    names = imagenet_labels.load_class_names(class_names_file, wnids) if class_names_file else wnids
    get_boxes = open_boxes(bounding_box_dir) if bounding_box_dir else None
    train, validation = _find(source_dir, _TRAIN), _find(source_dir, _VALIDATION)
    if train is None and validation is None:
        raise InputError(f'--source_dir={source_dir} has none of {", ".join((*_TRAIN, *_VALIDATION))}')
    if validation_labels_file is not None and (validation is None or _has_class_folders(validation)):
        why = f'{source_dir} has no validation images' if validation is None else f'{validation} has class folders'
        flag = f'--validation_labels_file={validation_labels_file}'
        raise InputError(f'{flag}: has no effect, because {why}; leave it out')
    splits = {}
    if train is not None:
        splits['train'] = _list_train(train, labels)
    if validation is not None:
        splits['validation'] = _list_validation(validation, validation_labels_file, source_dir, labels)
    images = {split: sort_images(_labelled(split, found, labels, get_boxes)) for split, found in splits.items()}
    _report(source_dir, images, bounding_box_dir)
    return Source(images, (BACKGROUND, *names), ('', *wnids))


def _find(source_dir: str, candidates: tuple[str, ...]) -> str | None:
    """Returns a split's archive, since a folder beside it may be half unpacked, or else its folder."""
    present = [name for name in candidates if name in list_names(source_dir)]
    if len(present) > 1:
        logging.warning('%s: %s is read, %s is not', source_dir, present[0], ' and '.join(present[1:]))
    return os.path.join(source_dir, present[0]) if present else None


def _report(source_dir: str, splits: Mapping[str, tuple[SourceImage, ...]], bounding_box_dir: str | None) -> None:
    for split, images in splits.items():
        boxes = f', {sum(bool(image.boxes) for image in images)} of them with boxes' if bounding_box_dir else ''
        logging.info('%s: %d images of %d classes%s', split, len(images), len({image.label for image in images}), boxes)
    if len(splits) == 1:
        logging.info('%s: only %s found, so only it is converted', source_dir, next(iter(splits)))
    if bounding_box_dir and not any(image.boxes for images in splits.values() for image in images):
        raise InputError(f'--bounding_box_dir={bounding_box_dir}: has no box for any image in {source_dir}')


def _labelled(
    split: str, found: Iterator[tuple[str, Entry]], labels: Mapping[str, int], get_boxes: BoxesOfImage | None
) -> Iterator[SourceImage]:
    logging.info('listing the images of %s', split)
    for wnid, entry in found:
        stem = os.path.splitext(os.path.basename(entry.name))[0]
        boxes = get_boxes(stem, wnid) if get_boxes else ()
        yield SourceImage(f'{split}/{entry.name}', entry.path, entry.offset, entry.size, labels[wnid], boxes)


def _list_train(path: str, labels: Mapping[str, int]) -> Iterator[tuple[str, Entry]]:
    """Yields WordNet id and file of the images in a tar of tars or a folder of folders, one per class."""
    if os.path.isdir(path):
        yield from _list_class_folders(path, labels)
        return
    left_out = LeftOut()
    for member in list_tar(path):
        wnid, extension = os.path.splitext(os.path.basename(member.name))
        if extension != '.tar':
            raise InputError(f'{path}: member {member.name} is not the tar of a class, such as n01440764.tar')
        _check_class(wnid, labels, path)
        yield from _images_of_class(wnid, list_tar(path, member), path, left_out)
    left_out.log(path)


def _list_class_folders(path: str, labels: Mapping[str, int]) -> Iterator[tuple[str, Entry]]:
    wnids = list_subfolders(path)
    if not wnids:
        raise InputError(f'{path}: has no class folders, such as n01440764')
    if loose := [name for name in list_names(path) if is_image(name)]:
        raise InputError(f'{path}: holds images outside its class folders, such as {loose[0]}')
    left_out = LeftOut()
    for wnid in wnids:
        _check_class(wnid, labels, path)
        yield from _images_of_class(wnid, list_folder(os.path.join(path, wnid), left_out), path, left_out)
    left_out.log(path)


def _check_class(wnid: str, labels: Mapping[str, int], where: str) -> None:
    if wnid not in labels:
        raise InputError(f'{where}: {wnid!r} is none of the 1000 classes of ILSVRC2012, such as n01440764')


def _images_of_class(wnid: str, entries: list[Entry], where: str, left_out: LeftOut) -> Iterator[tuple[str, Entry]]:
    images = [entry for entry in entries if is_image(entry.name)]
    if not images:
        raise InputError(f'{where}: class {wnid} holds no images')
    left_out.add_files(entry.name for entry in entries if not is_image(entry.name))
    for image in images:
        yield wnid, image._replace(name=f'{wnid}/{image.name}')


def _list_validation(
    path: str, labels_file: str | None, source_dir: str, labels: Mapping[str, int]
) -> Iterator[tuple[str, Entry]]:
    """Yields WordNet id and file of the images in a tar, a flat folder or class folders."""
    if _has_class_folders(path):
        yield from _list_class_folders(path, labels)
        return
    left_out = LeftOut()
    entries = list_folder(path, left_out) if os.path.isdir(path) else list_tar(path)
    images = [entry for entry in entries if is_image(entry.name)]
    left_out.add_files(entry.name for entry in entries if not is_image(entry.name))
    left_out.log(path)
    if not images:
        raise InputError(f'{path}: holds no images')
    wnids = imagenet_labels.load_validation_wnids(labels_file, source_dir, labels)
    for image in images:
        name = os.path.basename(image.name)
        yield wnids[_validation_number(name, path, len(wnids)) - 1], image._replace(name=name)


def _has_class_folders(path: str) -> bool:
    return os.path.isdir(path) and bool(list_subfolders(path))


def _validation_number(name: str, path: str, count: int) -> int:
    match = _VALIDATION_IMAGE.fullmatch(name)
    if not match:
        raise InputError(f'{path}: {name} is not named as validation images are, such as ILSVRC2012_val_00000001.JPEG')
    number = int(match[1])
    if not 1 <= number <= count:
        raise InputError(f'{path}: {name} has no label: there are {count} validation labels')
    return number
