"""Runs SavedModels from `export/`, Keras' `model.export`, and TensorFlow 1.

runtime = open_saved_model('/tmp/net')
runtime.run(images)

Loading a SavedModel runs a program, so its operators are checked first, see `saved_model_operators`.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from configs.foreign import ForeignOptions
from engine.checkpoints import METADATA
from engine.classifiers import description
from engine.classifiers.classifier import Runtime, in_batches
from engine.classifiers.saved_model_operators import refuse_unknown
from support.errors import InputError, first_line

DESCRIPTION = os.path.join('assets.extra', METADATA)
GRAPH = 'saved_model.pb'
IMAGES_SIGNATURE = 'images'  # in exports whose default signature takes encoded images

_KIND = 'SavedModel'
_IMAGE_TYPES = (tf.float32, tf.uint8)


def open_saved_model(path: str, foreign: ForeignOptions = ForeignOptions()) -> Runtime:
    """Opens a SavedModel.

    Args:
        path: Its folder.
        foreign: Selects the scores among several outputs, and may allow any operator.

    Raises:
        InputError: it is damaged, has operators that may do more than compute, or does not map one batch of images to
            class scores.
    """
    metadata = _read_description(path)
    if not foreign.allow_any_operator:
        refuse_unknown(path)
    _check_graph(path, metadata.get(description.CHECKSUM))
    try:
        with quiet('ERROR'):  # it logs how it loads a TensorFlow 1 model
            loaded = tf.saved_model.load(path)
        signatures = dict(loaded.signatures)
    except Exception as error:  # a damaged SavedModel may raise any exception
        raise InputError(f'{path}: not a SavedModel that TensorFlow can load: {first_line(error)}') from error
    default = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    function = signatures.get(IMAGES_SIGNATURE if metadata else default, signatures.get(default))
    if function is None:
        raise InputError(f'{path} has no signature {default}, but {", ".join(sorted(signatures)) or "none at all"}')
    name, images = _image_input(path, function.structured_input_signature[1])
    output, num_classes = _output(path, function.structured_outputs, foreign.output_name)

    def run(values: np.ndarray, loaded: Any = loaded) -> np.ndarray:  # `loaded` keeps the variables alive
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
    if not os.path.isfile(name):
        return {}
    try:
        with open(name, 'rb') as file:
            return description.parse(name, file.read(description.MAX_BYTES + 1))
    except OSError as error:
        raise InputError(f'{name}: {first_line(error)}') from error


def _check_graph(path: str, checksum: Any) -> None:
    """Raises InputError if an export's graph has changed; TensorFlow verifies the checksums of the variables."""
    graph = os.path.join(path, GRAPH)
    if checksum is not None and checksum != description.checksum(graph, os.path.getsize(graph)):
        raise description.damaged(graph)


def _image_input(path: str, inputs: dict[str, tf.TensorSpec]) -> tuple[str, tf.TensorSpec]:
    """Returns the name and the spec of the only input; raises InputError if it does not take images."""
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


def _output(path: str, outputs: dict[str, tf.TensorSpec], asked: str | None) -> tuple[str, int]:
    """Returns the name of the output with the scores, and the number of classes.

    It is the output asked for, else the only floating-point output, else the one called 'logits'.
    """
    scores = {name: spec for name, spec in outputs.items() if spec.dtype.is_floating}
    chosen = asked or 'logits'
    named = scores if len(scores) == 1 and not asked else {n: spec for n, spec in scores.items() if n == chosen}
    if len(named) != 1:
        given = f'--output_name={asked}: ' if asked else ''
        raise InputError(
            f'{given}{path} gives {", ".join(sorted(outputs)) or "nothing"}; one output of floats, or one called '
            'logits, is needed, or --output_name says which it is'
        )
    ((name, spec),) = named.items()
    sizes = spec.shape.as_list()[1:] if spec.shape.rank else []
    if not sizes or None in sizes or np.prod(sizes) != sizes[-1]:
        raise InputError(f'{path} gives {name} of {spec.shape}; scores are [batch, classes]')
    return name, sizes[-1]


@contextlib.contextmanager
def quiet(level: str) -> Iterator[None]:
    """Hides TensorFlow's log lines below a level, 'ERROR' or 'WARNING', while it loads or saves a SavedModel."""
    logger, verbosity = tf.get_logger(), logging.get_verbosity()
    before = logger.level
    logger.setLevel(level)
    logging.set_verbosity(level)
    try:
        yield
    finally:
        logger.setLevel(before)
        logging.set_verbosity(verbosity)
