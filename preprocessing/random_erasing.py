"""Random erasing (Zhong et al. 2017, arXiv:1708.04896): a box of the net's input becomes zero.

    stage = RandomErasing(probability=0.25, image_size=224)
    images = stage(images, stage.make_draws(seed, batch_size))      # float32 [batch, height, width, channels]

Zero is the mean colour, or the middle of the range, of every preprocessing. Source of the ranges, and of that: timm's
`RandomErasing` in its mode `const`.
"""

import dataclasses
import math

import tensorflow as tf

from preprocessing import batches

_AREAS = (0.02, 1 / 3)  # of the image's
_LARGEST_RATIO = 1 / 0.3  # of the sides, either way

_ERASING = 18  # the random quantity: beyond those of the families


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """The stage of the device that erases one box of some images.

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
