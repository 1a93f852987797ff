"""Inception's preprocessing (slim: preprocessing/inception_preprocessing.py), in [-1, 1].

Training distorts like slim's scripts, which always use `fast_mode`: crop, flip, brightness, saturation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import batches, images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import CENTRE, Place

_CENTRAL_FRACTION = 0.875  # of each side
_MAX_BRIGHTNESS_DELTA = 32 / 255
_MAX_HUE_DELTA = 0.2
_FACTORS = (0.5, 1.5)

# One number per random quantity of the device stage, so that adding one does not change the others.
_FLIP, _BRIGHTNESS, _SATURATION, _HUE, _CONTRAST, _ORDER = range(6)

_WHOLE_IMAGE = ((0.0, 0.0, 1.0, 1.0),)

# slim's orders; each image is assigned one of them.
_ORDERS = (
    ('brightness', 'saturation', 'hue', 'contrast'),
    ('saturation', 'brightness', 'contrast', 'hue'),
    ('contrast', 'hue', 'brightness', 'saturation'),
    ('hue', 'saturation', 'contrast', 'brightness'),
)

_ADJUST: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    'brightness': batches.adjust_brightness,
    'saturation': batches.adjust_saturation,
    'hue': batches.adjust_hue,
    'contrast': batches.adjust_contrast,
}


@dataclasses.dataclass(frozen=True)
class Inception(Preprocessing):
    """Crops of random scale and aspect ratio for training, the central 87.5 % of each side for evaluation.

    `augment.color_distortion` is 'fast': brightness, then saturation; or 'full', which adds hue and contrast, each
    image in one of slim's four orders. Slim's random choice of four resize methods in that mode is left out.
    """

    flip_quantity: ClassVar[int | None] = _FLIP
    value_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    host_range: ClassVar[float] = 1.0

    @property
    def normalization(self) -> Normalization:
        """The normalization from [0, 255] to [-1, 1]."""
        return self._normalize_channels(127.5, 127.5)

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Crops a random window and resizes it, without keeping its aspect ratio; see the base class."""
        boxes = boxes if self.augment.use_bounding_boxes else tf.constant(_WHOLE_IMAGE)
        window = images.decode_window(
            image,
            lambda shape: sample_window(shape, boxes, seed, self.augment.min_crop_area),
            self.source_channels,
        )
        return images.to_uint8(self._resize(window))

    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        """Crops and resizes to float32 in [0, 1]; see the base class."""
        window = images.decode_window(
            image, lambda shape: images.window_at(shape, _CENTRAL_FRACTION, CENTRE), self.source_channels
        )
        return self._resize(_to_unit_range(window))

    @property
    def smallest_scale(self) -> float:
        """The scale at which the window is the whole image."""
        return _CENTRAL_FRACTION

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Crops windows of 87.5 % / scale of each side and resizes them; see the base class."""
        windows = [images.window_at(tf.shape(pixels), _CENTRAL_FRACTION / scale, place) for place in places]
        return [self._resize(_to_unit_range(images.crop(pixels, window))) for window in windows]

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws flip, brightness, saturation, and for 'full' hue, contrast, order; see the base class."""
        draws, brightness, hue = super().make_draws(seed, batch_size), _MAX_BRIGHTNESS_DELTA, _MAX_HUE_DELTA
        draws['brightness'] = batches.uniform(seed, _BRIGHTNESS, batch_size, -brightness, brightness)
        draws['saturation'] = batches.uniform(seed, _SATURATION, batch_size, *_FACTORS)
        if self.augment.color_distortion == 'full':
            draws['hue'] = batches.uniform(seed, _HUE, batch_size, -hue, hue)
            draws['contrast'] = batches.uniform(seed, _CONTRAST, batch_size, *_FACTORS)
            draws['order'] = tf.cast(batches.uniform(seed, _ORDER, batch_size, 0, len(_ORDERS)), tf.int32)
        return draws

    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Flips, distorts colours without clipping in between, clips once and scales; see the base class."""
        batch = _to_unit_range(batches.flip_left_right(batch, draws['flip']))
        if self.augment.color_distortion == 'full':
            batch = _distort_in_drawn_order(batch, draws)
        elif self.augment.color_distortion == 'fast':
            batch = _distort(batch, draws, ('brightness', 'saturation'))
        return self.device_eval(tf.clip_by_value(batch, 0, 1))

    def _resize(self, image: tf.Tensor) -> tf.Tensor:
        return self._with_shape(images.resize(image, (self.image_size, self.image_size)))


def sample_window(shape: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor, min_area: float = 0.05) -> tf.Tensor:
    """Samples a window of `min_area` to 100 % of the image's area that covers at least a tenth of a box.

    With the whole image as the box, the smallest area is therefore 10 %. After 100 rejected samples the window is the
    whole image.

    Args:
        shape: int32 [3] (height, width, channels).
        boxes: float32 [n, 4] (ymin, xmin, ymax, xmax) in [0, 1]; n = 0 means the whole image.
        seed: int [2].
        min_area: Smallest share of the image's area; slim's is 0.05.

    Returns:
        int32 [4] (y, x, height, width).
    """
    begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        boxes[tf.newaxis],
        seed,
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(min_area, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], size[:2]], axis=0)


def _to_unit_range(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(pixels, tf.float32) * (1 / 255)


def _distort(batch: tf.Tensor, draws: dict[str, tf.Tensor], order: tuple[str, ...]) -> tf.Tensor:
    for quantity in order:
        batch = _ADJUST[quantity](batch, draws[quantity])
    return batch


def _distort_in_drawn_order(batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
    result = batch
    for index, order in enumerate(_ORDERS):
        chosen = batches.per_image(draws['order'] == index)
        result = tf.where(chosen, _distort(batch, draws, order), result)
    return result
