"""Reads several correct classes per image: ImageNet ReaL of "Are we done with ImageNet?" (arXiv:2006.07159).

right = read_right_classes('real.json', dataset, dataset.num_examples, np.arange(1, 1001))
right[[7]].toarray()                                          # bool [1, classes], of example 7

`real.json` has a list per validation image, from ILSVRC2012_val_00000001 on, with its correct classes from 0 to 999.
"""

import json
import re

import numpy as np
import scipy.sparse
import tensorflow as tf
from absl import logging

from datasets.dataset_factory import Dataset
from datasets.examples import StoredExamples
from datasets.regular_files import read_file
from support.errors import InputError, first_line

_VALIDATION_IMAGE = re.compile(r'ILSVRC2012_val_(\d{8})')
_LOOKED_AT = 200  # images whose own label is compared
_FEW = 0.5  # ReaL keeps nine of ten of ImageNet's labels


def read_right_classes(path: str, dataset: Dataset, num_examples: int, classes: np.ndarray) -> scipy.sparse.csr_array:
    """Returns the correct classes of a split's first examples, bool [num_examples, dataset.num_classes], sparse.

    Images are matched by the numbers in their file names; without file names, by position, if the split has as many
    examples as the file has lists.

    Args:
        path: The JSON file.
        dataset: The split.
        num_examples: Number of examples.
        classes: int64, the data set's label, less its labels_offset, of each number in the file; -1 if it has none.

    Raises:
        InputError: the file has another form, does not belong to the images, or has no correct class for any.
    """
    flag = f'--real_labels={path}'
    lists = _read(path, len(classes))
    names = _file_names(dataset, num_examples)
    if any(names):
        places = [_place(flag, dataset, number, name, len(lists)) for number, name in enumerate(names)]
    elif len(lists) == dataset.num_examples:
        places = list(range(num_examples))
        logging.warning('%s: the examples have no file names, and are taken to be in the order of the file', flag)
    else:
        raise InputError(
            f'{flag}: its {len(lists)} lists cannot be matched with the {dataset.num_examples} examples of '
            f'{dataset.name}, split {dataset.split}, which have no file names'
        )
    found = [classes[lists[place]] for place in places]
    rows, columns = np.repeat(np.arange(num_examples), list(map(len, found))), np.concatenate(found)
    known = columns >= 0
    cells = (np.ones(known.sum(), np.bool_), (rows[known], columns[known]))
    right = scipy.sparse.coo_array(cells, shape=(num_examples, dataset.num_classes)).tocsr()
    _check(flag, dataset, right)
    return right


def _read(path: str, num_classes: int) -> list[list[int]]:
    try:
        lists = json.loads(read_file(path))
    except InputError as error:
        raise InputError(f'--real_labels={error}') from error
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--real_labels={path}: {first_line(error)}') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'--real_labels={path}: not JSON: {first_line(error)}') from error
    if not isinstance(lists, list):
        raise InputError(f'--real_labels={path}: must be a list with a list of classes for each image')
    for position, each in enumerate(lists):
        if not isinstance(each, list) or any(type(index) is not int for index in each):
            raise InputError(f'--real_labels={path}: item {position} is {each!r:.60}, must be a list of class numbers')
        outside = [index for index in each if not 0 <= index < num_classes]
        if outside:
            raise InputError(
                f'--real_labels={path}: item {position} has the class {outside[0]}, must be from 0 to {num_classes - 1}'
            )
    return lists


def _file_names(dataset: Dataset, num_examples: int) -> list[str]:
    """Returns the file name of each example, '' if unknown.

    Raises:
        InputError: a record is damaged.
    """
    examples = dataset.examples
    assert isinstance(examples, StoredExamples)
    found = tf.data.Dataset.range(num_examples).map(
        lambda number: (number, examples.file_name(number)), num_parallel_calls=tf.data.AUTOTUNE
    )
    names = dict.fromkeys(range(num_examples), '')
    unread = set(names)
    for number, name in found.ignore_errors().as_numpy_iterator():
        names[number] = name.decode(errors='replace')
        unread.remove(number)
    for number in sorted(unread):
        _check_example(dataset, number)
    return list(names.values())


def _check_example(dataset: Dataset, number: int) -> int:
    """Returns the label of an example; raises InputError with its place if it is damaged."""
    try:
        return int(dataset.examples.check(number)['label']) - dataset.labels_offset
    except InputError as error:
        raise InputError(f'{dataset.examples.describe(number)}: {error}') from error


def _place(flag: str, dataset: Dataset, number: int, name: str, num_lists: int) -> int:
    """Returns the position in the file of the list for an example."""
    match = _VALIDATION_IMAGE.search(name)
    if match is None:
        raise InputError(
            f'{flag}: {dataset.examples.describe(number)} has the file name {name!r}, but images must be named as '
            'those of ImageNet, ILSVRC2012_val_00000001.JPEG and so on'
        )
    if not 1 <= int(match[1]) <= num_lists:
        raise InputError(f'{flag}: has {num_lists} lists, and none for {dataset.examples.describe(number)}, {match[0]}')
    return int(match[1]) - 1


def _check(flag: str, dataset: Dataset, right: scipy.sparse.csr_array) -> None:
    """Raises InputError if no example has a correct class; warns if few examples' own labels are correct."""
    num_right = np.diff(right.indptr)
    with_right = np.flatnonzero(num_right)
    if not len(with_right):
        raise InputError(f'{flag}: none of the images to evaluate has a right class')
    looked_at = with_right[np.unique(np.linspace(0, len(with_right) - 1, _LOOKED_AT).astype(int))]
    kept = sum(_check_example(dataset, int(number)) in right[[number]].indices for number in looked_at)
    if kept < _FEW * len(looked_at):
        logging.warning(
            '%s: only %d of %d images looked at have their own label among the right classes; is this the file of '
            'these images?',
            *(flag, kept, len(looked_at)),
        )
    if len(with_right) < len(num_right):
        left_out = len(num_right) - len(with_right)
        logging.info('%s: %d of %d images have no right class, and are left out', flag, left_out, len(num_right))
