"""The interface between a preprocessing, the input pipeline and the training step.

    preprocessing = get_preprocessing('inception', 224)
    image = preprocessing.host_train(image, seed, boxes)       # tf.data, one image at a time
    draws = preprocessing.make_draws(step_seed, batch_size)    # all random numbers of a step's batch
    inputs = preprocessing.device_train(batch, draws)          # inside the compiled step

The host does only the work that needs the encoded image, and training images are transferred as uint8: a quarter of
the bytes. All randomness is a pure function of the seeds.
"""

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from configs.training import AugmentOptions
from preprocessing import batches, images
from preprocessing.views import CENTRE, Place, Views
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Normalization:
    """The scaling of pixels in [0, 255] by `device_eval`, which exports store and include in their graphs.

    In order: the luma if `to_grayscale`, weighted as in `batches.to_grayscale`; channels reversed if `channel_order` is
    BGR; (pixel - mean) / std; `tf.image.per_image_standardization` if `per_image`.

    Attributes:
        mean: One value per channel of the net's input, in the net's order.
        std: One value per channel, as `mean`; all above 0.
        channel_order: 'RGB' or 'BGR', of the net's input; 'RGB' also for gray.
        to_grayscale: Whether the pixels are RGB and the net's input is their luma.
        per_image: Whether each image is standardised individually.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str = 'RGB'
    to_grayscale: bool = False
    per_image: bool = False


@dataclasses.dataclass(frozen=True)
class Preprocessing(abc.ABC):
    """A way to prepare images; height = width = `image_size`.

    Attributes:
        image_size: Side of the net's input in pixels.
        channels: Channels of the net's input: 3 or 1.
        source_channels: Channels after decoding: 3, or 1 for a gray data set that stays gray. 3 here with 1
            in `channels` is slim's --use_grayscale: the device stage takes the luma.
        augment: Options for varying training images.
        views: The crops of `host_views`, for evaluations that average over several; None elsewhere.
        value_range: Outputs shown as black and white; values outside are clipped.
        host_range: Largest value of `host_eval`; the smallest is 0.
        keeps_grayscale: Whether a gray data set stays at one channel. Otherwise it is decoded to RGB, as in
            slim.
        makes_grayscale: Whether one channel is possible; not if each colour has its own mean.
        flip_quantity: Number of the random quantity that mirrors training images; None never mirrors.
    """

    image_size: int
    channels: int = 3
    source_channels: int = 3
    augment: AugmentOptions = AugmentOptions()
    views: Views | None = None

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
        for scale in self.views.scales if self.views else ():
            if scale < self.smallest_scale:
                raise InputError(
                    f'--eval_scales={scale:g}: must be at least {self.smallest_scale:g} for {name} preprocessing, or '
                    f"the crops of the net's size, {self.image_size}, do not fit into the image"
                )

    @property
    def smallest_scale(self) -> float:
        """The smallest factor on the size of resized images at which they contain a crop."""
        return 0.0

    @property
    def uses_boxes(self) -> bool:
        """Whether `host_train` uses the boxes."""
        return self.augment.use_bounding_boxes

    @property
    @abc.abstractmethod
    def normalization(self) -> Normalization:
        """The scaling that `device_eval` applies."""

    @abc.abstractmethod
    def host_train(self, image: tf.Tensor, seed: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
        """Decodes one training image, then crops or resizes it.

        Args:
            image: string scalar, an image file's bytes; or uint8 [height, width, source_channels], already decoded.
            seed: int64 [2], different for every image and epoch.
            boxes: float32 [n, 4] (ymin, xmin, ymax, xmax) in [0, 1]; n may be 0.

        Returns:
            uint8 [height, width, source_channels] in [0, 255].

        Raises:
            tf.errors.InvalidArgumentError: The bytes are not an image, or are cut short.
        """

    @abc.abstractmethod
    def host_crops(self, pixels: tf.Tensor, scale: float, places: Sequence[Place]) -> list[tf.Tensor]:
        """Crops or resizes one decoded image for evaluation, at one or several places.

        Args:
            pixels: uint8 [height, width, source_channels].
            scale: Factor on the size to which the preprocessing resizes; at least `smallest_scale`.
            places: The places of the crops.

        Returns:
            For each place float32 [image_size, image_size, source_channels] in [0, host_range]. The one of `CENTRE` at
            scale 1 equals `host_eval` bit for bit.
        """

    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        """Decodes one image, as `host_train`, then crops or resizes it: float32 [height, width, source_channels].

        Raises:
            tf.errors.InvalidArgumentError: The bytes are not an image, or are cut short.
        """
        return self.host_crops(images.decode(image, self.source_channels), 1.0, (CENTRE,))[0]

    def host_views(self, image: tf.Tensor) -> tf.Tensor:
        """Decodes one image once, then makes all crops of `views`: float32 [num_crops, height, width, source_channels].

        The crops at the first scale come first, those of a scale in the order of `Views.places`. Raises as `host_eval`.
        """
        assert self.views is not None
        pixels = images.decode(image, self.source_channels)
        return tf.stack(
            [crop for scale in self.views.scales for crop in self.host_crops(pixels, scale, self.views.places)]
        )

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws the random numbers of `device_train` for a whole batch, quantity -> [batch_size].

        A replica takes its slice of each. The seed is int [2], different for every step. Without --random_flip, `flip`
        is ones, which never mirror.
        """
        if self.flip_quantity is None:
            return {}
        flips = self.augment.random_flip
        return {'flip': batches.uniform(seed, self.flip_quantity, batch_size) if flips else tf.ones([batch_size])}

    def device_train(self, batch: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Distorts and scales a training batch; here it only mirrors, and subclasses may do more.

        Args:
            batch: uint8 [batch, height, width, source_channels], from `host_train`.
            draws: quantity -> [batch], from `make_draws`.

        Returns:
            float32 [batch, height, width, channels], the net's input.
        """
        if self.flip_quantity is not None:
            batch = batches.flip_left_right(batch, draws['flip'])
        return self.device_eval(tf.cast(batch, tf.float32))

    def device_eval(self, batch: tf.Tensor) -> tf.Tensor:
        """Scales a batch of images from `host_eval` to the net's input, according to `normalization`.

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
        """Converts [batch, height, width, channels] from RGB to the net's order, or back."""
        return tf.reverse(batch, axis=[-1]) if self.normalization.channel_order == 'BGR' else batch

    def _with_shape(self, image: tf.Tensor) -> tf.Tensor:
        """Sets the static shape of one image of the host stage."""
        return tf.ensure_shape(image, [self.image_size, self.image_size, self.source_channels])

    def _to_net_channels(self, batch: tf.Tensor) -> tf.Tensor:
        return batches.to_grayscale(batch) if self.channels < self.source_channels else batch

    def _normalize_channels(self, mean: float, std: float) -> Normalization:
        """Returns the normalization with one mean and one standard deviation for all channels."""
        return Normalization(
            (mean,) * self.channels, (std,) * self.channels, to_grayscale=self.channels < self.source_channels
        )

    def _in_host_range(self, values: tuple[float, ...]) -> tf.Tensor:
        """Converts one value per channel from [0, 255] to [0, host_range]: a scalar if all are equal."""
        scale = self.host_range / 255
        # On CPUs, broadcasting over three channels takes several times as long.
        return tf.constant([scale * value for value in values] if len(set(values)) > 1 else scale * values[0])
