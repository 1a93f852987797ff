"""The device stage of training: the preprocessing's own augmentation and optional stages around it.

    augmentation = make_augmentation(preprocessing, num_examples)
    draws = augmentation.make_draws(seed, batch_size)      # all random numbers of a step's batch
    images = augmentation.device_train(batch, draws)       # inside the compiled step
    targets = augmentation.targets(labels, draws)

The order is: shift, RandAugment (both on pixels); flip, colour, scale (the preprocessing's); erasing, mixing (both on
the net's input). Stages whose options are off are absent.
"""

import dataclasses
import math
from typing import Protocol

import tensorflow as tf

from preprocessing import batches
from preprocessing.base import Preprocessing
from preprocessing.mixing import Mixing, Targets, make_mixing
from preprocessing.rand_augment import RandAugment

_SHIFT, _ERASING = 16, 18  # random quantities, numbered after those of the preprocessings
_AREAS = (0.02, 1 / 3)  # smallest and largest erased share of the image
_LARGEST_RATIO = 1 / 0.3  # of the box's sides, either way


class Stage(Protocol):
    """One random variation of a batch, with its own random numbers for each image or pair."""

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws all random numbers of a whole batch, like `Preprocessing.make_draws`: quantity -> [batch_size, ...]."""

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the images, [batch, height, width, channels], varied; same dtype and range."""


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """Shifts each image along both sides and fills the gap by reflection: the padded crops of CIFAR-10 recipes.

    Equals padding by reflection, without repeating the edge, and a random crop of the image's size. Cifarnet's
    preprocessing has its own such crop, with a black border.

    Attributes:
        pixels: Largest shift in either direction, all shifts equally likely; less than the sides.
    """

    pixels: int

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws shift_down and shift_right, int32 [batch] in [-pixels, pixels]."""
        places = batches.uniforms(seed, _SHIFT, batch_size, 2)
        down, right = (tf.cast(place * (2 * self.pixels + 1), tf.int32) - self.pixels for place in places)
        return {'shift_down': down, 'shift_right': right}

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Shifts uint8 [batch, height, width, channels]."""
        height, width = images.shape[1:3]
        images = tf.gather(images, _sources(height, draws['shift_down']), axis=1, batch_dims=1)
        return tf.gather(images, _sources(width, draws['shift_right']), axis=2, batch_dims=1)


def _sources(length: int, shift: tf.Tensor) -> tf.Tensor:
    """Returns the source index of each row or column: int32 [batch, length]."""
    last = length - 1
    return last - tf.abs(last - tf.abs(tf.range(length) - shift[:, tf.newaxis]))


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al. 2017, arXiv:1708.04896): sets a box in some of the net's inputs to zero.

    Zero is the mean colour, or the middle of the range, in every preprocessing. Source of the ranges and of zero:
    timm's `RandomErasing` in its mode `const`.

    Attributes:
        probability: Probability that an image loses a box.
        image_size: Both sides in pixels.
    """

    probability: float
    image_size: int

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws erase_box, int32 [batch, 4] (top, bottom, left, right); the box is empty if nothing is erased.

        The area is uniform between 2 % and a third of the image's; the logarithm of the aspect ratio is uniform between
        log 0.3 and log (1 / 0.3), or in the narrower range in which a box of this area fits.
        """
        chance, area, ratio, y, x = batches.uniforms(seed, _ERASING, batch_size, 5)
        area = _AREAS[0] + area * (_AREAS[1] - _AREAS[0])
        widest = tf.minimum(math.log(_LARGEST_RATIO), -tf.math.log(area))
        ratio = tf.exp((2 * ratio - 1) * widest)
        area = tf.where(chance < self.probability, area, 0.0)
        height, width = (tf.round(tf.sqrt(area * shape) * self.image_size) for shape in (ratio, 1 / ratio))
        top, left = (tf.floor(place * (self.image_size - side + 1)) for place, side in ((y, height), (x, width)))
        return {'erase_box': tf.cast(tf.stack([top, top + height, left, left + width], axis=1), tf.int32)}

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Erases the boxes of float32 [batch, height, width, channels]."""
        return images * batches.outside_boxes(draws['erase_box'], *images.shape[1:3])


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The device stage of training.

    Attributes:
        preprocessing: Provides the middle of the device stage.
        on_pixels: Stages before it, on uint8.
        on_inputs: Stages after it, on float32.
        mixing: The last stage, which changes labels too, or None.
    """

    preprocessing: Preprocessing
    on_pixels: tuple[Stage, ...] = ()
    on_inputs: tuple[Stage, ...] = ()
    mixing: Mixing | None = None

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws the random numbers of a whole batch, quantity -> [batch_size, ...]; each replica takes its rows.

        The seed is int64 [2]: the run's seed, and the batch's position in the training stream.
        """
        draws = dict(self.preprocessing.make_draws(seed, batch_size))
        for stage in (*self.on_pixels, *self._stages_on_inputs):
            draws |= stage.make_draws(seed, batch_size)
        return draws

    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Varies and scales a training batch, like `Preprocessing.device_train`."""
        for stage in self.on_pixels:
            batch = stage(batch, draws)
        batch = self.preprocessing.device_train(batch, draws)
        for stage in self._stages_on_inputs:
            batch = stage(batch, draws)
        return batch

    def targets(self, labels: tf.Tensor, draws: dict[str, tf.Tensor]) -> Targets:
        """Returns the training targets for labels, int32 [batch]."""
        return self.mixing.targets(labels, draws) if self.mixing else Targets(labels)

    @property
    def _stages_on_inputs(self) -> tuple[Stage, ...]:
        return (*self.on_inputs, self.mixing) if self.mixing else self.on_inputs


def make_augmentation(preprocessing: Preprocessing, num_examples: int) -> Augmentation:
    """Returns the augmentation for `preprocessing.augment` and epochs of `num_examples`."""
    augment, image_size = preprocessing.augment, preprocessing.image_size
    on_pixels: list[Stage] = []
    if augment.random_shift:
        on_pixels.append(RandomShift(augment.random_shift))
    if augment.rand_augment_ops:
        on_pixels.append(RandAugment(augment.rand_augment_ops, augment.rand_augment_magnitude))
    erasing = augment.random_erasing_prob
    on_inputs = (RandomErasing(erasing, image_size),) if erasing else ()
    return Augmentation(preprocessing, tuple(on_pixels), on_inputs, make_mixing(augment, image_size, num_examples))
