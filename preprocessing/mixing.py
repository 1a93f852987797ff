"""Mixup (Zhang et al. 2017, arXiv:1710.09412) and CutMix (Yun et al. 2019, arXiv:1905.04899) of pairs of images.

    mixing = make_mixing(augment, image_size, num_examples)     # None without --mixup_alpha and --cutmix_alpha
    draws = mixing.make_draws(seed, batch_size)
    images = mixing(images, draws)                              # float32 [batch, height, width, channels]
    targets = mixing.targets(labels, draws)

An image's partner is its neighbour in the batch (0 and 1, 2 and 3, ...), and both are mixed symmetrically. As replicas
and parts of a batch have whole pairs, they need no data from each other. timm's mode `pair` takes the image at the
opposite end of the batch instead.
"""

import dataclasses
import math
from typing import NamedTuple

import tensorflow as tf

from configs.training import AugmentOptions
from preprocessing import batches

_MIXING = 19  # the random quantity, numbered after those of the preprocessings


class Targets(NamedTuple):
    """The targets of a batch: `shares` of each label and the rest of another, or only the label.

    Attributes:
        labels: int32 [batch].
        others: int32 [batch], or None.
        shares: float32 [batch] in [0, 1], or None.
    """

    labels: tf.Tensor
    others: tf.Tensor | None = None
    shares: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Mixing:
    """The device stage that mixes the two images of each pair, or exchanges a box between them.

    Attributes:
        mixup_alpha: Mixup's share is Beta(alpha, alpha); 0 turns mixup off.
        cutmix_alpha: The share of an image that CutMix keeps is Beta(alpha, alpha); 0 turns CutMix off.
        probability: Probability that a pair is mixed at all.
        switch_probability: Probability of CutMix, if both are on.
        image_size: Both sides in pixels.
        off_position: Position in the training stream from which nothing is mixed; None is never.
    """

    mixup_alpha: float
    cutmix_alpha: float
    probability: float
    switch_probability: float
    image_size: int
    off_position: int | None = None

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws the mixing of each pair.

        Args:
            seed: int64 [2], the run's seed and the position in the training stream.
            batch_size: Must be even.

        Returns:
            mix_box: int32 [batch, 4] (top, bottom, left, right), the partner's box; empty except for CutMix.
            mix_share: float32 [batch], share of the image outside the box, in [0, 1]; 1 except for mixup.
            mix_label_share: float32 [batch], share of the image in total, and so of its label.
        """
        chance, switch, share, angle, y, x = batches.uniforms(seed, _MIXING, batch_size // 2, 6)
        is_mixed, cuts = chance < self.probability, switch < self._cutmix_probability
        if self.off_position is not None:
            is_mixed &= seed[1] < self.off_position
        share = symmetric_beta(tf.where(cuts, self.cutmix_alpha, self.mixup_alpha), share, angle)
        box = self._boxes(tf.where(is_mixed & cuts, share, 1.0), y, x)
        share = tf.where(is_mixed & ~cuts, share, 1.0)
        area = tf.cast((box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]), tf.float32) / self.image_size**2
        of_pairs = {'mix_box': box, 'mix_share': share, 'mix_label_share': share * (1 - area)}
        return {name: tf.repeat(values, 2, axis=0) for name, values in of_pairs.items()}

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Mixes float32 [batch, height, width, channels]; the batch is even."""
        share = batches.per_image(draws['mix_share']) * batches.outside_boxes(draws['mix_box'], *images.shape[1:3])
        return share * images + (1 - share) * _partners(images)

    def targets(self, labels: tf.Tensor, draws: dict[str, tf.Tensor]) -> Targets:
        """Returns the targets of mixed images with int32 [batch] `labels`."""
        return Targets(labels, _partners(labels), draws['mix_label_share'])

    @property
    def _cutmix_probability(self) -> float:
        if self.mixup_alpha and self.cutmix_alpha:
            return self.switch_probability
        return 1.0 if self.cutmix_alpha else 0.0

    def _boxes(self, share: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Returns int32 [pairs, 4]: boxes of `1 - share` of the area around (y, x) in [0, 1), clipped at the edges."""
        half = tf.cast(tf.sqrt(1 - share) * self.image_size, tf.int32) // 2
        edges = []
        for place in (y, x):
            centre = tf.cast(place * self.image_size, tf.int32)
            edges += [tf.maximum(centre - half, 0), tf.minimum(centre + half, self.image_size)]
        return tf.stack(edges, axis=1)


def make_mixing(augment: AugmentOptions, image_size: int, num_examples: int) -> Mixing | None:
    """Returns the mixing for an epoch of `num_examples`, or None if the options mix nothing."""
    if not augment.mixes:
        return None
    off_position = round(augment.mixup_off_epoch * num_examples) if augment.mixup_off_epoch else None
    return Mixing(
        augment.mixup_alpha,
        augment.cutmix_alpha,
        augment.mixup_prob,
        augment.mixup_switch_prob,
        image_size,
        off_position,
    )


def symmetric_beta(alpha: tf.Tensor, draws: tf.Tensor, angles: tf.Tensor) -> tf.Tensor:
    """Converts two draws, uniform in [0, 1), to one of Beta(alpha, alpha): float32, in [0, 1].

    Uses no rejection, so each number needs two draws: Student's t by Bailey's polar method (Mathematics of
    Computation 62, 1994), then t / (2 sqrt(2 alpha + t^2)) + 1/2, which has this distribution.
    """
    cos = tf.cos(2 * math.pi * angles)
    power = tf.pow(1 - draws, 1 / alpha)
    spread = (1 - power) * tf.square(cos)
    # t^2 / (2 alpha + t^2), rearranged so that nothing overflows.
    return 0.5 + 0.5 * tf.sign(cos) * tf.sqrt(tf.math.divide_no_nan(spread, power + spread))


def _partners(values: tf.Tensor) -> tf.Tensor:
    """Swaps the rows of each pair."""
    pairs = tf.reshape(values, [-1, 2, *values.shape[1:]])
    return tf.reshape(tf.reverse(pairs, axis=[1]), tf.shape(values))
