"""Loads a classifier from any file: checkpoints of this project and of slim, `.keras`, SavedModel, `.tflite`, `.onnx`.

    classifier = load_classifier('/tmp/net.tflite')
    net = NetOverrides(preprocessing_name='caffe')
    classifier = load_classifier('alexnet.onnx', net, ForeignOptions(channel_order='BGR'))

The libraries for the last two are imported only when needed.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from configs.foreign import ForeignOptions, NetOverrides
from engine import checkpoints
from engine.checkpoints.other_formats import is_onnx
from engine.classifiers import description
from engine.classifiers.checkpoint import (
    load_checkpoint,
    make_classifier,
    refuse_contradictions,
    with_labels_offset,
)
from engine.classifiers.classifier import Classifier, Runtime
from engine.classifiers.interface import Interface
from engine.classifiers.label_names import read_label_names
from engine.classifiers.model_spec import ModelSpec
from nets import nets_factory
from nets.building import zero_weights
from preprocessing import preprocessing_factory
from support.errors import InputError, first_line

_MAX_SIDE = 2**13  # as for the flags
_FAMILIES = sorted({family.__name__.lower() for family in preprocessing_factory.PREPROCESSINGS.values()})


def load_classifier(
    path: str,
    net: NetOverrides = NetOverrides(),
    foreign: ForeignOptions = ForeignOptions(),
    *,
    averages: bool = False,
    mixed_precision: str = 'float32',
    temperature: float | None = None,
    path_flag: str = 'checkpoint_path',
) -> Classifier:
    """Loads a classifier from a checkpoint or an exported file.

    Args:
        path: A checkpoint, a folder of them, a `.keras`, `.weights.h5`, `.tflite` or `.onnx` file, or a SavedModel; `~`
            is the home folder.
        net: Overrides of the net from flags.
        foreign: Properties, from flags, that a foreign file does not record.
        averages: Whether to take a checkpoint's moving averages as the weights.
        mixed_precision: Arithmetic of the layers of a checkpoint's net.
        temperature: Its probabilities are softmax(logits / temperature); None: the file's, or the one stored for these
            weights, otherwise 1.
        path_flag: The flag that named the path, for messages.

    Raises:
        InputError: the path is missing or damaged, lacks needed information, or flags contradict it.
    """
    path = os.path.expanduser(path)
    open_runtime = find_runtime(path)
    if open_runtime is None:
        checkpoint = checkpoints.Checkpoint(checkpoints.find_checkpoint(path, path_flag), foreign.checkpoint_scope)
        with zero_weights():
            loaded = load_checkpoint(checkpoint, net, averages, mixed_precision, temperature)
        classifier = make_classifier(loaded)
    else:
        if averages:
            raise InputError(f'--moving_average_decay: {path} has only one set of weights; leave it out')
        if mixed_precision != 'float32':
            raise InputError(f'--mixed_precision={mixed_precision}: {path} computes as it was exported; leave it out')
        classifier = _from_runtime(path.rstrip('/'), open_runtime(path, foreign), net, foreign)
        if temperature is not None:
            classifier = _with_temperature(classifier, temperature)
    if foreign.labels_path is None:
        return classifier
    spec = classifier.spec
    names = read_label_names(foreign.labels_path, spec.num_classes, spec.labels_offset)
    return dataclasses.replace(classifier, spec=dataclasses.replace(spec, label_names=names))


def find_runtime(path: str) -> Callable[[str, ForeignOptions], Runtime] | None:
    """Returns the opener for an exported model, or None for a checkpoint or a missing path.

    Raises:
        InputError: the file cannot be read.
    """
    if os.path.isfile(os.path.join(path, 'saved_model.pb')):
        from engine.classifiers import saved_model_runtime

        return saved_model_runtime.open_saved_model
    if not os.path.isfile(path):
        return None
    try:
        with open(path, 'rb') as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f'{path}: {first_line(error)}') from error
    name = path.lower()
    if start[4:] == b'TFL3' or name.endswith('.tflite'):
        from engine.classifiers import tflite_runtime

        return tflite_runtime.open_tflite
    if name.endswith('.onnx') or is_onnx(start):
        from engine.classifiers import onnx_runtime

        return onnx_runtime.open_onnx
    return None


def _from_runtime(path: str, runtime: Runtime, net: NetOverrides, foreign: ForeignOptions) -> Classifier:
    if 'model' in runtime.metadata:
        described = description.read(path, runtime.metadata)
        spec, interface, step = described.spec, described.interface, described.step
        refuse_contradictions(path, spec, net)
        spec = with_labels_offset(spec, net.labels_offset)
        _refuse_other_interface(path, interface, foreign)
    else:
        (spec, interface), step = _spec_of_foreign(path, runtime, net, foreign), -1
    classifier = Classifier(path, runtime.kind, spec, step, interface, runtime.run)
    _check_shape(classifier, runtime)
    return classifier if 'model' in runtime.metadata else _with_likely_output(classifier)


def _refuse_other_interface(path: str, interface: Interface, foreign: ForeignOptions) -> None:
    if foreign.output_name is not None:
        raise InputError(
            f'{path}: --output_name={foreign.output_name}: exports of this project have only one; leave it out'
        )
    says = {
        'layout': interface.layout,
        'channel_order': interface.channel_order,
        'includes_preprocessing': interface.include_preprocessing,
    }
    for name, value in says.items():
        if getattr(foreign, name) not in (None, value):
            raise InputError(f'{path}: --{name}={getattr(foreign, name)}, but the file says {value}; leave it out')


def _spec_of_foreign(
    path: str, runtime: Runtime, asked: NetOverrides, foreign: ForeignOptions
) -> tuple[ModelSpec, Interface]:
    """Derives the description of a foreign file from its shapes and from flags.

    Raises:
        InputError: they are insufficient or contradict each other.
    """
    net = nets_factory.get_net(asked.model_name) if asked.model_name else None
    preprocessing_name = asked.preprocessing_name or (net.preprocessing if net else None)
    if preprocessing_name is None:
        raise InputError(
            f'{path} does not say how its images are prepared: give --preprocessing_name, for instance '
            f'{", ".join(_FAMILIES)}, or --model_name, whose own is then taken'
        )
    if len(runtime.input_shape) != 4:
        raise InputError(f'{path} takes {list(runtime.input_shape)}; images have four axes, [batch, height, width, 3]')
    layout = foreign.layout or _likely_layout(runtime.input_shape)
    _, *rest = runtime.input_shape
    channels, height, width = rest if layout == 'NCHW' else (rest[2], *rest[:2])
    if height != width:
        raise InputError(f'{path} takes images of {height}x{width} pixels; only square images are supported')
    if height and asked.image_size not in (None, height):
        raise InputError(f'--image_size={asked.image_size}, but {path} takes images of {height} pixels')
    size = height or asked.image_size or (net.image_size if net else None)
    if size is None:
        raise InputError(f'{path} takes images of any size: give --image_size')
    if size > _MAX_SIDE:
        raise InputError(f'{path} takes images of {size} pixels; at most {_MAX_SIDE} are supported')
    if channels not in (None, 1, 3):
        raise InputError(
            f'{path} takes images of {channels} channels with --layout={layout}; only 3 and 1 are supported'
        )
    spec = ModelSpec(
        model_name=asked.model_name or '',
        num_classes=runtime.num_classes,
        image_size=size,
        channels=channels or asked.channels or 3,
        preprocessing_name=preprocessing_name,
        depth_multiplier=1.0,
        labels_offset=asked.labels_offset or 0,
        use_grayscale=bool(asked.use_grayscale),
        dataset_name='',
        dataset_dir='',
        label_names=(),
    )
    order = foreign.channel_order or spec.make_preprocessing().normalization.channel_order
    return spec, Interface(layout, order, bool(foreign.includes_preprocessing), 'logits')


def _with_temperature(classifier: Classifier, temperature: float) -> Classifier:
    if classifier.interface.output == 'probabilities':
        raise InputError(
            f'--temperature={temperature:g}: {classifier.path} gives probabilities, not logits; leave it out, or '
            'export the checkpoint again with it'
        )
    interface = dataclasses.replace(classifier.interface, temperature=temperature)
    return dataclasses.replace(classifier, interface=interface)


def _likely_layout(shape: tuple[int | None, ...]) -> str:
    return 'NCHW' if shape[1] in (1, 3) and shape[3] not in (1, 3) else 'NHWC'


def _with_likely_output(classifier: Classifier) -> Classifier:
    """Sets the output of a foreign file to probabilities if its scores on noise look like them, else to logits."""
    preprocessing = classifier.preprocessing
    shape = (2, preprocessing.image_size, preprocessing.image_size, preprocessing.source_channels)
    noise = np.random.RandomState(0).uniform(0, preprocessing.host_range, shape).astype(np.float32)
    scores = classifier.scores(noise)
    # Probabilities of integer files add up only nearly to 1.
    are_probabilities = (scores >= 0).all() and (abs(scores.sum(axis=-1) - 1) < 0.05).all()
    output = 'probabilities' if are_probabilities else 'logits'
    return dataclasses.replace(classifier, interface=dataclasses.replace(classifier.interface, output=output))


def _check_shape(classifier: Classifier, runtime: Runtime) -> None:
    needed = classifier.interface.input_shape(classifier.preprocessing)
    taken = runtime.input_shape[1:]
    if len(taken) != 3 or any(there not in (None, here) for here, there in zip(needed, taken, strict=True)):
        raise InputError(
            f'{classifier.path} takes images of shape {list(taken)}, but {list(needed)} are what '
            f'{classifier.spec.preprocessing_name} preprocessing gives in {classifier.interface.layout}'
        )
    if runtime.num_classes != classifier.spec.num_classes:
        raise InputError(
            f'{classifier.path} gives {runtime.num_classes} values, but says that it has {classifier.spec.num_classes} '
            'classes: it is damaged or was edited by hand'
        )


def size_in_bytes(path: str) -> int:
    """Returns a classifier's size on disk in bytes: its file, its folder, or its checkpoint's files."""
    if os.path.isdir(path):
        return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
    if os.path.isfile(path):  # its name may contain special characters of globs
        return os.path.getsize(path)
    return sum(os.path.getsize(name) for name in tf.io.gfile.glob([path, f'{path}.index', f'{path}.data-*']))
