"""Evaluation of anything that classifies, several at once: the same images once through each.

results = compare(make_config(EvalConfig, compare=('/tmp/tfmodel', '/tmp/net.tflite', '/tmp/net.onnx')))
results = measure([classifier], dataset, batch_size=100, recall_at=(5,))
"""

import dataclasses
import functools
import json
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from configs.data import RecordNames
from configs.devices import ClusterOptions
from configs.evaluation import EvalConfig, EvalOptions, EvalOutputOptions
from datasets import dataset_factory, input_pipeline
from datasets.dataset_factory import Dataset
from datasets.records import names_from
from datasets.text_files import write_text
from engine.classifiers import Classifier, load_classifier, size_in_bytes
from engine.classifiers.model_spec import ModelSpec
from engine.evaluation.evaluated_split import evaluated_split
from engine.evaluation.metrics import ClassificationMetrics, clip_recall_at
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError, first_line
from support.progress import Progress
from support.tables import format_table

Results = dict[str, Any]


def compare(config: EvalConfig) -> list[Results]:
    """Evaluates all that `--compare` names over the same examples, and prints a table.

    Returns:
        What `measure` returns of each, and of each its kind and bytes.

    Raises:
        InputError: whatever the user can put right; nothing is written then.
    """
    options = config.evaluation
    _refuse_options_of_one(config.output, config.cluster)
    classifiers = [open_classifier(config, path, 'compare') for path in options.compare]
    dataset = find_dataset(config, classifiers[0])
    for classifier in classifiers:
        check_classes(classifier, dataset, config.net.force)
    measured = measure(classifiers, dataset, options.batch_size, options.recall_at, options.max_num_batches)
    results = [
        {'kind': classifier.kind, 'bytes': size_in_bytes(classifier.path), **result}
        for classifier, result in zip(classifiers, measured, strict=True)
    ]
    print(_table(options.compare, results))
    print(f'evaluated {results[0]["num_examples"]} of {dataset.num_examples}', flush=True)
    if config.output.results_path:
        facts = {'dataset_name': dataset.name, 'dataset_split_name': dataset.split}
        write_results(config.output.results_path, {**facts, 'compared': results})
    return results


def open_classifier(config: EvalConfig, path: str, flag: str = 'checkpoint_path') -> Classifier:
    """Opens what is to be evaluated, with the flags of the evaluation.

    Args:
        config: Of the evaluation.
        path: What is opened.
        flag: What messages call the path.

    Raises:
        InputError: it cannot be opened, or the flags contradict it.
    """
    net = config.net
    asked = {
        'model_name': net.model_name,
        'preprocessing_name': net.preprocessing_name,
        'image_size': net.eval_image_size,
        'labels_offset': net.labels_offset,
        'use_grayscale': net.use_grayscale,
        'channels': net.channels,
        'depth_multiplier': net.depth_multiplier,
        'global_pool': net.global_pool,
    }
    averages = bool(config.evaluation.moving_average_decay)
    return load_classifier(
        path,
        asked,
        config.foreign,
        averages=averages,
        mixed_precision=net.mixed_precision,
        size_flag='eval_image_size',
        path_flag=flag,
    )


def find_dataset(config: EvalConfig, classifier: Classifier) -> Dataset:
    """Returns the examples to evaluate: of the flags, else those that the net was trained on."""
    options, spec = config.evaluation, classifier.spec
    split = options.dataset_split_name
    if split is None:
        split = evaluated_split(os.path.dirname(classifier.path), *locate_dataset(options, spec)[:2])
    return open_dataset(config, spec, split, spec.labels_offset)


def locate_dataset(options: EvalOptions, spec: ModelSpec | None) -> tuple[str, str | None, RecordNames]:
    """Returns where the data to evaluate are: as flags say, else as of the training, else ImageNet.

    Returns:
        The name of the data set, its folder, and what its records are called.
    """
    of_run = spec.dataset_name if spec is not None else ''
    name, folder, names = options.dataset_name or of_run or 'imagenet', options.dataset_dir, names_from(options)
    if spec is not None and of_run == name:
        folder = spec.folder_of_data() if folder is None and spec.dataset_dir else folder
        names = names.or_else(spec.record_names)
    return name, folder or None, names


def open_dataset(config: EvalConfig, spec: ModelSpec | None, split: str | None, labels_offset: int) -> Dataset:
    """Returns the examples to evaluate; see `locate_dataset`.

    Where no flag says a labels_offset, and nothing is known of the data that the net was trained on, the background
    class is left out if the data set has it and the net has not.

    Args:
        config: Of the evaluation.
        spec: What is known of the net, if anything is.
        split: As `get_dataset` takes it.
        labels_offset: What is subtracted from the labels.

    Raises:
        InputError: there are none.
    """
    name, folder, names = locate_dataset(config.evaluation, spec)
    open_it = functools.partial(
        dataset_factory.get_dataset,
        name,
        folder,
        split,
        classes_of_net=_classes_for(spec, name, folder, config.net.force),
        record_names=names,
    )
    dataset = open_it(labels_offset)
    is_open = spec is not None and not spec.dataset_name and config.net.labels_offset is None
    if is_open and spec is not None and dataset.num_classes == spec.num_classes + 1:
        return open_it(labels_offset + 1)
    return dataset


def _classes_for(spec: ModelSpec | None, name: str, folder: str | None, force: bool) -> tuple[str, ...] | None:
    """Returns the net's class names for `get_dataset`; None if the net was trained on this folder.

    Args:
        spec: What is known of the net.
        name: Of the data set.
        folder: Of the data set.
        force: Whether the data set's names of classes count, whatever the net's are.
    """
    if spec is None or not spec.dataset_dir or folder is None:
        is_trained_on = False
    else:
        is_trained_on = (spec.dataset_name, os.path.realpath(spec.dataset_dir)) == (name, os.path.realpath(folder))
    if is_trained_on:
        return None
    return spec.label_names if spec is not None and not force else ()


def check_classes(classifier: Classifier, dataset: Dataset, force: bool) -> None:
    """Refuses a net whose classes are not those of the data set.

    Raises:
        InputError: another number of them, or, without `force`, other names.
    """
    spec, here = classifier.spec, f'{dataset.name} in {dataset.dataset_dir}'
    if spec.num_classes != dataset.num_classes:
        advice = f'; its labels less --labels_offset={spec.labels_offset} count here' if spec.labels_offset else ''
        raise InputError(
            f'{classifier.path} has {spec.num_classes} classes, but {here} has {dataset.num_classes}{advice}: '
            f'{_fitting(spec, dataset)}'
        )
    if spec.label_names and dataset.label_names and spec.label_names != dataset.label_names and not force:
        index = next(i for i, name in enumerate(dataset.label_names) if spec.label_names[i] != name)
        raise InputError(
            f'{classifier.path} has other classes than {here}: number {index} is {spec.label_names[index]!r} there, '
            f'{dataset.label_names[index]!r} here; choose another data set, or give --force'
        )


def _fitting(spec: ModelSpec, dataset: Dataset) -> str:
    offset = dataset.labels_offset + dataset.num_classes - spec.num_classes
    if offset in (0, 1) and not spec.dataset_name:
        return f'give --labels_offset={offset}'
    return 'choose another data set, or another --labels_offset'


def measure(
    classifiers: Sequence[Classifier],
    dataset: Dataset,
    batch_size: int,
    recall_at: tuple[int, ...],
    max_batches: int | None = None,
) -> list[Results]:
    """Counts over a split, every example once.

    Returns:
        Of each classifier path, step, num_examples, accuracy, recall_at_<k>; images_per_second, of its runs alone,
        without reading and preparing the images; and agreement, the share of images whose first class is that of the
        first classifier.

    Raises:
        InputError: a record that cannot be used, by file and number.
    """
    size = min(batch_size, dataset.num_examples)
    num_examples = min(dataset.num_examples, (max_batches or dataset.num_examples) * size)
    counters = [_Counter(classifier, clip_recall_at(recall_at, dataset.num_classes)) for classifier in classifiers]
    ways = dict.fromkeys(classifier.preprocessing for classifier in classifiers)  # several may prepare alike
    streams = {way: iter(input_pipeline.evaluation_batches(dataset, way, size, num_examples)) for way in ways}
    num_batches = -(-num_examples // size)
    with Progress('evaluation', total=num_batches, unit='batch') as progress:
        for done in range(num_batches):
            batches = {way: _next(streams[way], dataset, way, done * size, size) for way in ways}
            first: np.ndarray | None = None
            for counter in counters:
                top = counter.count(batches[counter.classifier.preprocessing], first)
                first = top if first is None else first
            if (done + 1) % max(num_batches // 10, 1) == 0:
                progress.report(done + 1, f'Evaluation [{done + 1}/{num_batches}]')
    return [counter.result() for counter in counters]


def _next(stream: Any, dataset: Dataset, way: Preprocessing, first: int, size: int) -> dict[str, np.ndarray]:
    positions = range(first, min(first + size, dataset.num_examples))
    with input_pipeline.naming_failures(dataset, way, positions):
        return {name: value.numpy() for name, value in next(stream).items()}


class _Counter:
    """Running counts of one classifier."""

    def __init__(self, classifier: Classifier, recall_at: tuple[int, ...]):
        self.classifier = classifier
        self._metrics = ClassificationMetrics(recall_at)
        self._counts = np.zeros(self._metrics.num_counts, np.int64)
        self._agreeing, self._images, self._seconds = 0, 0, 0.0

    def count(self, batch: dict[str, np.ndarray], first: np.ndarray | None) -> np.ndarray:
        """Counts a batch; returns the first class of each image, to be compared with that of the others."""
        images = batch['image']
        if not self._images:
            self.classifier.scores(images)  # compiles, or makes room: no part of its speed
        start = time.monotonic()
        scores = self.classifier.scores(images)
        self._seconds += time.monotonic() - start
        if not np.isfinite(scores).all():
            raise InputError(f'{self.classifier.path} gives values that are not finite: it is damaged, or has diverged')
        self._images += len(images)
        counts = self._metrics.count(tf.constant(scores), tf.constant(batch['label']), tf.constant(batch['mask']))
        self._counts += counts.numpy()
        top = scores.argmax(axis=-1)
        self._agreeing += int(((top == (top if first is None else first)) & batch['mask']).sum())
        return top

    def result(self) -> Results:
        measured = self._metrics.result(self._counts)
        return {
            'path': self.classifier.path,
            'step': self.classifier.step,
            **measured,
            'images_per_second': round(self._images / self._seconds, 1),
            'agreement': self._agreeing / measured['num_examples'],
        }


def write_results(path: str, results: Results) -> None:
    """Writes what was measured as JSON, whole or not at all."""
    try:
        write_text(path, json.dumps(results, indent=1) + '\n')
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--results_path={path}: {first_line(error)}') from error


def _table(paths: Sequence[str], results: Sequence[Results]) -> str:
    recalls = [name for name in results[0] if name.startswith('recall_at_')]
    heading = ('file', 'kind', 'MB', 'Accuracy', *(f'Recall_{name.removeprefix("recall_at_")}' for name in recalls))
    rows = [
        (
            path,
            result['kind'],
            f'{result["bytes"] / 1e6:.2f}',
            *(f'{result[name]:.2%}' for name in ('accuracy', *recalls)),
            f'{result["images_per_second"]:.0f}',
            f'{result["agreement"]:.2%}',
        )
        for path, result in zip(paths, results, strict=True)
    ]
    return format_table([(*heading, 'images/s', 'agreement'), *rows], numbers=True)


def _refuse_options_of_one(output: EvalOutputOptions, cluster: ClusterOptions) -> None:
    """Refuses what makes no sense for several at once."""
    given = {**dataclasses.asdict(output), **dataclasses.asdict(cluster)}
    of_one = ('eval_dir', 'eval_interval_secs', 'max_number_of_evaluations', 'eval_timeout_secs')
    for name in (*of_one, 'worker_hosts', 'launch_workers'):
        if given[name]:
            raise InputError(f'--{name}={given[name]}: --compare evaluates each once, in one process; leave it out')
