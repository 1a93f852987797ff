"""Classes of ILSVRC2012: WordNet ids, names, and the labels of the validation images.

    wnids = load_wnids()                                            # 'n01440764', ...: labels 1 to 1000
    names = load_class_names('LOC_synset_mapping.txt', wnids)       # 'tench, Tinca tinca', ...
    labels = load_validation_wnids(None, '/data/imagenet', wnids)   # labels[0] is for ILSVRC2012_val_00000001

The class list and the validation labels come from the installed tensorflow_datasets.
"""

import os
from collections.abc import Collection, Sequence

from absl import logging

from datasets.regular_files import read_file
from support.errors import InputError
from support.input_files import NotUtf8Error, decode_text

VALIDATION_LABELS_FILE = 'imagenet_2012_validation_synset_labels.txt'


def load_wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of the 1000 classes in the order of their labels, which is alphabetical."""
    return tuple(_read_lines(_packaged('labels.txt')))


def load_class_names(path: str, wnids: Sequence[str]) -> tuple[str, ...]:
    """Returns the class names from ILSVRC's `LOC_synset_mapping.txt` or lines of `wnid<TAB>name`.

    A file that lacks a class is an error, because a WordNet id among the names would pass unnoticed.

    Raises:
        InputError: The file is missing or lacks a class.
    """
    names: dict[str, str] = {}
    for line in _read_lines(path):
        wnid, _, name = line.replace('\t', ' ', 1).partition(' ')
        names[wnid] = name.strip()
    for wnid in wnids:
        if not names.get(wnid):
            raise InputError(f'{path}: has no name for {wnid}; its lines must be like `{wnid} name of the class`')
    return tuple(names[wnid] for wnid in wnids)


def load_validation_wnids(path: str | None, source_dir: str, wnids: Collection[str]) -> tuple[str, ...]:
    """Reads the class of each validation image: line i is for image number i, from 1.

    Args:
        path: Text file with a WordNet id a line; if None, the file in `source_dir`, else tensorflow_datasets' own.
        source_dir: Folder that may hold `imagenet_2012_validation_synset_labels.txt`.
        wnids: The valid WordNet ids.

    Raises:
        InputError: The file is missing, or a line is not in `wnids`.
    """
    beside = os.path.join(source_dir, VALIDATION_LABELS_FILE)
    if path is None:
        path = beside if os.path.exists(beside) else _packaged('validation_labels.txt')
    logging.info('labels of the validation images: %s', path)
    lines = _read_lines(path)
    for number, line in enumerate(lines, start=1):
        if line not in wnids:
            raise InputError(f'{path}, line {number}: {line!r} is none of the 1000 WordNet ids, such as n01440764')
    return tuple(lines)


def _packaged(name: str) -> str:
    import tensorflow_datasets as tfds  # slow to import, and other processes read no labels

    return os.fspath(tfds.core.tfds_path(f'datasets/imagenet2012/{name}'))


def _read_lines(path: str) -> list[str]:
    """Returns the lines without surrounding white space; empty lines at the end are dropped."""
    try:
        return [line.strip() for line in decode_text(read_file(path)).rstrip().splitlines()]
    except (OSError, NotUtf8Error) as error:
        raise InputError(f'{path}: not a file of UTF-8 text: {error}') from error
