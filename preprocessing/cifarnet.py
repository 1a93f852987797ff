"""Cifarnet's preprocessing (slim: preprocessing/cifarnet_preprocessing.py): images of mean 0, variance 1."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import batches, images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import Place

_PADDING = 4
_MAX_BRIGHTNESS_DELTA = 63
_CONTRAST_FACTORS = (0.2, 1.8)

# One number per random quantity, so that adding one does not change the others.
_CROP, _FLIP, _BRIGHTNESS, _CONTRAST = range(4)


@dataclasses.dataclass(frozen=True)
class Cifarnet(Preprocessing):
    """A random crop of the image with a black border for training, its centre for evaluation; no resizing."""

    flip_quantity: ClassVar[int | None] = _FLIP
    value_range: ClassVar[tuple[float, float]] = (-3.0, 3.0)

    @property
    def normalization(self) -> Normalization:
        """The normalization that standardises each image individually."""
        return dataclasses.replace(self._normalize_channels(0.0, 1.0), per_image=True)

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Pads by 4 on each side and crops at a random position; see the base class.

        Raises:
            tf.errors.InvalidArgumentError: Also if a side of the image is shorter than `image_size` - 8.
        """
        image = images.decode(image, self.source_channels)
        padded = tf.pad(image, [[_PADDING, _PADDING], [_PADDING, _PADDING], [0, 0]])
        crop = images.random_crop(padded, self.image_size, tf.random.fold_in(seed, _CROP, alg='philox'))
        return self._with_shape(crop)

    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        """Crops or pads to the centre, in [0, 255]; see the base class."""
        image = images.decode(image, self.source_channels)
        return tf.cast(images.crop_or_pad(image, self.image_size), tf.float32)

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Crops the image, resized by the scale and with a black border; see `images.crops_beyond`."""
        crops = images.crops_beyond(images.resize_by(pixels, scale), self.image_size, places, 'CONSTANT')
        return [self._with_shape(tf.cast(crop, tf.float32)) for crop in crops]

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws flip, brightness and contrast; see the base class."""
        draws, delta = super().make_draws(seed, batch_size), _MAX_BRIGHTNESS_DELTA
        draws['brightness'] = batches.uniform(seed, _BRIGHTNESS, batch_size, -delta, delta)
        draws['contrast'] = batches.uniform(seed, _CONTRAST, batch_size, *_CONTRAST_FACTORS)
        return draws

    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Flips, distorts brightness and contrast without clipping, and standardises; see the base class."""
        batch = batches.flip_left_right(batch, draws['flip'])
        batch = self._to_net_channels(tf.cast(batch, tf.float32))
        batch = batches.adjust_brightness(batch, draws['brightness'])
        batch = batches.adjust_contrast(batch, draws['contrast'])
        return tf.image.per_image_standardization(batch)
