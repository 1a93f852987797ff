"""Random shifts by whole pixels: the padded crops of CIFAR-10 recipes, for images of any size.

    stage = RandomShift(pixels=4)
    images = stage(images, stage.make_draws(seed, batch_size))      # uint8 [batch, height, width, channels]

Cifarnet's preprocessing has such a crop of its own, in a black frame.
"""

import dataclasses

import tensorflow as tf

from preprocessing import batches

_SHIFT = 16  # the random quantity: beyond those of the families


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """The stage of the device that moves each image along both sides, and fills what it leaves by reflection.

    As padding by reflection, without repeating the edge, and a random crop of the image's size.

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
