"""How training images are varied on the device: what their preprocessing does, and around it what any one may do.

    augmentation = make_augmentation(preprocessing, num_examples)
    draws = augmentation.make_draws(seed, batch_size)      # all random numbers of a step's batch
    images = augmentation.device_train(batch, draws)       # inside the compiled step
    targets = augmentation.targets(labels, draws)

In this order: shift, RandAugment (both of pixels); flip, colour, scale (the preprocessing's); erasing, mixing (both of
the net's input). Without their options there are none of them, and everything is the preprocessing's alone.
"""

import dataclasses
from typing import Protocol

import tensorflow as tf

from configs.training import AugmentOptions
from preprocessing.base import Preprocessing
from preprocessing.mixing import Mixing, Targets, make_mixing
from preprocessing.rand_augment import RandAugment
from preprocessing.random_erasing import RandomErasing
from preprocessing.random_shift import RandomShift


class Stage(Protocol):
    """One way to vary a batch of images, each image, or pair, with random numbers of its own."""

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws all random numbers of a whole batch, as `Preprocessing.make_draws`: quantity -> [batch_size, ...]."""

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns the images, [batch, height, width, channels], varied; of the same type and range."""


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
        """Draws the random numbers of a whole batch; a replica takes its rows of each.

        Args:
            seed: int64 [2]: that of the run, and the position of the batch in the training stream.
            batch_size: global batch size.

        Returns:
            quantity -> [batch_size, ...].
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
    """Returns the augmentation that the options of a preprocessing describe.

    Args:
        preprocessing: which has them in `augment`.
        num_examples: of an epoch.
    """
    augment = preprocessing.augment
    return Augmentation(
        preprocessing,
        _stages_on_pixels(augment),
        _stages_on_inputs(augment, preprocessing.image_size),
        make_mixing(augment, preprocessing.image_size, num_examples),
    )


def _stages_on_pixels(augment: AugmentOptions) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    if augment.random_shift:
        stages.append(RandomShift(augment.random_shift))
    if augment.rand_augment_ops:
        stages.append(RandAugment(augment.rand_augment_ops, augment.rand_augment_magnitude))
    return tuple(stages)


def _stages_on_inputs(augment: AugmentOptions, image_size: int) -> tuple[Stage, ...]:
    return (RandomErasing(augment.random_erasing_prob, image_size),) if augment.random_erasing_prob else ()
