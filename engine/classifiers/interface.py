"""The form in which a file takes images and returns scores: exports record it, runtimes follow it.

interface = Interface(layout='NCHW', channel_order='BGR')
values = interface.prepare(images, preprocessing)        # images of `host_eval` in the form that the file takes
"""

import dataclasses

import numpy as np

from configs.foreign import CHANNEL_ORDERS, HIGHEST_TEMPERATURE, LAYOUTS, LOWEST_TEMPERATURE, OUTPUTS
from preprocessing.preprocessing_factory import Preprocessing


@dataclasses.dataclass(frozen=True)
class Interface:
    """Inputs and outputs of an exported file.

    Attributes:
        layout: 'NHWC' or 'NCHW', the axes of its images.
        channel_order: 'RGB' or 'BGR'; 'RGB' also for gray images.
        include_preprocessing: Whether it takes pixels in [0, 255]; otherwise it takes the output of `device_eval`.
        output: 'logits' or 'probabilities'.
        temperature: Probabilities are softmax(logits / temperature); in those that the file gives, it is included.
    """

    layout: str = 'NHWC'
    channel_order: str = 'RGB'
    include_preprocessing: bool = False
    output: str = 'logits'
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in (('layout', LAYOUTS), ('channel_order', CHANNEL_ORDERS), ('output', OUTPUTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} is {getattr(self, name)!r}, which is not one of {", ".join(allowed)}')

        if type(self.include_preprocessing) is not bool:
            raise ValueError(f'include_preprocessing is {self.include_preprocessing!r}, not true or false')
        if not LOWEST_TEMPERATURE <= self.temperature <= HIGHEST_TEMPERATURE:
            raise ValueError(
                f'temperature is {self.temperature!r}, not from {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE}'
            )

    def reverses_channels(self, preprocessing: Preprocessing) -> bool:
        """Returns whether the file's channel order differs from the net's."""
        return self.channel_order != preprocessing.normalization.channel_order

    def prepare(self, images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
        """Converts images to the form that the file takes.

        Args:
            images: float32 [batch, height, width, source_channels] from `host_eval`.
            preprocessing: The net's preprocessing.

        Returns:
            float32 [batch, height, width, channels] or [batch, channels, height, width], by `layout`.
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

    def to_probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Returns probabilities, float32 [batch, classes], from the file's scores."""
        return softmax(scores / np.float32(self.temperature)) if self.output == 'logits' else scores

    def input_shape(self, preprocessing: Preprocessing) -> tuple[int, int, int]:
        """Returns the shape of one input image of the file."""
        side = preprocessing.image_size
        channels = preprocessing.source_channels if self.include_preprocessing else preprocessing.channels
        return (channels, side, side) if self.layout == 'NCHW' else (side, side, channels)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities from logits, both float32 [batch, classes]."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
