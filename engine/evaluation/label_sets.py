"""Label sets other than the data set's own: a subset of the net's classes, several correct classes per image.

label_set = open_label_set(config.evaluation, source, [subject], force=False)
measure([subject], source, recall_at, observers, relabel=label_set.relabel)
label_set.dataset.label_names                                # of the classes that are scored
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse
from absl import logging

from configs.evaluation import EvalOptions
from datasets.dataset_factory import Dataset
from engine.evaluation.class_map import find_labels, map_classes, num_background
from engine.evaluation.dataset import check_channels, check_classes
from engine.evaluation.measure import EvalSource
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.real_labels import read_right_classes
from engine.evaluation.rows import Named
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class LabelSet:
    """The classes that are scored, and which of them are correct for each example.

    Attributes:
        dataset: The data set with the classes that are scored.
        labels: int64 [classes of the data set], the label in the set of each class; -1 for those without examples. None
            if the labels are the data set's own.
        subsets: For each classifier int64 [classes], its class for each class of the set; empty if all its classes are
            scored.
        right: bool [examples, classes], the correct classes in the set; None if only the label is correct.
        facts: The choices, for results as JSON; empty for the data set's own labels.
    """

    dataset: Dataset
    labels: np.ndarray | None = None
    subsets: tuple[np.ndarray, ...] = ()
    right: scipy.sparse.csr_array | None = None
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def relabel(self, batch: ScoredBatch) -> ScoredBatch:
        """Returns a batch with the labels and classes of the set, without examples that have no correct class."""
        if self.labels is not None:
            restricted = zip(batch.scores, batch.outputs, self.subsets, strict=True)
            scores = tuple(_restrict(*of_subject) for of_subject in restricted)
            batch = dataclasses.replace(batch, labels=self.labels[batch.labels], scores=scores)
        if self.right is not None:
            right = self.right[batch.numbers].toarray()
            kept = right.any(axis=-1)
            scores = tuple(each[kept] for each in batch.scores)
            numbers, labels = batch.numbers[kept], batch.labels[kept]
            batch = dataclasses.replace(batch, numbers=numbers, labels=labels, scores=scores, right=right[kept])
        return batch

    @property
    def first_subset(self) -> np.ndarray | None:
        """The first classifier's class for each class of the set; None if they are the same."""
        return self.subsets[0] if self.subsets else None

    @property
    def suffix(self) -> str:
        """The end of the name of a folder of results, after the split: '', '_real', '_subset' or '_subset_real'."""
        return ('' if self.labels is None else '_subset') + ('' if self.right is None else '_real')

    def identity(self) -> str:
        """Returns a digest of the classes and correct answers, to compare workers."""
        digest = hashlib.sha256()
        arrays = [] if self.right is None else [self.right.indptr, self.right.indices]
        for array in (*self.subsets, *arrays):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        return digest.hexdigest()


def _restrict(scores: np.ndarray, output: str, classes: np.ndarray) -> np.ndarray:
    """Returns the scores of some classes; probabilities are divided by their sum, as in a softmax of these."""
    chosen = scores[:, classes]
    if output == 'logits':
        return chosen
    totals = chosen.sum(axis=-1, keepdims=True)
    # An int8 model may give all of them 0.
    return np.divide(chosen, totals, out=np.full_like(chosen, 1 / len(classes)), where=totals != 0)


def open_label_set(options: EvalOptions, source: EvalSource, nets: Sequence[Named], *, force: bool) -> LabelSet:
    """Checks that nets fit a data set, and opens the label set of the flags.

    Args:
        options: `--class_map` and `--real_labels`.
        source: The examples.
        nets: The classifiers.
        force: Whether the names of classes may differ.

    Raises:
        InputError: the classes differ, a file is not valid, or workers have different ones.
    """
    dataset = source.dataset
    label_set = LabelSet(dataset)
    if options.class_map is None:
        for net in nets:
            check_classes(net.path, net.spec, dataset, force)
    else:
        label_set = _subset(options.class_map, source, nets, force)
    if options.real_labels is not None:
        label_set = _with_right_classes(options.real_labels, label_set, source, nets[0])
    if label_set.facts:
        source.cluster.check_same({'label set': label_set.identity()})
    return label_set


def _subset(class_map: str, source: EvalSource, nets: Sequence[Named], force: bool) -> LabelSet:
    dataset = source.dataset
    if not dataset.label_names:
        raise InputError(f'--class_map={class_map}: {dataset.name} in {dataset.dataset_dir} has no names of classes')
    present = source.cluster.on_chief(lambda: find_labels(dataset))
    names = [dataset.label_names[label] for label in present]
    if len(names) < 2:
        raise InputError(
            f'--class_map={class_map}: {dataset.name}, split {dataset.split} has only {names or "no class"}'
        )
    subsets = []
    for net in nets:
        check_channels(net.path, net.spec, dataset, force)
        subsets.append(map_classes(class_map, names, net.path, net.spec))
        logging.info('%s: %d of its %d classes are scored', net.path, len(names), net.spec.num_classes)
    labels = np.full(dataset.num_classes, -1)
    labels[present] = np.arange(len(present))
    of_net = nets[0].spec.label_names  # in words, where the data set has WordNet ids or numbers
    shown = tuple(of_net[index] for index in subsets[0]) if of_net else tuple(names)
    view = dataclasses.replace(dataset, num_classes=len(names), label_names=shown)
    return LabelSet(view, labels, tuple(subsets), facts={'class_map': class_map, 'num_classes': len(names)})


def _with_right_classes(path: str, label_set: LabelSet, source: EvalSource, net: Named) -> LabelSet:
    labels = np.arange(net.spec.num_classes)  # the data set's label of each class of the net
    present = None if label_set.labels is None else np.flatnonzero(label_set.labels >= 0)
    if present is not None:
        labels = np.full(net.spec.num_classes, -1)
        labels[label_set.subsets[0]] = present
    labels = labels[num_background(net.spec.num_classes) :]
    right = read_right_classes(path, source.dataset, source.num_examples, labels)
    right = right if present is None else right[:, present]
    left_out = int((np.diff(right.indptr) == 0).sum())
    facts = {**label_set.facts, 'real_labels': path, 'num_left_out': left_out}
    return dataclasses.replace(label_set, right=right, facts=facts)
