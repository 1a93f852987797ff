"""Maps the classes of a data set to those of a net, for data sets with a subset of the net's classes.

labels = find_labels(dataset)                                        # those that occur
names = [dataset.label_names[label] for label in labels]             # ('n01498041', 'n01531178', ...)
map_classes('names', names, '/tmp/net', spec)                        # array([6, 11, ...]), classes of the net
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from datasets import dataset_factory, slices
from datasets.conversion.imagenet_labels import load_wnids
from datasets.dataset_factory import Dataset
from datasets.examples import StoredExamples
from datasets.files import in_one_form
from datasets.regular_files import read_file
from engine.classifiers.model_spec import ModelSpec
from support.errors import InputError, first_line
from support.input_files import decode_text

_NUM_IMAGENET = 1000


def num_background(num_classes: int) -> int:
    """Returns 1 for slim's 1001 classes of ImageNet, whose class 0 is an unused background, otherwise 0."""
    return int(num_classes == _NUM_IMAGENET + 1)


def find_labels(dataset: Dataset) -> list[int]:
    """Returns the labels that occur in the splits of a data set, ascending.

    A data set may declare classes without images: TFDS's imagenet_a and imagenet_r declare all of ImageNet's. Slices
    count as their whole splits, so that all parts of a data set are scored over the same classes.
    """
    splits = '+'.join(dict.fromkeys(part.split for part in slices.parse(dataset.split)))
    if splits != dataset.split:
        folder, names = dataset.dataset_dir or None, dataset.record_names
        dataset = dataset_factory.get_dataset(dataset.name, folder, splits, classes_of_net=(), record_names=names)
    assert isinstance(dataset.examples, StoredExamples)
    found: set[int] = set()
    for labels in dataset_factory.read_labels(dataset.examples, dataset.num_examples):
        found.update(labels.tolist())
    return sorted(label for label in found if 0 <= label < dataset.num_classes)  # others are reported when scored


def map_classes(class_map: str, names: Sequence[str], path: str, spec: ModelSpec) -> np.ndarray:
    """Returns the net's class for each class of a data set, int64 [classes].

    Args:
        class_map: 'names': names are equal to the net's, or are WordNet ids, for a net with ImageNet's 1000 classes
            (or 1001, with the background). 'numbers': names are numbers of the net's classes, without the background.
            Otherwise a file, see `_read`.
        names: Names of the data set's classes.
        path: The net's file, for messages.
        spec: The net.

    Raises:
        InputError: a class is not found, or two are the same class of the net.
    """
    flag = f'--class_map={class_map}'
    if class_map == 'names':
        found = _by_name(names, spec)
        advice = 'names must be equal, or be WordNet ids for a net with the classes of ImageNet; a file can map others'
    elif class_map == 'numbers':
        background = num_background(spec.num_classes)
        numbers = range(spec.num_classes - background)
        found = {str(number): number + background for number in numbers}
        advice = f'names must be numbers from 0 to {numbers[-1]}'
    else:
        found = _read(class_map, path, spec)
        advice = 'the file must have a line for it'
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f'{flag}: {len(missing)} of the {len(names)} classes of the data set are not found in {path}, such as '
            f'{missing[0]!r}: {advice}'
        )
    taken: dict[int, str] = {}
    for name in names:
        other = taken.setdefault(found[name], name)
        if other != name:
            raise InputError(f'{flag}: {other!r} and {name!r} are both class {found[name]} of {path}')
    return np.array([found[name] for name in names], np.int64)


def _by_name(names: Sequence[str], spec: ModelSpec) -> dict[str, int]:
    found = _unambiguous(spec)
    background = num_background(spec.num_classes)
    if not found.keys() >= set(names) and spec.num_classes - background == _NUM_IMAGENET:
        of_wnids = {wnid: index for index, wnid in enumerate(load_wnids(), background)}
        if of_wnids.keys() >= set(names):
            return of_wnids
    return found


def _unambiguous(spec: ModelSpec) -> dict[str, int]:
    """Returns the net's classes by name, without ambiguous names: ImageNet has two cranes and two maillots."""
    names = list(map(in_one_form, spec.label_names))
    counts = Counter(names)
    return {name: index for index, name in enumerate(names) if counts[name] == 1}


def _read(class_map: str, path: str, spec: ModelSpec) -> dict[str, int]:
    """Reads a file with a line per class: name, tab or comma, number or name of the net's class.

    A name that looks like a number is taken for one, unless it is the name of a class of the net.
    """
    try:
        lines = decode_text(read_file(class_map)).splitlines()
    except InputError as error:
        raise InputError(f'--class_map={error}') from error
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f'--class_map={class_map}: {first_line(error)}') from error
    numbers = {str(number): number for number in range(spec.num_classes)} | _unambiguous(spec)
    found: dict[str, int] = {}
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f'--class_map={class_map}, line {line_number}: '
        name, *of_net = (
            in_one_form(part.strip()) for part in re.split('\t' if '\t' in line else ',', line, maxsplit=1)
        )
        if not of_net:
            raise InputError(f'{where}{line!r} is not of the form name,class')
        if of_net[0] not in numbers:
            raise InputError(
                f'{where}{of_net[0]!r} is neither a number from 0 to {spec.num_classes - 1} nor the name of just one '
                f'class of {path}'
            )
        if name in found:
            raise InputError(f'{where}{name!r} is listed twice')
        found[name] = numbers[of_net[0]]
    return found
