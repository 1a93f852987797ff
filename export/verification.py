"""Compares an exported file with the checkpoint before the file gets its final name."""

import numpy as np

from engine.classifiers import load_classifier
from export.images import verification_images
from export.source import Source
from support.errors import InputError

# --quantize -> (largest difference of a probability, largest mean difference, least share of images with the same top
# class, among those where the checkpoint is sure: its top two probabilities differ by _SURE).
_BOUNDS = {
    'none': (1e-4, 1e-5, 1.0),
    'float16': (0.02, 0.002, 1.0),
    'dynamic': (0.3, 0.02, 0.9),
    'int8': (0.4, 0.03, 0.9),
    'qdq': (0.4, 0.03, 0.9),
}
_SURE = 0.1


def compare_probabilities(source: Source, path: str) -> list[str]:
    """Evaluates the written file and the checkpoint on the same images; returns lines that list the differences.

    Raises:
        InputError: It cannot be run, is described as another net, or differs by more than its quantization allows.
    """
    classifier = load_classifier(path)
    if classifier.spec != source.spec or classifier.interface != source.interface:
        raise failure('it is described as another net')
    images = verification_images(source)
    expected, found = (each.probabilities(images.values) for each in (source.classifier, classifier))
    if not np.isfinite(found).all():
        raise failure('it gives values that are not finite')
    difference = np.abs(found - expected)
    agrees = found.argmax(axis=-1) == expected.argmax(axis=-1)
    second, first = np.sort(expected, axis=-1)[:, -2:].T
    sure = agrees[first - second > _SURE]
    most, average, share = _BOUNDS[source.options.quantize]
    most, average = (bound * sharpness(source) for bound in (most, average))
    line = (
        f'compared {len(found)} {images.description}: probabilities differ by at most {difference.max():.2g}, on '
        f'average {difference.mean():.2g}; the same top-1 in {agrees.sum()} of {len(agrees)}'
    )
    if difference.max() > most or difference.mean() > average or (sure.size and sure.mean() < share):
        raise InputError(
            f'{line}; at most {most:g}, {average:g}, and {share:.0%} of the images that the net is sure of, are '
            f'allowed with --quantize={source.options.quantize}: nothing was kept'
        )
    return [line]


def sharpness(source: Source) -> float:
    """Returns the factor by which a temperature below 1 enlarges differences of probabilities."""
    return max(1 / source.interface.temperature, 1.0)


def failure(what: str) -> InputError:
    """Returns the error for a file that does not read back as written."""
    return InputError(f'the export does not read back as written: {what}; nothing was kept')
