"""Comparing what was written with what was meant, before it gets its name."""

from collections.abc import Mapping

import keras
import numpy as np

from engine import checkpoints
from engine.classifiers import load_classifier
from engine.classifiers.model_spec import ModelSpec
from export.images import verification_images
from export.source import Source
from nets.variables import slim_variables
from support.errors import InputError

# --quantize -> most that a probability may differ, and that all may on average, and least share of the images with the
# same first class, of those in which the checkpoint is sure: its first two probabilities differ by _SURE.
_BOUNDS = {
    'none': (1e-4, 1e-5, 1.0),
    'float16': (0.02, 0.002, 1.0),
    'dynamic': (0.3, 0.02, 0.9),
    'int8': (0.4, 0.03, 0.9),
    'qdq': (0.4, 0.03, 0.9),
}
_SURE = 0.1
_IMAGES = 4
_TOLERANCE = 1e-5  # of the largest logit; float32 sums in another order differ by less


def compare_tensors(path: str, expected: Mapping[str, np.ndarray]) -> str:
    """Reads a checkpoint back; returns a line that says what was equal.

    Args:
        path: The checkpoint.
        expected: All that it should hold, to the bit, by name.

    Raises:
        InputError: something differs.
    """
    checkpoint = checkpoints.Checkpoint(path)
    names = set(checkpoint.shapes)
    if names != set(expected):
        raise _failure(f'it holds other variables: {", ".join(sorted(names ^ set(expected)))}')
    for name, value in expected.items():
        found = checkpoint.read(name)
        if found.dtype != value.dtype or found.shape != value.shape or found.tobytes() != value.tobytes():
            raise _failure(f'{name} differs')
    numbers = sum(value.size for value in expected.values())
    return f'compared {len(expected)} tensors, {numbers} numbers: equal'


def compare_logits(source: Source, read_back: keras.Model) -> str:
    """Runs the net and the one that was read back on the same images; returns a line that says how they compare.

    Raises:
        InputError: they differ.
    """
    shape = (_IMAGES, *source.model.input_shape[1:])
    images = np.random.RandomState(0).uniform(-1, 1, shape).astype(np.float32)
    expected, found = (np.asarray(model(images, training=False)) for model in (source.model, read_back))
    difference = float(np.abs(found - expected).max())
    if not difference <= _TOLERANCE * max(float(np.abs(expected).max()), 1.0):
        raise _failure(f'its logits differ by {difference:.3g}')
    return f'compared {expected.size} logits of {_IMAGES} images: largest difference {difference:.3g}'


def compare_probabilities(source: Source, path: str) -> list[str]:
    """Runs what was written as evaluation does, beside the checkpoint; returns lines that say how they compare.

    Raises:
        InputError: it cannot be run, is described as another net, or differs by more than its quantization may.
    """
    classifier = load_classifier(path)
    if classifier.spec != source.spec or classifier.interface != source.interface:
        raise _failure('it is described as another net')
    images = verification_images(source)
    expected, found = (each.probabilities(images.values) for each in (source.classifier, classifier))
    if not np.isfinite(found).all():
        raise _failure('it gives values that are not finite')
    difference = np.abs(found - expected)
    agrees = found.argmax(axis=-1) == expected.argmax(axis=-1)
    second, first = np.sort(expected, axis=-1)[:, -2:].T
    sure = agrees[first - second > _SURE]
    most, average, share = _BOUNDS[source.options.quantize]
    line = (
        f'compared {len(found)} {images.description}: probabilities differ by at most {difference.max():.2g}, on '
        f'average {difference.mean():.2g}; the same top-1 in {agrees.sum()} of {len(agrees)}'
    )
    if difference.max() > most or difference.mean() > average or (sure.size and sure.mean() < share):
        raise InputError(
            f'{line}; at most {most:g}, {average:g}, and {share:.0%} of the images that the net is sure of, are '
            f'allowed with --quantize={source.options.quantize}: nothing was kept of it'
        )
    return [line]


def compare_spec(source: Source, path: str) -> str:
    """Checks that evaluation needs nothing but what was written; returns a line that says so.

    Raises:
        InputError: it would take it for another net.
    """
    if ModelSpec.of_checkpoint(checkpoints.Checkpoint(path)) != source.spec:
        raise _failure('it is described as another net')
    spec = source.spec
    return f'compared what it says of itself: {spec.model_name}, {spec.num_classes} classes, {spec.image_size} px'


def model_from(source: Source, path: str) -> keras.Model:
    """Makes the net anew, with the weights that were written."""
    model = source.spec.make_model(seed=1)
    weights = {name: variable.value for name, variable in slim_variables(model).items()}
    checkpoints.restore(checkpoints.Checkpoint(path), weights)
    return model


def _failure(what: str) -> InputError:
    return InputError(f'what was written does not read back as it was meant: {what}; nothing was kept of it')
