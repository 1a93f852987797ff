"""torchvision's preprocessing of ImageNet: the colours' mean 0 and standard deviation 1.

Source: pytorch/vision, references/classification/presets.py and torchvision/transforms; its images are Pillow's.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import Place

# Red, green, blue over ImageNet, of pixels in [0, 1].
_MEANS = (0.485, 0.456, 0.406)
_STDS = (0.229, 0.224, 0.225)
_SIDE, _CROP_SIDE = 256, 224  # of the resized shorter side, and of the crop
_AREAS = (0.08, 1.0)
_RATIOS = (3 / 4, 4 / 3)  # width / height
_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class Torchvision(Preprocessing):
    """Crops of 8 to 100 % of the area for training, the centre at 8/7 of the crop's side for evaluation."""

    makes_grayscale: ClassVar[bool] = False
    flip_quantity: ClassVar[int | None] = 0
    value_range: ClassVar[tuple[float, float]] = (
        min(-mean / std for mean, std in zip(_MEANS, _STDS, strict=True)),
        max((1 - mean) / std for mean, std in zip(_MEANS, _STDS, strict=True)),
    )

    @property
    def normalization(self) -> Normalization:
        """The normalization that subtracts the means and divides by the standard deviations."""
        means, stds = (tuple(255 * value for value in values) for values in (_MEANS, _STDS))
        return Normalization(means, stds)

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Crops a random window and resizes it, without keeping its aspect ratio; see the base class."""
        window = images.decode_window(image, lambda shape: sample_window(shape, seed))
        resized = images.resize_antialiased(window, (self.image_size, self.image_size))
        return self._with_shape(images.to_uint8(resized))

    @property
    def smallest_scale(self) -> float:
        """The scale at which the shorter side is that of a crop."""
        return _CROP_SIDE / _SIDE

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Resizes the shorter side and crops, integer values in [0, 255]; see the base class."""
        sides = tf.shape(pixels)[:2]
        resized = images.resize_antialiased(
            pixels, round(self.image_size * _SIDE / _CROP_SIDE * scale) * sides // tf.reduce_min(sides)
        )
        return [self._with_shape(tf.round(self._crop(resized, place))) for place in places]

    def _crop(self, resized: tf.Tensor, place: Place) -> tf.Tensor:
        # Rounds halves to even, like Python.
        start = tf.cast(tf.round((tf.shape(resized)[:2] - self.image_size) * place / 2), tf.int32)
        return images.crop(resized, tf.concat([start, [self.image_size, self.image_size]], axis=0))


def sample_window(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Samples a window of 8 to 100 % of the image's area with width / height in [3/4, 4/3] (RandomResizedCrop).

    The area and the logarithm of the ratio are uniform. If ten windows do not fit, returns the largest central window
    with an allowed ratio. The window is int32 [4] (y, x, height, width), the shape int32 [3] (height, width,
    channels), the seed int [2].
    """
    sides = tf.cast(shape[:2], tf.float32)
    areas, ratios, ys, xs = tf.unstack(tf.random.stateless_uniform([4, _ATTEMPTS], seed, alg='philox'))
    areas = tf.reduce_prod(sides) * (_AREAS[0] + areas * (_AREAS[1] - _AREAS[0]))
    low, high = (math.log(ratio) for ratio in _RATIOS)
    ratios = tf.exp(low + ratios * (high - low))
    sizes = tf.round(tf.sqrt(tf.stack([areas / ratios, areas * ratios], axis=1)))
    starts = tf.floor(tf.stack([ys, xs], axis=1) * (sides - sizes + 1))
    fits = tf.reduce_all((sizes > 0) & (sizes <= sides), axis=1)
    drawn = tf.concat([starts, sizes], axis=1)[tf.argmax(fits)]
    return tf.cast(tf.where(tf.reduce_any(fits), drawn, _largest_window(sides)), tf.int32)


def _largest_window(sides: tf.Tensor) -> tf.Tensor:
    """Returns the largest central window with an allowed aspect ratio: float32 [4], as `sides`."""
    height, width = tf.unstack(sides)
    fitting = tf.stack([tf.round(width / _RATIOS[0]), tf.round(height * _RATIOS[1])])
    size = tf.minimum(sides, fitting)
    return tf.concat([tf.floor((sides - size) / 2), size], axis=0)
