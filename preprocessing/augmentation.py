"""How training images are varied on the device: what their preprocessing does, and around it what any one may do.

    augmentation = make_augmentation(preprocessing, num_examples)
    draws = augmentation.make_draws(seed, batch_size)      # all random numbers of a step's batch
    images = augmentation.device_train(batch, draws)       # inside the compiled step
    targets = augmentation.targets(labels, draws)

In this order: shift, RandAugment (both of pixels); flip, colour, scale (the preprocessing's); erasing, mixing (both of
the net's input). Without their options there are none of them, and everything is the preprocessing's alone.
"""

import dataclasses
import math
from typing import Protocol

import tensorflow as tf

from preprocessing import batches
from preprocessing.base import Preprocessing
from preprocessing.mixing import Mixing, Targets, make_mixing
from preprocessing.rand_augment import RandAugment

_SHIFT, _ERASING = 16, 18  # the random quantities: beyond those of the families
_AREAS = (0.02, 1 / 3)  # of what is erased of the image's
_LARGEST_RATIO = 1 / 0.3  # of its sides, either way


class Stage(Protocol):
    """One way to vary a batch of images, each image, or pair, with random numbers of its own."""

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws all random numbers of a whole batch, as `Preprocessing.make_draws`: quantity -> [batch_size, ...]."""

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the images, [batch, height, width, channels], varied; of the same type and range."""


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """Moves each image along both sides, and fills what it leaves by reflection: CIFAR-10 recipes' padded crops.

    As padding by reflection, without repeating the edge, and a random crop of the image's size. Cifarnet's
    preprocessing has such a crop of its own, in a black frame.

    Attributes:
        pixels: at most by so many, either way, each number equally often; less than the sides.
    """

    pixels: int

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws shift_down and shift_right, int32 [batch] in [-pixels, pixels]."""
        places = batches.uniforms(seed, _SHIFT, batch_size, 2)
        down, right = (tf.cast(place * (2 * self.pixels + 1), tf.int32) - self.pixels for place in places)
        return {'shift_down': down, 'shift_right': right}

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Moves uint8 [batch, height, width, channels]."""
        height, width = images.shape[1:3]
        images = tf.gather(images, _sources(height, draws['shift_down']), axis=1, batch_dims=1)
        return tf.gather(images, _sources(width, draws['shift_right']), axis=2, batch_dims=1)


def _sources(length: int, shift: tf.Tensor) -> tf.Tensor:
    """Returns where each row or column comes from: int32 [batch, length]."""
    last = length - 1
    return last - tf.abs(last - tf.abs(tf.range(length) - shift[:, tf.newaxis]))


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Random erasing (Zhong et al. 2017, arXiv:1708.04896): a box of some of the net's inputs becomes zero.

    Zero is the mean colour, or the middle of the range, of every preprocessing. Source of the ranges, and of that:
    timm's `RandomErasing` in its mode `const`.

    Attributes:
        probability: of an image to lose a box.
        image_size: both sides in pixels.
    """

    probability: float
    image_size: int

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws erase_box, int32 [batch, 4] (top, bottom, left, right); the box is empty where nothing is erased.

        The area is uniform between 2 % and a third of the image's, the logarithm of the ratio of the sides between
        those of 0.3 and 1 / 0.3, or of the narrower range in which a box of this area fits.
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
        preprocessing: whose device stage is in the middle.
        on_pixels: stages before it, of uint8.
        on_inputs: stages after it, of float32.
        mixing: the last stage, which the labels take part in, or None.
    """

    preprocessing: Preprocessing
    on_pixels: tuple[Stage, ...] = ()
    on_inputs: tuple[Stage, ...] = ()
    mixing: Mixing | None = None

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws the random numbers of a whole batch, quantity -> [batch_size, ...]; a replica takes its rows of each.

        The seed is int64 [2]: that of the run, and the position of the batch in the training stream.
        """
        draws = dict(self.preprocessing.make_draws(seed, batch_size))
        for stage in (*self.on_pixels, *self._stages_on_inputs):
            draws |= stage.make_draws(seed, batch_size)
        return draws

    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Varies and scales a training batch, as `Preprocessing.device_train`."""
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
    """Returns the augmentation that `preprocessing.augment` describes, for epochs of `num_examples`."""
    augment, image_size = preprocessing.augment, preprocessing.image_size
    on_pixels: list[Stage] = []
    if augment.random_shift:
        on_pixels.append(RandomShift(augment.random_shift))
    if augment.rand_augment_ops:
        on_pixels.append(RandAugment(augment.rand_augment_ops, augment.rand_augment_magnitude))
    erasing = augment.random_erasing_prob
    on_inputs = (RandomErasing(erasing, image_size),) if erasing else ()
    return Augmentation(preprocessing, tuple(on_pixels), on_inputs, make_mixing(augment, image_size, num_examples))
