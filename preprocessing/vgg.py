"""VGG's and ResNet's preprocessing (slim: preprocessing/vgg_preprocessing.py): RGB minus the mean colour."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from preprocessing import images
from preprocessing.base import Normalization, Preprocessing
from preprocessing.views import Place
from support.errors import InputError

_MEANS = (123.68, 116.78, 103.94)  # red, green, blue over ImageNet
_EVAL_SIDE = 256
_TRAIN_SIDES = (256, 512)  # both included

# One number per random quantity, so that adding one does not change the others.
_SIDE, _CROP, _FLIP = range(3)


@dataclasses.dataclass(frozen=True)
class Vgg(Preprocessing):
    """A square crop after resizing the shorter side: to a random length for training, to 256 for evaluation."""

    makes_grayscale: ClassVar[bool] = False
    flip_quantity: ClassVar[int | None] = _FLIP
    value_range: ClassVar[tuple[float, float]] = (-max(_MEANS), 255 - min(_MEANS))

    def __post_init__(self) -> None:
        """Raises InputError for an image size at which slim crashes."""
        super().__post_init__()
        if self.image_size > _EVAL_SIDE:
            raise InputError(
                f'vgg preprocessing crops from images whose shorter side is {_EVAL_SIDE}: '
                f'image size {self.image_size} is too large; use at most {_EVAL_SIDE}, or inception'
            )

    @property
    def normalization(self) -> Normalization:
        """The normalization that subtracts the mean of each channel."""
        return Normalization(_MEANS, (1.0, 1.0, 1.0))

    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Resizes the shorter side to 256..512 and crops at a random position; see the base class."""
        low, high = _TRAIN_SIDES
        side = tf.random.stateless_uniform(
            [], tf.random.fold_in(seed, _SIDE, alg='philox'), low, high + 1, tf.int32, alg='philox'
        )
        resized = images.resize_short_side(images.decode(image), side)
        crop = images.random_crop(resized, self.image_size, tf.random.fold_in(seed, _CROP, alg='philox'))
        return self._with_shape(images.to_uint8(crop))

    @property
    def smallest_scale(self) -> float:
        """The scale at which the shorter side is that of a crop."""
        return self.image_size / _EVAL_SIDE

    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Resizes the shorter side to 256 * scale and crops, in [0, 255]; see the base class."""
        resized = images.resize_short_side(pixels, round(_EVAL_SIDE * scale))
        return [self._with_shape(images.crop_at(resized, self.image_size, place)) for place in places]
