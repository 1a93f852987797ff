"""The computation in SavedModels and TFLite files: a net with its input and output conversions.

compute = make_computation(source)
save(source, '/tmp/net', {DEFAULT_SIGNATURE: image_signature(source, compute)})
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import tensorflow as tf

from engine.classifiers.saved_model_runtime import IMAGES_SIGNATURE, quiet
from export.source import Source

INPUT, ENCODED_INPUT = IMAGES_SIGNATURE, 'image_bytes'
DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY

Computation: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
Signature: TypeAlias = tf.types.experimental.ConcreteFunction


def make_computation(source: Source) -> Computation:
    """Returns the exported function, according to `source.interface`.

    It maps float32 [batch, height, width, channels], or [batch, channels, height, width], to float32 [batch, classes]:
    it reorders axes and channels for the net, scales pixels if `include_preprocessing`, runs the net in inference mode,
    and for probabilities divides by the temperature and applies the softmax.
    """
    interface, preprocessing = source.interface, source.preprocessing

    def compute(images: tf.Tensor) -> tf.Tensor:
        images = to_channels_last(source, images)
        if interface.include_preprocessing:
            images = _reverse(images) if interface.channel_order == 'BGR' else images
            images = preprocessing.device_eval(images * (preprocessing.host_range / 255))
        elif interface.reverses_channels(preprocessing):
            images = _reverse(images)
        return to_output(source, source.model(images, training=False))

    return compute


def make_encoded_computation(source: Source) -> Computation:
    """Returns the function from encoded images, string [batch], to results, with all preprocessing included."""
    preprocessing = source.preprocessing
    side, channels = preprocessing.image_size, preprocessing.source_channels
    decoded = tf.TensorSpec([side, side, channels], tf.float32)

    def compute(image_bytes: tf.Tensor) -> tf.Tensor:
        images = tf.map_fn(preprocessing.host_eval, image_bytes, fn_output_signature=decoded)
        return to_output(source, source.model(preprocessing.device_eval(images), training=False))

    return compute


def to_channels_last(source: Source, images: tf.Tensor) -> tf.Tensor:
    """Returns the file's images as [batch, height, width, channels]."""
    return tf.transpose(images, [0, 2, 3, 1]) if source.interface.layout == 'NCHW' else images


def to_output(source: Source, logits: tf.Tensor) -> tf.Tensor:
    """Returns the exported function's output: probabilities or logits."""
    if source.interface.output == 'logits':
        return logits
    temperature = source.interface.temperature
    return tf.nn.softmax(logits if temperature == 1 else logits * (1 / temperature))


def image_signature(source: Source, compute: Computation) -> Signature:
    """Returns a signature from `images`, of `--batch_size`, to `logits` or `probabilities`."""
    shape = [source.options.batch_size, *source.interface.input_shape(source.preprocessing)]
    return _signature(source, compute, tf.TensorSpec(shape, tf.float32, name=INPUT))


def encoded_signature(source: Source) -> Signature:
    """Returns a signature from `image_bytes`, string [batch], to the same outputs."""
    spec = tf.TensorSpec([source.options.batch_size], tf.string, name=ENCODED_INPUT)
    return _signature(source, make_encoded_computation(source), spec)


def save(source: Source, folder: str, signatures: Mapping[str, Signature]) -> None:
    """Writes a SavedModel that loads without Keras and this project, and holds no training state.

    Args:
        source: The source of the export.
        folder: The folder to write; it must not exist.
        signatures: Signatures by name.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in source.model.variables]
    with quiet('WARNING'):  # it logs a line per file
        tf.saved_model.save(module, folder, signatures=dict(signatures))


def _signature(source: Source, compute: Computation, spec: tf.TensorSpec) -> Signature:
    function = tf.function(lambda values: {source.interface.output: compute(values)}, autograph=False)
    return function.get_concrete_function(spec)


def _reverse(images: tf.Tensor) -> tf.Tensor:
    return tf.reverse(images, [-1]) if images.shape[-1] > 1 else images
