"""Loads a checkpoint as a Keras model, with its net's description.

net = load_checkpoint(checkpoints.Checkpoint('/tmp/tfmodel/model.ckpt-1000'), NetOverrides(), averages=False)
net.model, net.spec, net.step
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from configs.foreign import NetOverrides
from configs.training import NetOptions
from engine import checkpoints
from engine.classifiers.classifier import Classifier
from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from engine.classifiers.temperature import stored_temperature
from engine.optim.moving_averages import ExponentialMovingAverage
from nets.nets_factory import NETS
from nets.variables import slim_variables
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class CheckpointNet:
    """A net with the weights of a checkpoint.

    Attributes:
        prefix: The checkpoint: a file, or the prefix of TensorFlow's files.
        spec: The net and its preprocessing.
        model: Maps float32 images to float32 logits.
        step: The training step at which the weights were written.
        averaged: Whether the weights are moving averages.
        temperature: Its probabilities are softmax(logits / temperature).
    """

    prefix: str
    spec: ModelSpec
    model: keras.Model
    step: int
    averaged: bool
    temperature: float = dataclasses.field(default=1.0, kw_only=True)


def load_checkpoint(
    checkpoint: checkpoints.Checkpoint,
    net: NetOverrides,
    averages: bool,
    mixed_precision: str = 'float32',
    temperature: float | None = None,
) -> CheckpointNet:
    """Builds the net of a checkpoint and restores its weights.

    Args:
        checkpoint: An open checkpoint.
        net: Overrides of the net from flags.
        averages: Whether to take the moving averages as the weights.
        mixed_precision: Arithmetic of the layers.
        temperature: The net's temperature; None: the one stored for these weights, otherwise 1.

    Raises:
        InputError: the checkpoint is damaged, or the flags contradict it.
    """
    spec = resolve_spec(checkpoint, net, averages)
    model = spec.make_model(mixed_precision=mixed_precision)
    restore_weights(checkpoint, model, averages)
    if temperature is None:
        temperature = stored_temperature(checkpoint.prefix, model)
    return CheckpointNet(checkpoint.prefix, spec, model, max(checkpoint.step, 0), averages, temperature=temperature)


def resolve_spec(
    checkpoint: checkpoints.Checkpoint, net: NetOverrides, averages: bool, force: bool | None = None
) -> ModelSpec:
    """Returns the spec of a checkpoint's net: its own description or model.json, else from flags and shapes.

    Args:
        checkpoint: An open checkpoint.
        net: Overrides of the net from flags.
        averages: Whether to take the moving averages as the weights.
        force: Whether flags may contradict model.json; None if the script has no --force.

    Raises:
        InputError: flags contradict model.json, or the checkpoint belongs to another net.
    """
    trained = ModelSpec.of_checkpoint(checkpoint)
    if trained is None:
        return _spec_from_shapes(checkpoint, net.given(), averages)
    if force:
        return dataclasses.replace(trained, **net.given())
    refuse_contradictions(checkpoint.prefix, trained, net, '' if force is None else ', or give --force')
    return with_labels_offset(trained, net.labels_offset)


def restore_weights(checkpoint: checkpoints.Checkpoint, model: keras.Model, averages: bool) -> None:
    """Assigns a net the weights of a checkpoint, or their moving averages; raises as `checkpoints.restore`."""
    suffix = ExponentialMovingAverage.SUFFIX if averages else ''
    variables = slim_variables(model)
    values = {name + suffix: variable.value for name, variable in variables.items()}
    checkpoints.restore(checkpoint, values, unused=variables)


def make_classifier(net: CheckpointNet) -> Classifier:
    """Returns the net as a compiled classifier."""
    order = net.spec.make_preprocessing().normalization.channel_order
    # Any batch size: tracing again for the last batch of a split would take longer than the whole split.
    signature = tf.TensorSpec([None, *net.model.input_shape[1:]], tf.float32)
    classify = tf.function(lambda images: net.model(images, training=False), autograph=False)
    compiled = classify.get_concrete_function(signature)

    def run(images: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(tf.constant(images)), np.float32)

    interface = Interface(channel_order=order, temperature=net.temperature)
    return Classifier(net.prefix, 'checkpoint', net.spec, net.step, interface, run, net.model)


def with_labels_offset(spec: ModelSpec, asked: int | None) -> ModelSpec:
    """Returns a spec with the flag's `--labels_offset`, which applies only to a spec without a data set."""
    return spec if asked is None or spec.dataset_name else dataclasses.replace(spec, labels_offset=asked)


def refuse_contradictions(path: str, spec: ModelSpec, net: NetOverrides, or_else: str = '') -> None:
    """Raises InputError if flags contradict the recorded spec of a net.

    Raises:
        InputError: names the flags, with the recorded values in brackets; `or_else` ends the advice.
    """
    differing = [
        f'--{name}={value} ({getattr(spec, name)})'
        for name, value in net.given().items()
        if value != getattr(spec, name) and not (name == 'labels_offset' and not spec.dataset_name)
    ]
    if differing:
        contradiction = f'flags contradict how the net was trained (model.json): {", ".join(differing)}'
        raise InputError(f'{path}: {contradiction}; leave them out{or_else}')


def _spec_from_shapes(checkpoint: checkpoints.Checkpoint, asked: Mapping[str, Any], averages: bool) -> ModelSpec:
    """Returns the spec of a checkpoint without a description, such as slim's, from flags and shapes.

    Raises:
        InputError: the checkpoint belongs to another net.
    """
    prefix, shapes = checkpoint.prefix, checkpoint.shapes
    model_name = asked.get('model_name', NetOptions().model_name)
    names = ModelSpec.variable_names(model_name)
    head = checkpoints.head_names(names)
    if averages:
        shapes = {name.removesuffix(ExponentialMovingAverage.SUFFIX): shape for name, shape in shapes.items()}
    absent = [name for name in (names[0], *head) if not shapes.get(name)]
    if absent:
        raise _not_of_net(checkpoint, model_name, absent, is_asked='model_name' in asked)
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
    checkpoint: checkpoints.Checkpoint, model_name: str, absent: Sequence[str], is_asked: bool
) -> InputError:
    """Returns the error for a checkpoint that lacks the first or the last layer of a net.

    Args:
        checkpoint: An open checkpoint.
        model_name: The net.
        absent: Names of the missing variables.
        is_asked: Whether flags named the net; otherwise the advice is to name one.
    """
    prefix, found = checkpoint.prefix, checkpoint.shapes
    wanted = ModelSpec.variable_shapes(model_name)
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
    return InputError(f'{start}{because}; what differs:\n{checkpoints.make_plan(checkpoint, wanted).differences()}')
