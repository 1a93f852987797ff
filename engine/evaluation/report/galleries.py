"""The pictures of a report: galleries of examples, filters of the first layer, prepared training images.

galleries = make_galleries(outcomes, dataset, preprocessing, explain)
"""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import PIL.Image
import tensorflow as tf

from datasets.dataset_factory import Dataset
from engine.evaluation.dataset import example_ids
from engine.evaluation.outcomes import Outcomes
from engine.evaluation.report.content import Gallery, Picture, Preparation
from engine.evaluation.summaries import image_grid
from preprocessing.augmentation import make_augmentation
from preprocessing.base import Preprocessing
from preprocessing.images import decode

GALLERY_SIZE = 24
_LONGEST, _SHORTEST = 192, 64  # pixels of a picture's longer side
_NUM_PREPARED, _VERSIONS = 8, 4
_BATCH = 16  # images that are explained at once: a third of the time of one by one
_MAX_FILTERS, _FILTER_SIDE = 256, 44  # pixels

# Draws where a net looks: images of `host_eval`, [batch, height, width, channels], and classes, [batch], to uint8
# [batch, height, width, 3].
Explain = Callable[[tf.Tensor, np.ndarray], np.ndarray]


def make_galleries(
    outcomes: Outcomes, dataset: Dataset, preprocessing: Preprocessing, explain: Explain | None
) -> list[Gallery]:
    """Returns the galleries that are not empty: confident mistakes, unconfident successes, likely label errors.

    Args:
        outcomes: The outcome of each example.
        dataset: The examples.
        preprocessing: The net's preprocessing.
        explain: Draws where the net looked; None leaves these pictures out.
    """
    chosen = {title: (note, found) for title, note, found in _choose(outcomes) if len(found)}
    indices = np.array(sorted({int(index) for _, found in chosen.values() for index in found}))
    pictures = dict(zip(indices.tolist(), _pictures(outcomes, indices, dataset, preprocessing, explain), strict=True))
    return [Gallery(title, note, [pictures[int(i)] for i in found]) for title, (note, found) in chosen.items()]


def _choose(outcomes: Outcomes) -> list[tuple[str, str, np.ndarray]]:
    """Returns title, note and indices of each gallery."""
    known = (outcomes.ranks > 0) & np.isfinite(outcomes.confidences)
    wrong, right = known & ~outcomes.correct, known & outcomes.correct
    return [
        (
            'Most confident mistakes',
            'Wrong predictions, the most probable first.',
            _first(wrong, -outcomes.confidences),
        ),
        (
            'Least confident successes',
            'Right predictions, the least probable first.',
            _first(right, outcomes.confidences),
        ),
        (
            'Likely label errors',
            'The predicted class is more probable than it is on average for images with that label (confident '
            'learning, Northcutt et al. 2021); the largest gap to the given label first.',
            _first(wrong & _suspicious(outcomes, known), outcomes.probabilities - outcomes.confidences),
        ),
    ]


def _first(eligible: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Returns the indices of the eligible examples with the lowest keys."""
    found = np.flatnonzero(eligible)
    return found[np.argsort(key[found], kind='stable')][:GALLERY_SIZE]


def _suspicious(outcomes: Outcomes, known: np.ndarray) -> np.ndarray:
    """Returns whether the prediction is at least as probable as its class is on average for that label."""
    size = 1 + max(int(outcomes.predictions.max(initial=0)), int(outcomes.labels[known].max(initial=0)))
    labels = outcomes.labels[known]
    counts = np.bincount(labels, minlength=size)
    sums = np.bincount(labels, outcomes.probabilities[known], size)
    means = np.divide(sums, counts, out=np.full(size, np.inf), where=counts > 0)
    return outcomes.confidences >= means[outcomes.predictions]


def _pictures(
    outcomes: Outcomes, indices: np.ndarray, dataset: Dataset, preprocessing: Preprocessing, explain: Explain | None
) -> Iterator[Picture]:
    for first in range(0, len(indices), _BATCH):
        chosen = indices[first : first + _BATCH]
        numbers = outcomes.numbers[chosen]
        encoded = [dataset.examples.check(int(number))['image'] for number in numbers]
        explanations: Sequence[np.ndarray | None] = [None] * len(chosen)
        if explain is not None:
            seen = tf.stack([preprocessing.host_eval(image) for image in encoded])
            explanations = [_fitted(image) for image in explain(seen, outcomes.predictions[chosen])]
        ids = example_ids(dataset, numbers)
        for index, image, name, explanation in zip(chosen, encoded, ids, explanations, strict=True):
            yield Picture(
                id=name,
                image=_stored(image, preprocessing),
                explanation=explanation,
                label=int(outcomes.labels[index]),
                prediction=int(outcomes.predictions[index]),
                confidence=float(outcomes.confidences[index]),
                probability=float(outcomes.probabilities[index]),
            )


def _stored(encoded: tf.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    return _fitted(decode(encoded, preprocessing.source_channels).numpy())


def _fitted(image: np.ndarray) -> np.ndarray:
    """Returns uint8 [height, width, 3] of a size for a gallery, from uint8 [height, width, 1 or 3]."""
    picture = PIL.Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.uint8))
    longer = max(picture.size)
    if longer > _LONGEST:
        picture.thumbnail((_LONGEST, _LONGEST))
    elif longer < _SHORTEST:  # in whole pixels, as interpolation would blur what the net sees
        picture = picture.resize(
            [side * -(-_SHORTEST // longer) for side in picture.size], PIL.Image.Resampling.NEAREST
        )
    return np.asarray(picture)


def draw_filters(model: keras.Model, channel_order: str) -> np.ndarray | None:
    """Returns the filters of the first layer as a grid, uint8 [height, width, 3].

    Each filter is scaled by its largest weight; gray is 0. None unless the first layer is a convolution of more than
    one pixel over gray or colour images.

    Args:
        model: The net.
        channel_order: 'RGB' or 'BGR', of its input.
    """
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    if not kernels or len(kernels[0].shape) != 4:
        return None
    height, width, channels, _ = kernels[0].shape
    if channels not in (1, 3) or height * width < 2:
        return None
    filters = np.asarray(kernels[0], np.float32)[..., :_MAX_FILTERS].transpose(3, 0, 1, 2)
    if channel_order == 'BGR':
        filters = filters[..., ::-1]
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shown = 0.5 + 0.5 * filters / np.where(largest > 0, largest, 1)
    shown = shown.repeat(-(-_FILTER_SIDE // height), axis=1).repeat(-(-_FILTER_SIDE // width), axis=2)
    framed = np.pad(shown, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=1.0)
    grid = np.nan_to_num(image_grid(framed))
    return np.broadcast_to(np.round(255 * grid), (*grid.shape[:2], 3)).astype(np.uint8)


def make_preparations(dataset: Dataset, preprocessing: Preprocessing, seed: int) -> list[Preparation]:
    """Prepares images, spread over a split, as training does.

    Args:
        dataset: The training split.
        preprocessing: With the run's augmentation.
        seed: Of the random numbers.
    """
    numbers = np.unique(np.linspace(0, dataset.num_examples - 1, _NUM_PREPARED).astype(int))
    examples = [dataset.examples.check(int(number)) for number in numbers]
    hosted = [
        preprocessing.host_train(example['image'], tf.constant([seed, version], tf.int64), example['boxes'])
        for example in examples
        for version in range(_VERSIONS)
    ]
    augmentation = make_augmentation(preprocessing, dataset.num_examples)
    draws = augmentation.make_draws(tf.constant([seed, 0], tf.int64), len(hosted))
    prepared = np.asarray(augmentation.device_train(tf.stack(hosted), draws))
    low, high = preprocessing.value_range
    shown = np.round(255 * np.clip((prepared - low) / (high - low), 0, 1)).astype(np.uint8)
    if preprocessing.normalization.channel_order == 'BGR':
        shown = shown[..., ::-1]
    return [
        Preparation(
            id=example_ids(dataset, numbers[i : i + 1])[0],
            image=_stored(example['image'], preprocessing),
            prepared=[_fitted(image) for image in shown[i * _VERSIONS : (i + 1) * _VERSIONS]],
        )
        for i, example in enumerate(examples)
    ]
