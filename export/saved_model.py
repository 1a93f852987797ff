"""Export to a SavedModel: a folder for TensorFlow Serving and `tf.saved_model.load`.

Besides TensorFlow's own files it has `assets.extra/slim.json`, its description, and `labels.txt`, the names of the
classes, one a line; TensorFlow reads neither.
"""

import json
import os

import numpy as np
import tensorflow as tf

from datasets.text_files import write_text
from engine.classifiers.classifier import in_batches
from engine.classifiers.description import CHECKSUM, checksum
from engine.classifiers.saved_model_runtime import DESCRIPTION, GRAPH, IMAGES_SIGNATURE
from engine.prediction import image_files
from export import serving, verification
from export.images import verification_images
from export.source import Source
from support.errors import InputError

MEMBERS = r'saved_model\.pb|fingerprint\.pb|variables|assets|assets\.extra'

_LABELS = 'labels.txt'
_ENCODED_IMAGES = 8
_TOLERANCE = 1e-4


def write(source: Source, path: str) -> None:
    """Writes a SavedModel with description and labels."""
    signatures = {serving.DEFAULT_SIGNATURE: serving.image_signature(source, serving.make_computation(source))}
    if source.options.encoded_input:
        signatures[IMAGES_SIGNATURE] = signatures[serving.DEFAULT_SIGNATURE]
        signatures[serving.DEFAULT_SIGNATURE] = serving.encoded_signature(source)
    serving.save(source, path, signatures)
    description = os.path.join(path, DESCRIPTION)
    os.mkdir(os.path.dirname(description))
    graph = os.path.join(path, GRAPH)
    described = {**source.description(), CHECKSUM: checksum(graph, os.path.getsize(graph))}
    write_text(description, json.dumps(described))
    if source.spec.label_names:
        labels = os.path.join(os.path.dirname(description), _LABELS)
        write_text(labels, '\n'.join(source.spec.label_names) + '\n')


def verify(source: Source, path: str) -> list[str]:
    """Compares it with the checkpoint on the same images; returns lines that list the differences."""
    lines = verification.compare_probabilities(source, path)
    return [*lines, _compare_encoded(source, path)] if source.options.encoded_input else lines


def _compare_encoded(source: Source, path: str) -> str:
    """Compares its results for encoded images with the checkpoint's; returns a line with the difference.

    Raises:
        InputError: They differ too much.
    """
    files = _encoded_images(source)
    loaded = tf.saved_model.load(path)
    function = loaded.signatures[serving.DEFAULT_SIGNATURE]

    def run(encoded: np.ndarray) -> np.ndarray:
        (scores,) = function(**{serving.ENCODED_INPUT: tf.constant(list(encoded))}).values()
        return scores.numpy()

    found = in_batches(run, source.options.batch_size or len(files), np.array(files, object))
    found = source.interface.to_probabilities(found)
    images = np.stack([source.preprocessing.host_eval(file) for file in files])
    difference = float(np.abs(found - source.classifier.probabilities(images)).max())
    if not difference <= _TOLERANCE * verification.sharpness(source):
        raise InputError(f'the export differs: probabilities of encoded images by {difference:.2g}; nothing was kept')
    return f'compared {len(files)} encoded images: probabilities differ by at most {difference:.2g}'


def _encoded_images(source: Source) -> list[bytes]:
    """Returns the named image files, or the verification images as PNG files."""
    asked = source.options.verification_images
    if asked is not None:
        names = image_files.find_images([asked])[:_ENCODED_IMAGES]
        return [tf.io.read_file(name).numpy() for name in names]
    pixels = verification_images(source).values[:_ENCODED_IMAGES] * (255 / source.preprocessing.host_range)
    return [tf.io.encode_png(image.round().astype(np.uint8)).numpy() for image in pixels]
