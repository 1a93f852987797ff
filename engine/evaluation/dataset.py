"""Finds the data set to evaluate on: from the flags, else the one of the net's training run.

dataset = find_dataset(config.evaluation, config.net, path, spec, cluster)
check_classes(path, spec, dataset, force=False)
"""

import functools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from configs.data import RecordNames
from configs.evaluation import EvalNetOptions, EvalOptions
from configs.options import from_flagfile
from configs.training import TrainConfig
from datasets import dataset_factory, slices
from datasets.dataset_factory import Dataset
from datasets.records import names_from
from engine.checkpoints.files import BEST
from engine.classifiers.model_spec import ModelSpec
from engine.distributed.cluster import Cluster
from engine.runs.files import CONFIG
from support.errors import InputError


def find_dataset(options: EvalOptions, net: EvalNetOptions, path: str, spec: ModelSpec, cluster: Cluster) -> Dataset:
    """Returns the data set to evaluate a net on.

    If neither a flag nor the net's training data set determines labels_offset, the background class is left out if the
    data set has it and the net does not. With a class map the data set keeps its own classes.

    Args:
        options: The data set's name, folder and split from flags.
        net: Overrides of the net from flags.
        path: The net's file; the config.cfg beside a checkpoint has the split on which its run was evaluated.
        spec: The net.
        cluster: The workers.

    Raises:
        InputError: the data set or the split is not found.
    """
    name, folder, names = _locate(options, spec)
    split = options.dataset_split_name
    if split is None:
        split = cluster.on_chief(lambda: evaluated_split(os.path.dirname(path), name, folder))
    open_it = functools.partial(
        dataset_factory.get_dataset,
        name,
        folder,
        split,
        classes_of_net=_classes_for(spec, name, folder, net.force or options.class_map is not None),
        record_names=names,
    )
    if options.class_map is not None:
        return open_it(0)
    dataset = open_it(spec.labels_offset)
    is_open = not spec.dataset_name and net.labels_offset is None
    if is_open and dataset.num_classes == spec.num_classes + 1:
        return open_it(spec.labels_offset + 1)
    return dataset


def _locate(options: EvalOptions, spec: ModelSpec) -> tuple[str, str | None, RecordNames]:
    """Returns name, folder and record names of the data set: from flags, else from training, else ImageNet."""
    name, folder, names = (
        options.dataset_name or spec.dataset_name or 'imagenet',
        options.dataset_dir,
        names_from(options),
    )
    if spec.dataset_name == name:
        folder = spec.folder_of_data() if folder is None and spec.dataset_dir else folder
        names = names.or_else(spec.record_names)
    return name, folder or None, names


def _classes_for(spec: ModelSpec, name: str, folder: str | None, force: bool) -> tuple[str, ...] | None:
    """Returns the net's class names for `get_dataset`; None if the net was trained on this folder.

    With `force`, returns no names, so that the data set's names are used.
    """
    if spec.dataset_dir and folder is not None:
        trained_on = (spec.dataset_name, os.path.realpath(spec.dataset_dir))
        if trained_on == (name, os.path.realpath(folder)):
            return None
    return () if force else spec.label_names


def check_classes(path: str, spec: ModelSpec, dataset: Dataset, force: bool) -> None:
    """Raises InputError if a net's classes or channels differ from the data set's.

    Raises:
        InputError: the numbers of classes differ, or, without `force`, their names, or a gray net gets colour images.
    """
    here = f'{dataset.name} in {dataset.dataset_dir}'
    # With one class less, the background is more likely.
    is_subset = dataset.label_names and dataset.num_classes < spec.num_classes - 1
    subset = f'; or --class_map, if {dataset.name} has a subset of its classes' if is_subset else ''
    if spec.num_classes != dataset.num_classes:
        advice = f'; its labels less --labels_offset={spec.labels_offset} count here' if spec.labels_offset else ''
        raise InputError(
            f'{path} has {spec.num_classes} classes, but {here} has {dataset.num_classes}{advice}: '
            f'{_fitting(spec, dataset)}{subset if spec.num_classes > dataset.num_classes else ""}'
        )
    check_channels(path, spec, dataset, force)
    if spec.label_names and dataset.label_names and spec.label_names != dataset.label_names and not force:
        index = next(i for i, name in enumerate(dataset.label_names) if spec.label_names[i] != name)
        raise InputError(
            f'{path} has other classes than {here}: number {index} is {spec.label_names[index]!r} there, '
            f'{dataset.label_names[index]!r} here; choose another data set, or give --force, or --class_map, which '
            'finds the same classes in another order or by their WordNet ids'
        )
    if not spec.label_names and not force and _are_numbers_as_text(dataset.label_names):
        raise InputError(
            f'{here}: the names of its classes are numbers in the order of text, {", ".join(dataset.label_names[:3])}, '
            '...; --class_map=numbers takes them for class numbers, --force keeps this order'
        )


def _are_numbers_as_text(names: Sequence[str]) -> bool:
    """Returns whether names are numbers from 0, such as folders of ImageNet-V2, but not in the order of numbers."""
    numbers = list(map(str, range(len(names))))
    return list(names) != numbers and sorted(names) == sorted(numbers)


def check_channels(path: str, spec: ModelSpec, dataset: Dataset, force: bool) -> None:
    """Raises InputError if a gray net gets colour images, without `force`."""
    here = f'{dataset.name} in {dataset.dataset_dir}'
    if spec.channels == 1 and not spec.use_grayscale and dataset.channels == 3 and not force:
        flags = '--use_grayscale and --force' if spec.dataset_name else '--use_grayscale'
        raise InputError(f'{path} takes gray images, but {here} has images in colour: {flags} turns them to gray')


def _fitting(spec: ModelSpec, dataset: Dataset) -> str:
    offset = dataset.labels_offset + dataset.num_classes - spec.num_classes
    if offset in (0, 1) and not spec.dataset_name:
        return f'give --labels_offset={offset}'
    return 'choose another data set, or another --labels_offset'


def example_ids(dataset: Dataset, numbers: Iterable[int]) -> list[str]:
    """Returns the examples at positions of a split: file, or shard and record, relative to the data set's folder."""
    folder = f'{dataset.dataset_dir.rstrip("/")}/' if dataset.dataset_dir else ''
    return [dataset.examples.describe(int(number)).removeprefix(folder) for number in numbers]


def evaluated_split(folder: str, dataset_name: str, dataset_dir: str | None) -> str | None:
    """Returns the run's `--eval_split_name`; None if it had none, or if that split overlaps the training split.

    An overlapping split is used only on request: by default its result would be mistaken for one on unseen examples.

    Args:
        folder: A checkpoint's folder.
        dataset_name: The data set to evaluate on.
        dataset_dir: Its folder.
    """
    options = run_options(folder)
    split, trained = options.get('eval_split_name'), options.get('dataset_split_name')
    if split is None or trained is None or options.get('dataset_name') != dataset_name:
        return None
    try:
        collection = dataset_factory.open_collection(dataset_name, dataset_dir)
        is_shared = slices.overlap(split, trained, lambda name: len(collection.open_split(name)))
    except InputError:  # a missing split or folder is reported when it is opened
        return split
    if is_shared:
        logging.warning(
            'the run was evaluated on %s, which shares examples with %s, which it was trained on, so that it is not '
            'taken by default; --dataset_split_name asks for it',
            *(split, trained),
        )
        return None
    logging.info('evaluating on %s, as during training; --dataset_split_name chooses another split', split)
    return split


def run_options(folder: str) -> dict[str, Any]:
    """Returns a run's options from its config.cfg, for `best` its parent's; empty if it is missing or damaged."""
    folders = [folder]
    if os.path.basename(folder) == BEST:
        folders.append(os.path.dirname(folder))
    for candidate in folders:
        path = os.path.join(candidate, CONFIG)
        try:
            if tf.io.gfile.exists(path):
                with tf.io.gfile.GFile(path) as file:
                    return from_flagfile(TrainConfig, file.read())
        except (ValueError, tf.errors.OpError):
            return {}
    return {}
