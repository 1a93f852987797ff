"""Caffe's preprocessing for its AlexNet and CaffeNet: BGR minus the mean colour.

Source: Caffe's examples/imagenet (create_imagenet.sh), which stores every photograph at 256x256 pixels, without keeping
its aspect ratio; and the data layer, which crops and mirrors. This mean is per colour; Caffe trained its nets with one
per pixel.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import Place

_MEANS = (103.939, 116.779, 123.68)  # blue, green, red over ImageNet
_SIDE, _CROP_SIDE = 256, 224  # of the stored image, and of the crop

# One number per random quantity, so that adding one does not change the others.
_CROP, _FLIP = range(2)


@dataclasses.dataclass(frozen=True)
class Caffe(Preprocessing):
    """A square crop of the image resized to 8/7 of the crop's side: random for training, central for evaluation."""

    makes_grayscale: ClassVar[bool] = False
    flip_quantity: ClassVar[int | None] = _FLIP
    value_range: ClassVar[tuple[float, float]] = (-max(_MEANS), 255 - min(_MEANS))

    @property
    def normalization(self) -> Normalization:
        """The normalization that subtracts the means, blue first."""
        return Normalization(_MEANS, (1.0, 1.0, 1.0), channel_order='BGR')

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Resizes both sides and crops at a random position; see the base class."""
        crop = images.random_crop(
            self._resize(images.decode(image)), self.image_size, tf.random.fold_in(seed, _CROP, alg='philox')
        )
        return self._with_shape(crop)

    @property
    def smallest_scale(self) -> float:
        """The scale at which the resized image is the crop."""
        return _CROP_SIDE / _SIDE

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Resizes both sides and crops, integer values in [0, 255]; see the base class."""
        resized = self._resize(pixels, scale)
        crops = [self._with_shape(images.crop_at(resized, self.image_size, place)) for place in places]
        return [tf.cast(crop, tf.float32) for crop in crops]

    def _resize(self, pixels: tf.Tensor, scale: float = 1.0) -> tf.Tensor:
        side = round(self.image_size * _SIDE / _CROP_SIDE * scale)
        return images.to_uint8(images.resize(pixels, (side, side), half_pixel_centers=True))
