"""Lenet's preprocessing (slim: preprocessing/lenet_preprocessing.py), in [-1, 1), also for training."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import Place


@dataclasses.dataclass(frozen=True)
class Lenet(Preprocessing):
    """Crops or pads the image to the centre; nothing is random."""

    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    keeps_grayscale: ClassVar[bool] = True

    @property
    def normalization(self) -> Normalization:
        """The normalization from [0, 255] to [-1, 1)."""
        return self._normalize_channels(128.0, 128.0)

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Crops or pads to the centre; see the base class."""
        return images.crop_or_pad(images.decode(image, self.source_channels), self.image_size)

    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        """Crops or pads to the centre, in [0, 255]; see the base class."""
        image = images.decode(image, self.source_channels)
        return tf.cast(images.crop_or_pad(image, self.image_size), tf.float32)

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Crops the image, resized by the scale and with a black border; see `images.crops_beyond`."""
        crops = images.crops_beyond(images.resize_by(pixels, scale), self.image_size, places, 'CONSTANT')
        return [self._with_shape(tf.cast(crop, tf.float32)) for crop in crops]
