"""Event files for TensorBoard: scalars, options, and on request histograms, images and precision-recall curves."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams_plugin
from tensorboard.plugins.pr_curve import summary as pr_curve_plugin
from tensorboard.plugins.scalar import metadata
from tensorflow.python.ops import summary_ops_v2

from nets import nets_factory
from support.errors import first_line

_SCALAR = metadata.create_summary_metadata(display_name=None, description=None).SerializeToString()
FLUSH_SECONDS = 5.0  # lost at most if killed; not less, as each flush rewrites a file in a bucket


class SummaryWriter:
    """Writes one event file into a folder. Tags are TensorBoard's usual lower-case paths; step is the global step.

    A failed write does not end the run: it causes one warning and is skipped, unless `required`.
    """

    def __init__(self, folder: str, required: bool = False):
        self._folder, self._required, self._has_failed = folder, required, False
        self._writer: tf.summary.SummaryWriter | None = None  # created at the first write
        self._begins_at: int | None = None
        self._last_flush = -math.inf

    def begin_at(self, step: int) -> None:
        """Declares the folder's earlier events from this step on void.

        TensorBoard and its event readers discard them. A run needs this if it was killed after its last checkpoint.
        """
        self._begins_at = step

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
        with self._forgiving():
            if self._writer is None:
                # It also flushes after this number of events.
                self._writer = tf.summary.create_file_writer(self._folder, max_queue=1000)
            with self._writer.as_default(step):
                self._write_beginning()
                yield

    def _write_beginning(self) -> None:
        if self._begins_at is None:
            return
        log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        event = tf.compat.v1.Event(wall_time=time.time(), step=self._begins_at, session_log=log)
        # Twice, as TensorBoard takes a folder's first one for the beginning of the run and discards nothing.
        for _ in range(2):
            summary_ops_v2.import_event(event.SerializeToString())
        self._begins_at = None

    def scalars(self, step: int, values: dict[str, float]) -> None:
        # One operation for all: `tf.summary.scalar` runs several each, which take as long as a step of a small net.
        summary = tf.compat.v1.Summary()
        for tag, value in values.items():
            scalar = summary.value.add(tag=tag, tensor=tf.make_tensor_proto(np.float32(value)))
            scalar.metadata.ParseFromString(_SCALAR)
        with self._at(step):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step)

    def text(self, step: int, tag: str, text: str) -> None:
        with self._at(step):
            tf.summary.text(tag, text)

    def picture(self, step: int, tag: str, image: np.ndarray, description: str) -> None:
        """Writes one image, uint8 [height, width, 3], with a sentence that TensorBoard shows on request."""
        with self._at(step):
            tf.summary.image(tag, image[np.newaxis], description=description)

    def pr_curve(self, step: int, name: str, counts: np.ndarray, title: str) -> None:
        """Writes a precision-recall curve.

        Args:
            step: The global step.
            name: The tag's first part.
            counts: int64 [2, thresholds], true and false positives; thresholds rise from 0, at which all are positive.
            title: The curve's heading.
        """
        right, wrong = counts
        precision = np.divide(right, right + wrong, out=np.zeros(len(right)), where=right + wrong > 0)
        recall = np.divide(right, right[0], out=np.zeros(len(right)), where=right[0] > 0)
        summary = pr_curve_plugin.raw_data_pb(
            name,
            right,
            wrong,
            wrong[0] - wrong,
            right[0] - right,
            precision,
            recall,
            num_thresholds=len(right),
            display_name=title,
        )
        with self._at(step):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step)

    def hparams(self, step: int, values: Mapping[str, bool | int | float | str]) -> None:
        """Writes a run's options for TensorBoard's table of runs, beside the last values of the run's scalars."""
        with self._at(step):
            tf.summary.experimental.write_raw_pb(hparams_plugin.hparams_pb(dict(values)).SerializeToString(), step)

    def histograms(
        self, step: int, model: keras.Model, variables: Mapping[str, keras.Variable], images: tf.Tensor
    ) -> None:
        """Writes histograms of all variables and of all end points' activations on `images`, with shares of zeros."""
        end_points = nets_factory.get_end_points(model)
        activations = keras.Model(model.input, end_points)(images, training=False)
        with self._at(step):
            for name, variable in variables.items():
                tf.summary.histogram(name, variable)
            for name, activation in activations.items():
                tf.summary.histogram(f'activations/{name}', activation)
                tf.summary.scalar(f'sparsity/{name}', tf.nn.zero_fraction(activation))

    def images(self, step: int, images: np.ndarray, value_range: tuple[float, float]) -> None:
        """Writes up to 64 images as one grid.

        Args:
            step: The global step.
            images: float32 [batch, height, width, channels], as the net sees them.
            value_range: The values shown as black and as white.
        """
        low, high = value_range
        shown = np.clip((np.asarray(images[:64], np.float32) - low) / (high - low), 0.0, 1.0)
        with self._at(step):
            tf.summary.image('training_images', image_grid(shown)[np.newaxis])

    def flush(self, at_most_every: float = 0.0) -> None:
        """Flushes written events to the file, unless the last flush was within `at_most_every` seconds."""
        if self._writer is not None and time.monotonic() - self._last_flush >= at_most_every:
            self._last_flush = time.monotonic()
            with self._forgiving():
                self._writer.flush()


def image_grid(images: np.ndarray) -> np.ndarray:
    """Tiles [batch, height, width, channels] into [rows * height, columns * width, channels], padded with zeros."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, height, width, channels), images.dtype)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
