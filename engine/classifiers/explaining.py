"""Grad-CAM and saliency maps: the parts of an image that a net's prediction depends on.

    explain = make_explainer(model, 'grad_cam')                      # from the last convolution
    maps = explain(images, classes)                                  # float32 [batch, height, width] in [0, 1]
    picture = overlay(pixels, maps[0])                               # uint8 [height, width, 3]

Sources: 'Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization',
https://arxiv.org/abs/1610.02391; 'Deep Inside Convolutional Networks', https://arxiv.org/abs/1312.6034, section 3.
"""

from collections.abc import Callable

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from nets.layers import AdaptiveAveragePooling2D, Dropout, FullyConnectedConv2D
from support.errors import InputError

# Maps images, float32 [batch, height, width, channels] as the net takes them, and classes, int [batch], to maps,
# float32 [batch, height, width] in [0, 1].
Explainer = Callable[[np.ndarray, np.ndarray], np.ndarray]

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
_ALPHA = 0.5  # of the map in an overlay
_NOT_DEFAULT = (
    FullyConnectedConv2D,
    AdaptiveAveragePooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.ZeroPadding2D,
    Dropout,
)


def make_explainer(model: keras.Model, method: str, layer: str | None = None) -> Explainer:
    """Returns a compiled function of images and classes: the parts of each image that its class's logit depends on.

    Grad-CAM adds the channels of a feature map, weighted by their mean gradients, and sets negative values to 0; the
    result is enlarged bilinearly. Saliency is the largest absolute gradient over a pixel's channels. Each map is
    divided by its maximum; a map without evidence for the class stays zero.

    Args:
        model: Maps float32 images to logits [batch, classes], as those from `make_model` do.
        method: 'grad_cam' or 'saliency'.
        layer: For Grad-CAM, the feature map: one of `feature_maps`, with or without the net's scope; None is
            `default_feature_map`.

    Raises:
        InputError: the net has no such feature map.
        ValueError: the method is unknown.
    """
    if method == 'saliency':
        return _compiled(model, lambda images, classes: _saliency(model, images, classes))
    if method != 'grad_cam':
        raise ValueError(f'method is {method!r}, not grad_cam or saliency')
    found = feature_maps(model)
    name = default_feature_map(model) if layer is None else _full_name(layer, found)
    watched = keras.Model(model.inputs, [found[name], model.outputs[0]])
    return _compiled(model, lambda images, classes: _grad_cam(watched, images, classes))


def feature_maps(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Returns the feature maps after a net's first convolution, by name, in the net's order.

    Feature maps have more than one position. Names are those of slim's end points, or of layers if a model has none.
    """
    layers = _layers(model)
    first = next((place for place, layer in enumerate(layers) if isinstance(layer, _CONVOLUTIONS)), len(layers))
    usable = {id(layer.output) for layer in layers[first:]}
    named = getattr(model, 'end_points', None) or {layer.name: layer.output for layer in layers}
    return {name: tensor for name, tensor in named.items() if id(tensor) in usable and _has_positions(tensor)}


def default_feature_map(model: keras.Model) -> str:
    """Returns the name of Grad-CAM's default feature map: the last one, before pooling.

    Fully connected layers are left out: on larger images they have several positions, but too few to localise.

    Raises:
        InputError: the net has no convolution with more than one position.
    """
    left_out = {id(layer.output) for layer in _layers(model) if isinstance(layer, _NOT_DEFAULT)}
    names = [name for name, tensor in feature_maps(model).items() if id(tensor) not in left_out]
    if not names:
        raise InputError(
            f'--explain=grad_cam: {model.name} has no convolution with more than one position; use --explain=saliency'
        )
    return names[-1]


def _layers(model: keras.Model) -> list[keras.Layer]:
    """Returns the layers on which the logits depend, inputs first; other outputs have layers of their own."""
    return keras.Model(model.inputs, model.outputs[0]).layers


def _has_positions(tensor: keras.KerasTensor) -> bool:
    return len(tensor.shape) == 4 and tensor.shape[1:3] != (1, 1)


def _full_name(layer: str, found: dict[str, keras.KerasTensor]) -> str:
    """Returns the name of a feature map, given with or without the net's scope."""
    matching = [name for name in found if layer in (name, name.rpartition('/')[2])]
    if len(matching) != 1:
        short = ', '.join(name.rpartition('/')[2] for name in found)
        raise InputError(f'--explain_layer={layer}: must be one of {short or "none: this net has no convolution"}')
    return matching[0]


def _compiled(model: keras.Model, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Explainer:
    signature = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32), tf.TensorSpec([None], tf.int32)

    def scaled(images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        maps = function(images, classes)
        return tf.math.divide_no_nan(maps, tf.reduce_max(maps, axis=(1, 2), keepdims=True))

    compiled = tf.function(scaled, signature, autograph=False)
    return lambda images, classes: compiled(tf.constant(images, tf.float32), tf.constant(classes, tf.int32)).numpy()


def _grad_cam(watched: keras.Model, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(images)  # else nothing is recorded of a net without trainable weights
        features, logits = watched(images, training=False)
        chosen = tf.gather(logits, classes, batch_dims=1)
    gradients = tf.cast(tape.gradient(chosen, features), tf.float32)
    weights = tf.reduce_mean(gradients, axis=(1, 2), keepdims=True)
    maps = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1, keepdims=True))
    return tf.image.resize(maps, tf.shape(images)[1:3])[..., 0]


def _saliency(model: keras.Model, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(images)
        chosen = tf.gather(model(images, training=False), classes, batch_dims=1)
    return tf.reduce_max(tf.abs(tape.gradient(chosen, images)), axis=-1)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draws a map over an image in gray, so that all colour is the map's.

    Args:
        image: float [..., height, width, 3] or [..., height, width, 1] in [0, 1].
        heat: float [..., height, width] in [0, 1].

    Returns:
        uint8 [..., height, width, 3], RGB.
    """
    gray = np.clip(image, 0, 1).mean(axis=-1, keepdims=True)
    colors = matplotlib.colormaps['inferno'](heat)[..., :3]  # from black: what is dark and gray has no part
    return np.rint(255 * ((1 - _ALPHA) * gray + _ALPHA * colors)).astype(np.uint8)
