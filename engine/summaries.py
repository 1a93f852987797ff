"""What TensorBoard shows: scalars, and on request histograms and a grid of images."""

import contextlib
import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from configs.errors import first_line
from engine.train_state import TrainState
from nets import nets_factory


class SummaryWriter:
    """Writes event files into a folder. Tags are TensorBoard's usual lower-case paths; step is the global step.

    Summaries are not worth a run: what cannot be written is warned about once and left out, unless `required`.
    """

    def __init__(self, folder: str, required: bool = False):
        self._folder, self._required, self._has_failed = folder, required, False
        self._writer = tf.summary.create_noop_writer()
        with self._forgiving():
            self._writer = tf.summary.create_file_writer(folder)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            if self._required:
                raise
            if not self._has_failed:
                logging.warning('no summaries in %s: %s', self._folder, first_line(error))
            self._has_failed = True

    @contextlib.contextmanager
    def _at(self, step: int) -> Iterator[None]:
        with self._forgiving(), self._writer.as_default(step):
            yield

    def scalars(self, step: int, values: dict[str, float]) -> None:
        with self._at(step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

    def text(self, step: int, tag: str, text: str) -> None:
        with self._at(step):
            tf.summary.text(tag, text)

    def histograms(self, step: int, state: TrainState, images: tf.Tensor) -> None:
        """Writes every variable, and every end point's activations on the given images with its share of zeros."""
        end_points = nets_factory.get_end_points(state.model)
        activations = keras.Model(state.model.input, end_points)(images, training=False)
        with self._at(step):
            for name, variable in state.variables.items():
                tf.summary.histogram(name, variable)
            for name, activation in activations.items():
                tf.summary.histogram(f'activations/{name}', activation)
                tf.summary.scalar(f'sparsity/{name}', tf.nn.zero_fraction(activation))

    def images(self, step: int, images: np.ndarray, value_range: tuple[float, float]) -> None:
        """Writes up to 64 images as one grid.

        Args:
            step: The global step.
            images: float32 [batch, height, width, channels], as the net sees them.
            value_range: What is shown black and white.
        """
        low, high = value_range
        shown = np.clip((np.asarray(images[:64], np.float32) - low) / (high - low), 0.0, 1.0)
        with self._at(step):
            tf.summary.image('training_images', image_grid(shown)[np.newaxis])

    def close(self) -> None:
        with self._forgiving():
            self._writer.close()


def image_grid(images: np.ndarray) -> np.ndarray:
    """Returns [batch, height, width, channels] as one [rows * height, columns * width, channels], filled with zeros."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, channels), images.dtype)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
