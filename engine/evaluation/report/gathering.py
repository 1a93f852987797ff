"""Gathers the content of a report from the data set, the net and its run.

content = gather(subjects, outcomes, statistics, dataset, facts)
page.write_report('/tmp/report', content)
"""

import dataclasses
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from configs.options import flat_options
from configs.training import AugmentOptions, TrainConfig
from datasets import dataset_factory
from datasets.dataset_factory import Dataset
from engine.checkpoints.files import BEST
from engine.classifiers.explaining import make_explainer, overlay
from engine.distributed.kernels import describe_kernels
from engine.evaluation.dataset import example_ids, run_options
from engine.evaluation.outcomes import Outcomes
from engine.evaluation.report.content import Content, Curve, Preparation, Subject
from engine.evaluation.report.galleries import Explain, draw_filters, make_galleries, make_preparations
from engine.evaluation.statistics import Statistics, compare_pairs
from engine.evaluation.subject import CheckpointSubject, FileSubject
from engine.runs.history import History, Series, read_history
from support.errors import InputError, first_line

_PACKAGES = ('tensorflow', 'keras', 'numpy', 'scikit-learn')
# Charts of the page: title, tag in training, tag in evaluations.
_CHARTS = (
    ('cross-entropy', 'losses/cross_entropy', 'losses/cross_entropy'),
    ('accuracy', 'accuracy', 'accuracy'),
    ('learning rate', 'learning_rate', None),
)


def gather(
    subjects: Sequence[CheckpointSubject | FileSubject],
    outcomes: Sequence[Outcomes],
    statistics: Sequence[Statistics],
    facts: Sequence[dict[str, str]],
    dataset: Dataset,
    strategy: tf.distribute.Strategy,
    subset: np.ndarray | None = None,
) -> Content:
    """Returns the content of a report; pictures, curves and recipe are those of the first classifier.

    Args:
        subjects: The classifiers, on the same examples.
        outcomes: Of each classifier.
        statistics: Of each classifier.
        facts: Further facts about each classifier, by name.
        dataset: The examples.
        strategy: The strategy of the replicas.
        subset: For each class of the outcomes, the first net's class; None if they are the same.

    Raises:
        InputError: an image cannot be read.
    """
    first = subjects[0]
    folder = os.path.dirname(first.path) if isinstance(first, CheckpointSubject) else ''
    options = run_options(folder) if folder else {}
    model = first.model if isinstance(first, CheckpointSubject) else None
    is_real = not dataset.examples.are_synthetic
    paths = [subject.path for subject in subjects]
    return Content(
        title=f'{first.spec.model_name} on {dataset.name}, {dataset.split}',
        subjects=[Subject(*each) for each in zip(paths, facts, outcomes, statistics, strict=True)],
        example_ids=example_ids(dataset, outcomes[0].numbers),
        label_names=dataset.label_names or first.spec.label_names,
        differences=compare_pairs(paths, outcomes),
        curves=_curves(folder) if folder else (),
        galleries=make_galleries(outcomes[0], dataset, first.preprocessing, _explainer(first, subset))
        if is_real
        else (),
        filters=model and draw_filters(model, first.preprocessing.normalization.channel_order),
        preparations=_preparations(first, options),
        recipe=_recipe(options),
        environment=_environment(strategy),
    )


def _curves(folder: str) -> list[Curve]:
    """Returns the learning curves of a run; none if its event files cannot be read."""
    try:
        history = read_history(os.path.dirname(folder) if os.path.basename(folder) == BEST else folder)
    except InputError as error:
        logging.warning('the report has no learning curves: %s', error)
        return []
    return [
        Curve(chart, name, series.steps, series.values)
        for chart, in_training, in_evaluation in _CHARTS
        for name, series in _of_chart(history, in_training, in_evaluation)
    ]


def _of_chart(history: History, in_training: str, in_evaluation: str | None) -> list[tuple[str, Series]]:
    found = [('training', history.training.get(in_training))]
    if in_evaluation is not None:
        found += [(split, series.get(in_evaluation)) for split, series in sorted(history.evaluations.items())]
    return [(name, series) for name, series in found if series is not None and len(series.steps)]


def _preparations(subject: CheckpointSubject | FileSubject, options: dict[str, Any]) -> Sequence[Preparation]:
    """Returns training images as the run prepares them; none if the data are missing."""
    if not options or not options.get('dataset_name'):
        return ()
    spec = subject.spec
    augment = AugmentOptions(**{field.name: options[field.name] for field in dataclasses.fields(AugmentOptions)})
    try:
        dataset = dataset_factory.get_dataset(
            options['dataset_name'],
            spec.folder_of_data(),
            options['dataset_split_name'],
            spec.labels_offset,
            record_names=spec.record_names,
        )
        if dataset.examples.are_synthetic:
            return ()
        return make_preparations(dataset, spec.make_preprocessing(augment), options['seed'])
    except (InputError, tf.errors.OpError) as error:
        logging.warning('the report shows no training images: %s', first_line(error))
        return ()


def _recipe(options: dict[str, Any]) -> dict[str, str]:
    """Returns the main options of a run and those that differ from their defaults, by name."""
    defaults = {name: option.default for name, option in flat_options(TrainConfig).items()}
    main = ('model_name', 'dataset_name', 'batch_size', 'optimizer', 'learning_rate', 'weight_decay')
    chosen = [name for name in defaults if name in options and (name in main or options[name] != defaults[name])]
    shown = {name: options[name] for name in chosen if options[name] is not None}
    return {
        f'--{name}': ','.join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in shown.items()
    }


def _explainer(subject: CheckpointSubject | FileSubject, subset: np.ndarray | None) -> Explain | None:
    """Returns a function that draws Grad-CAM over images; None for an exported file and a net without convolutions."""
    if not isinstance(subject, CheckpointSubject):
        return None
    preprocessing = subject.preprocessing
    try:
        explain = make_explainer(subject.model, 'grad_cam')
    except InputError as error:
        logging.info('the report has no explanations: %s', error)
        return None
    return lambda images, classes: overlay(
        images.numpy() / preprocessing.host_range,
        explain(preprocessing.device_eval(images), classes if subset is None else subset[classes]),
    )


def _environment(strategy: tf.distribute.Strategy) -> dict[str, str]:
    versions = {package: metadata.version(package) for package in _PACKAGES}
    return {
        'computed by': describe_kernels(strategy),
        'Python': platform.python_version(),
        **versions,
        'system': f'{platform.system()} {platform.machine()}',
    }
