"""How a file takes images and gives its results: what an export says of itself, and what runs it follows.

interface = Interface(layout='NCHW', channel_order='BGR')
values = interface.prepare(images, preprocessing)        # of `host_eval`'s images, what the file takes
"""

import dataclasses

import numpy as np

from configs.foreign import CHANNEL_ORDERS, LAYOUTS, OUTPUTS
from preprocessing.preprocessing_factory import Preprocessing


@dataclasses.dataclass(frozen=True)
class Interface:
    """Inputs and outputs of an exported file.

    Attributes:
        layout: 'NHWC' or 'NCHW', the axes of its images.
        channel_order: 'RGB' or 'BGR'; 'RGB' also for gray images.
        include_preprocessing: Whether it takes pixels in [0, 255]; otherwise what `device_eval` gives.
        output: 'logits' or 'probabilities'.
    """

    layout: str = 'NHWC'
    channel_order: str = 'RGB'
    include_preprocessing: bool = False
    output: str = 'logits'

    def __post_init__(self) -> None:
        for name, allowed in (('layout', LAYOUTS), ('channel_order', CHANNEL_ORDERS), ('output', OUTPUTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} is {getattr(self, name)!r}, which is not one of {", ".join(allowed)}')

        if type(self.include_preprocessing) is not bool:
            raise ValueError(f'include_preprocessing is {self.include_preprocessing!r}, not true or false')

    def reverses_channels(self, preprocessing: Preprocessing) -> bool:
        """Returns whether its images have their channels in another order than the net's."""
        return self.channel_order != preprocessing.normalization.channel_order

    def prepare(self, images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
        """Makes what the file takes.

        Args:
            images: float32 [batch, height, width, source_channels], as `host_eval` gives them.
            preprocessing: That of the net.

        Returns:
            float32 [batch, height, width, channels], or [batch, channels, height, width].
        """
        if self.include_preprocessing:
            values = images * np.float32(255 / preprocessing.host_range)
            is_reversed = self.channel_order == 'BGR'
        else:
            values = np.asarray(preprocessing.device_eval(images))
            is_reversed = self.reverses_channels(preprocessing)
        if is_reversed:
            values = values[..., ::-1]
        if self.layout == 'NCHW':
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, np.float32)

    def input_shape(self, preprocessing: Preprocessing) -> tuple[int, int, int]:
        """Returns the shape of one image that the file takes."""
        side = preprocessing.image_size
        channels = preprocessing.source_channels if self.include_preprocessing else preprocessing.channels
        return (channels, side, side) if self.layout == 'NCHW' else (side, side, channels)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of logits: float32 [batch, classes] of the same."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
