"""Skips unusable examples in training: `--on_bad_image=skip`.

    skipped = SkippedImages()
    batches = training_batches(..., skipped=skipped)
    skipped.take(position.stream)       # {position: example number} of those skipped before this position

If the example at a position of the training stream cannot be read, decoded or prepared, the next position's example
replaces it, prepared with the random numbers of the position that it fills. The training data remains a pure function
of data, seed and position: resumed runs, replicas, workers and caches all see the same.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from datasets.order import Order

MOST_IN_A_ROW = 32  # bad ones: more mean that the data set is bad, not a few images


class SkippedImages:
    """Records which examples tf.data skips while it prepares the batches."""

    def __init__(self) -> None:
        with tf.init_scope():
            self._numbers = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, default_value=-1)

    def first_usable(
        self, prepare: Callable[[tf.Tensor], Any], position: tf.Tensor, number: tf.Tensor, order: Order
    ) -> Any:
        """Returns `prepare(example)` of the first usable example from `position` on; runs in tf.data.

        Positions and numbers are int64 scalars; `number` is the example at `position`.

        Raises:
            tf.errors.InvalidArgumentError: When run, if `MOST_IN_A_ROW` examples in a row are unusable.
        """

        @tf.autograph.experimental.do_not_convert
        def attempt(i: tf.Tensor) -> Any:
            def following() -> tf.Tensor:
                positions = position + (i - 1 + tf.range(2, dtype=tf.int64)) * order.stride
                numbers = order.numbers(positions)
                with tf.control_dependencies([self._numbers.insert(positions[:1], numbers[:1])]):
                    return tf.identity(numbers[1])

            return prepare(tf.cond(i > 0, following, lambda: number))

        attempts = tf.data.Dataset.range(MOST_IN_A_ROW).map(attempt).ignore_errors()
        return attempts.take(1).get_single_element()

    def take(self, end: int) -> dict[int, int]:
        """Removes and returns the examples skipped before position `end`: position -> example number."""
        if not int(self._numbers.size()):
            return {}
        positions, numbers = (values.numpy().tolist() for values in self._numbers.export())
        taken = {
            position: number for position, number in sorted(zip(positions, numbers, strict=True)) if position < end
        }
        if taken:
            self._numbers.remove(tf.constant(list(taken), tf.int64))
        return taken
