"""Whole images, resized to a square, in [-1, 1]: for small images that fill their frame, as in CIFAR-10 and MNIST."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import Place


@dataclasses.dataclass(frozen=True)
class Whole(Preprocessing):
    """The whole image, without keeping its aspect ratio; mirrored for training.

    It crops nothing, so that other augmentation (such as `--random_shift`) is the only further variation.
    """

    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    keeps_grayscale: ClassVar[bool] = True
    flip_quantity: ClassVar[int | None] = 0

    @property
    def normalization(self) -> Normalization:
        """The normalization from [0, 255] to [-1, 1]."""
        return self._normalize_channels(127.5, 127.5)

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Resizes; see the base class."""
        return images.to_uint8(self.host_eval(image))

    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes like Pillow's BILINEAR, to float32 in [0, 255]; see the base class."""
        image = images.decode(image, self.source_channels)
        return self._with_shape(images.resize_antialiased(image, (self.image_size, self.image_size)))

    @property
    def smallest_scale(self) -> float:
        """The scale at which the resized image is the crop."""
        return 1.0

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Crops the resized image, which reflection continues as in `--random_shift`; see `images.crops_beyond`."""
        side = round(self.image_size * scale)
        resized = images.resize_antialiased(pixels, (side, side))
        crops = images.crops_beyond(resized, self.image_size, places, 'REFLECT')
        return [self._with_shape(crop) for crop in crops]
