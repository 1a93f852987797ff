"""What every preprocessing gives the input pipeline and the training step.

    preprocessing = get_preprocessing('inception', 224)
    image = preprocessing.host_train(image, seed, boxes)       # tf.data, one image at a time
    draws = preprocessing.make_draws(step_seed, batch_size)    # all random numbers of a step's batch
    inputs = preprocessing.device_train(batch, draws)          # inside the compiled step

The host does only what needs the encoded image, and training images travel as uint8: a quarter of the
bytes. All randomness is a pure function of the seeds.
"""

import abc
import dataclasses
from typing import ClassVar

import tensorflow as tf

from configs.config import AugmentOptions
from configs.errors import InputError
from preprocessing import batches


@dataclasses.dataclass(frozen=True)
class Preprocessing(abc.ABC):
    """One way to prepare images; height = width = `image_size`.

    Attributes:
        image_size: side of the net's input in pixels.
        channels: what the net is given: 3, or 1.
        source_channels: what decoding gives: 3, or 1 for a gray data set whose images stay so. 3 here and 1
            in `channels` is slim's --use_grayscale: the device stage takes the luma.
        augment: how training images are varied.
        value_range: the outputs to show as black and white; what lies outside is clipped.
        keeps_grayscale: whether a gray data set stays at one channel. Otherwise decoding makes it RGB, as in
            slim.
    """

    image_size: int
    channels: int = 3
    source_channels: int = 3
    augment: AugmentOptions = AugmentOptions()

    value_range: ClassVar[tuple[float, float]]
    keeps_grayscale: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        if self.image_size < 1:
            raise InputError(f'image size {self.image_size}: must be at least 1')
        if (self.channels, self.source_channels) not in ((3, 3), (1, 3), (1, 1)):
            raise InputError(f'cannot make {self.channels} channels of {self.source_channels}; decode to 3')
        if self.source_channels == 1 and not self.keeps_grayscale:
            raise InputError(f'{name} preprocessing needs images decoded to 3 channels, not 1')

    @property
    def uses_boxes(self) -> bool:
        """Whether `host_train` looks at the boxes."""
        return self.augment.use_bounding_boxes

    @abc.abstractmethod
    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Decodes and crops or resizes one training image.

        Args:
            image: string scalar, an image file's bytes; or uint8 [height, width, source_channels], decoded already.
            seed: int64 [2], another one for every image and epoch.
            boxes: float32 [n, 4] (ymin, xmin, ymax, xmax) in [0, 1]; n may be 0.

        Returns:
            uint8 [height, width, source_channels] in [0, 255].

        Raises:
            tf.errors.InvalidArgumentError: the bytes are not an image, or are cut short.
        """

    @abc.abstractmethod
    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        """Decodes and crops or resizes one image, as for `host_train`: float32 [height, width, source_channels].

        Raises:
            tf.errors.InvalidArgumentError: the bytes are not an image, or are cut short.
        """

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws the random numbers of `device_train` for a whole batch; a replica takes its slice of each.

        Args:
            seed: int [2], another one for every step.
            batch_size: global batch size.

        Returns:
            quantity -> [batch_size].
        """
        return {}

    @abc.abstractmethod
    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Distorts and scales a training batch.

        Args:
            batch: uint8 [batch, height, width, source_channels], as `host_train` gives them.
            draws: quantity -> [batch], as `make_draws` gives them.

        Returns:
            float32 [batch, height, width, channels], the net's input.
        """

    @abc.abstractmethod
    def device_eval(self, batch: tf.Tensor) -> tf.Tensor:
        """Scales a batch of `host_eval`'s images to the net's input.

        Args:
            batch: float32 [batch, height, width, source_channels].

        Returns:
            float32 [batch, height, width, channels].
        """

    def _draw_flips(self, seed: tf.Tensor, quantity: int, batch_size: int) -> tf.Tensor:
        """Draws float32 [batch_size] for `batches.flip_left_right`; ones, which never flip, without --random_flip."""
        return batches.uniform(seed, quantity, batch_size) if self.augment.random_flip else tf.ones([batch_size])

    def _to_net_channels(self, batch: tf.Tensor) -> tf.Tensor:
        return batches.to_grayscale(batch) if self.channels < self.source_channels else batch
