"""The interface between a preprocessing, the input pipeline and the training step.

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

from configs.training import AugmentOptions
from preprocessing import batches
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Normalization:
    """The scaling of pixels in [0, 255] by `device_eval`, which exports store and write into their graphs.

    First the luma if `to_grayscale`, as `batches.to_grayscale` weighs it; then the channels reversed if
    `channel_order` is BGR; then (pixel - mean) / std; then, if `per_image`, `tf.image.per_image_standardization`.

    Attributes:
        mean: one for each channel of the net's input, in the net's order.
        std: as `mean`; all above 0.
        channel_order: 'RGB' or 'BGR', of the net's input; 'RGB' too where that is gray.
        to_grayscale: whether the pixels are RGB and the net's input is their luma.
        per_image: whether each image is standardised by itself.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'RGB'
    to_grayscale: bool = False
    per_image: bool = False


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
        host_range: the largest value that `host_eval` gives; the smallest is 0.
        keeps_grayscale: whether a gray data set stays at one channel. Otherwise decoding makes it RGB, as in
            slim.
        makes_grayscale: whether it can give one channel; not if each colour has a mean of its own.
        flip_quantity: number of the random quantity that mirrors training images; None never does.
    """

    image_size: int
    channels: int = 3
    source_channels: int = 3
    augment: AugmentOptions = AugmentOptions()

    value_range: ClassVar[tuple[float, float]]
    host_range: ClassVar[float] = 255.0
    keeps_grayscale: ClassVar[bool] = False
    makes_grayscale: ClassVar[bool] = True
    flip_quantity: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        if self.image_size < 1:
            raise InputError(f'image size {self.image_size}: must be at least 1')
        if self.augment.random_shift >= self.image_size:
            raise InputError(
                f'--random_shift={self.augment.random_shift}: must be less than the image size, {self.image_size}'
            )
        if (self.channels, self.source_channels) not in ((3, 3), (1, 3), (1, 1)):
            raise InputError(f'cannot make {self.channels} channels of {self.source_channels}; decode to 3')
        if self.source_channels == 1 and not self.keeps_grayscale:
            raise InputError(f'{name} preprocessing needs images decoded to 3 channels, not 1')
        if self.channels == 1 and not self.makes_grayscale:
            raise InputError(f'{name} preprocessing subtracts three means and cannot make gray images; use inception')

    @property
    def uses_boxes(self) -> bool:
        """Whether `host_train` looks at the boxes."""
        return self.augment.use_bounding_boxes

    @property
    @abc.abstractmethod
    def normalization(self) -> Normalization:
        """The scaling that `device_eval` applies."""

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
        """Draws the random numbers of `device_train` for a whole batch, quantity -> [batch_size].

        A replica takes its slice of each. The seed is int [2], another one for every step. Without --random_flip,
        `flip` is ones, which never flip.
        """
        if self.flip_quantity is None:
            return {}
        flips = self.augment.random_flip
        return {'flip': batches.uniform(seed, self.flip_quantity, batch_size) if flips else tf.ones([batch_size])}

    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Distorts and scales a training batch: mirrors it, unless a family does more.

        Args:
            batch: uint8 [batch, height, width, source_channels], as `host_train` gives them.
            draws: quantity -> [batch], as `make_draws` gives them.

        Returns:
            float32 [batch, height, width, channels], the net's input.
        """
        if self.flip_quantity is not None:
            batch = batches.flip_left_right(batch, draws['flip'])
        return self.device_eval(tf.cast(batch, tf.float32))

    def device_eval(self, batch: tf.Tensor) -> tf.Tensor:
        """Scales a batch of `host_eval`'s images to the net's input, as `normalization` says.

        Args:
            batch: float32 [batch, height, width, source_channels] in [0, host_range].

        Returns:
            float32 [batch, height, width, channels].
        """
        normalization = self.normalization
        batch = self._to_net_channels(batch)
        batch = self.reorder_channels(batch)
        batch = (batch - self._in_host_range(normalization.mean)) / self._in_host_range(normalization.std)
        return tf.image.per_image_standardization(batch) if normalization.per_image else batch

    def reorder_channels(self, batch: tf.Tensor) -> tf.Tensor:
        """Turns RGB, [batch, height, width, channels], into the net's order, and that, to be shown, into RGB."""
        return tf.reverse(batch, axis=[-1]) if self.normalization.channel_order == 'BGR' else batch

    def _with_shape(self, image: tf.Tensor) -> tf.Tensor:
        """Gives one image of the host stage its static shape."""
        return tf.ensure_shape(image, [self.image_size, self.image_size, self.source_channels])

    def _to_net_channels(self, batch: tf.Tensor) -> tf.Tensor:
        return batches.to_grayscale(batch) if self.channels < self.source_channels else batch

    def _normalize_channels(self, mean: float, std: float) -> Normalization:
        """Returns the normalization with one mean and one standard deviation for all channels."""
        return Normalization(
            (mean,) * self.channels, (std,) * self.channels, to_grayscale=self.channels < self.source_channels
        )

    def _in_host_range(self, values: tuple[float, ...]) -> tf.Tensor:
        """Returns one value of [0, 255] per channel in [0, host_range]: a scalar where they are equal."""
        scale = self.host_range / 255
        # On CPUs, broadcasting over three channels takes a multiple of the time.
        return tf.constant([scale * value for value in values] if len(set(values)) > 1 else scale * values[0])
