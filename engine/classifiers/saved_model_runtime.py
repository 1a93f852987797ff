"""SavedModels: those of `export/`, those of Keras' `model.export`, and those of TensorFlow 1.

runtime = open_saved_model('/tmp/net')
runtime.run(images)

To load one is to run a program: its graph can read and write files. Open only what you trust.
"""

import os
from typing import Any

import numpy as np
import tensorflow as tf

from configs.errors import InputError, first_line
from engine.checkpoints import METADATA
from engine.classifiers import description
from engine.classifiers.classifier import Runtime, in_batches

DESCRIPTION = os.path.join('assets.extra', METADATA)
IMAGES_SIGNATURE = 'images'  # of exports whose default signature takes encoded images

_KIND = 'SavedModel'
_IMAGE_TYPES = (tf.float32, tf.uint8)


def open_saved_model(path: str) -> Runtime:
    """Opens a SavedModel.

    Args:
        path: Its folder.

    Raises:
        InputError: it is damaged, or is no function of one batch of images to the scores of classes.
    """
    metadata = _read_description(path)
    try:
        loaded = tf.saved_model.load(path)
        signatures = dict(loaded.signatures)
    except Exception as error:  # a damaged one may raise anything
        raise InputError(f'{path}: not a SavedModel that TensorFlow can load: {first_line(error)}') from error
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    function = signatures.get(IMAGES_SIGNATURE if metadata else default, signatures.get(default))
    if function is None:
        raise InputError(f'{path} has no signature {default}, but {", ".join(sorted(signatures)) or "none at all"}')
    name, images = _image_input(path, function.structured_input_signature[1])
    output, num_classes = _output(path, function.structured_outputs)

    def run(values: np.ndarray, loaded: Any = loaded) -> np.ndarray:  # which owns the variables
        if images.dtype == tf.uint8:
            values = values.round().clip(0, 255).astype(np.uint8)
        try:
            scores = function(**{name: tf.constant(values)})[output]
            return np.asarray(scores, np.float32).reshape(len(values), num_classes)
        except (tf.errors.OpError, ValueError) as error:
            raise InputError(f'{path} cannot be run: {first_line(error)}') from error

    batch = images.shape[0]
    run_any = run if batch is None else lambda values: in_batches(run, batch, values)
    return Runtime(_KIND, tuple(images.shape), num_classes, metadata, run_any)


def _read_description(path: str) -> dict[str, Any]:
    name = os.path.join(path, DESCRIPTION)
    if not os.path.exists(name):
        return {}
    try:
        with open(name, 'rb') as file:
            return description.parse(name, file.read(description.MAX_BYTES + 1))
    except OSError as error:
        raise InputError(f'{name}: {first_line(error)}') from error


def _image_input(path: str, inputs: dict[str, tf.TensorSpec]) -> tuple[str, tf.TensorSpec]:
    """Returns the name and the kind of the one input."""
    if len(inputs) != 1:
        raise InputError(f'{path} takes {len(inputs)} inputs, {", ".join(sorted(inputs))}; one of images is needed')
    ((name, spec),) = inputs.items()
    if spec.dtype not in _IMAGE_TYPES:
        advice = '; export it without --encoded_input, or feed it itself' if spec.dtype == tf.string else ''
        raise InputError(f'{path} takes {spec.dtype.name} {name}; images are float32 or uint8{advice}')
    if spec.shape.rank != 4:
        shape = 'any shape' if spec.shape.rank is None else spec.shape.as_list()
        raise InputError(f'{path} takes {name} of {shape}; images have four axes, [batch, height, width, channels]')
    return name, spec


def _output(path: str, outputs: dict[str, tf.TensorSpec]) -> tuple[str, int]:
    """Returns the name of the scores, the only output of them or that of logits, and the number of classes."""
    scores = {name: spec for name, spec in outputs.items() if spec.dtype.is_floating}
    named = scores if len(scores) == 1 else {name: spec for name, spec in scores.items() if name == 'logits'}
    if len(named) != 1:
        raise InputError(
            f'{path} gives {", ".join(sorted(outputs)) or "nothing"}; one output of floats, or one called logits, is '
            'needed'
        )
    ((name, spec),) = named.items()
    sizes = spec.shape.as_list()[1:] if spec.shape.rank else []
    if not sizes or None in sizes or np.prod(sizes) != sizes[-1]:
        raise InputError(f'{path} gives {name} of {spec.shape}; scores are [batch, classes]')
    return name, sizes[-1]
