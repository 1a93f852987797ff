"""A checkpoint as a net with weights: which net it is, and the Keras model.

net = load_checkpoint('/tmp/tfmodel', asked={}, averages=False)
net.model, net.spec, net.step
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.training import NetOptions
from engine import checkpoints
from engine.classifiers.classifier import Classifier
from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from engine.optim.moving_averages import ExponentialMovingAverage
from nets.nets_factory import NETS
from nets.variables import slim_variables
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class CheckpointNet:
    """A net with the weights of a checkpoint.

    Attributes:
        prefix: Where they come from: a file, or the prefix of TensorFlow's files.
        spec: The net, and how its images are prepared.
        model: It: float32 images to float32 logits.
        step: After how many steps.
        averaged: Whether the weights are moving averages.
    """

    prefix: str
    spec: ModelSpec
    model: keras.Model
    step: int
    averaged: bool


def load_checkpoint(
    path: str,
    asked: Mapping[str, Any],
    averages: bool,
    mixed_precision: str = 'float32',
    *,
    scope: str | None = None,
    flag: str = 'checkpoint_path',
) -> CheckpointNet:
    """Reads a checkpoint.

    Args:
        path: A checkpoint, a `.keras` or `.weights.h5` file, or a folder, of which the latest one is read.
        asked: Fields of ModelSpec that flags say; None is not asked.
        averages: Take the moving averages as the weights.
        mixed_precision: Arithmetic of the layers.
        scope: What all names in the checkpoint begin with, see `checkpoints.open_checkpoint`.
        flag: What messages call the path.

    Raises:
        InputError: there is none, it is damaged, or of another net than the flags say.
    """
    prefix = checkpoints.find_checkpoint(path, flag)
    given = {name: value for name, value in asked.items() if value is not None}
    spec = _resolve_spec(prefix, given, averages, scope)
    model = spec.make_model(mixed_precision=mixed_precision)
    suffix = ExponentialMovingAverage.SUFFIX if averages else ''
    variables = slim_variables(model)
    checkpoints.restore(
        prefix, {name + suffix: variable.value for name, variable in variables.items()}, unused=variables, scope=scope
    )
    step = checkpoints.read_int(prefix, checkpoints.STEP_KEY, max(checkpoints.checkpoint_step(prefix), 0))
    return CheckpointNet(prefix, spec, model, step, averages)


def make_classifier(net: CheckpointNet) -> Classifier:
    """Returns the net as a classifier, compiled."""
    order = net.spec.make_preprocessing().normalization.channel_order
    # Of any batch: another trace for the last batch of a split would take longer than all of it.
    signature = tf.TensorSpec([None, *net.model.input_shape[1:]], tf.float32)
    classify = tf.function(lambda images: net.model(images, training=False), autograph=False)
    compiled = classify.get_concrete_function(signature)

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(tf.constant(images)), np.float32)

    return Classifier(net.prefix, 'checkpoint', net.spec, net.step, Interface(channel_order=order), run)


def with_labels_offset(spec: ModelSpec, asked: int | None) -> ModelSpec:
    """Returns a spec with the `--labels_offset` of a flag, which one that names no data set leaves open."""
    return spec if asked is None or spec.dataset_name else dataclasses.replace(spec, labels_offset=asked)


def refuse_contradictions(path: str, spec: ModelSpec, asked: Mapping[str, Any]) -> None:
    """Refuses flags that say another net than what was written says.

    Raises:
        InputError: the flags, and in brackets what is true.
    """
    differing = [
        f'--{name}={value} ({getattr(spec, name)})'
        for name, value in asked.items()
        if value != getattr(spec, name) and not (name == 'labels_offset' and not spec.dataset_name)
    ]
    if differing:
        raise InputError(
            f'{path}: flags contradict how the net was trained (model.json): {", ".join(differing)}; leave them out'
        )


def _resolve_spec(prefix: str, asked: Mapping[str, Any], averages: bool, scope: str | None) -> ModelSpec:
    reader = checkpoints.open_checkpoint(prefix, scope)
    trained = ModelSpec.of_checkpoint(prefix)
    if trained is None:
        return _spec_from_shapes(prefix, reader, asked, averages)
    refuse_contradictions(prefix, trained, asked)
    return with_labels_offset(trained, asked.get('labels_offset'))


def _spec_from_shapes(prefix: str, reader: checkpoints.Reader, asked: Mapping[str, Any], averages: bool) -> ModelSpec:
    """Returns the spec of a checkpoint that comes without one, as slim's do.

    Raises:
        InputError: it is not of this net.
    """
    model_name = asked.get('model_name', NetOptions().model_name)
    names = ModelSpec.variable_names(model_name)
    head = checkpoints.head_names(names)
    shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    if averages:
        shapes = {name.removesuffix(ExponentialMovingAverage.SUFFIX): shape for name, shape in shapes.items()}
    absent = [name for name in (names[0], *head) if not shapes.get(name)]
    if absent:
        raise _not_of_net(prefix, reader, model_name, absent, is_asked='model_name' in asked)
    channels = shapes[names[0]][-2]
    if asked.get('channels', channels) != channels:
        raise InputError(f'--channels={asked["channels"]}: {prefix} takes images of {channels} channels; leave it out')
    return ModelSpec.for_net(
        model_name,
        num_classes=shapes[head[0]][-1],
        channels=channels,
        preprocessing_name=asked.get('preprocessing_name'),
        image_size=asked.get('image_size'),
        depth_multiplier=asked.get('depth_multiplier', 1.0),
        labels_offset=asked.get('labels_offset', 0),
        use_grayscale=asked.get('use_grayscale', False),
        dataset_name=asked.get('dataset_name', ''),
        global_pool=asked.get('global_pool', False),
    )


def _not_of_net(
    prefix: str, reader: checkpoints.Reader, model_name: str, absent: Sequence[str], is_asked: bool
) -> InputError:
    """Returns the error for a checkpoint that lacks the first or the last layer of a net.

    Args:
        prefix: The checkpoint.
        reader: It, open.
        model_name: The net.
        absent: What it lacks.
        is_asked: Whether flags named the net; without, the advice is to name another.
    """
    wanted, found = ModelSpec.variable_shapes(model_name), reader.get_variable_to_shape_map()
    hint = checkpoints.explain(found, list(wanted))
    others = [] if hint else [name for name in NETS if found.keys() >= ModelSpec.variable_shapes(name).keys()]
    start = f'{prefix} has no {", ".join(absent)}, so it is not of {model_name}'
    if hint is None and not is_asked:
        folder = os.path.dirname(prefix) or '.'
        named = f'={" or ".join(others)}' if others else ''
        return InputError(
            f'{start}; there is no model.json in {folder} that would name its net: give --model_name{named}'
        )
    if others:
        hint = f'its names are those of {" or ".join(others)}'
    because = f': {hint}' if hint else ''
    return InputError(f'{start}{because}; what differs:\n{checkpoints.make_plan(reader, wanted).differences()}')
