"""Dropout that a training loop can reproduce.

logits = model(images, training=True)      # random like any Keras model, as in `model.fit`
with step_randomness(seed, example_offset=0):
    logits = model(images, training=True)  # repeatable: depends on the seed
"""

import contextlib
import contextvars
import functools
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from support.errors import InputError

_PHILOX = 1  # TensorFlow's number for the algorithm
_SCRAMBLING_KEY = 0x02461E293EC8F720  # from `tf.random.stateless_uniform`, for seeds


class _StepRandomness(NamedTuple):
    seed: tf.Tensor
    example_offset: int | tf.Tensor


_step_randomness: contextvars.ContextVar[_StepRandomness | None] = contextvars.ContextVar(
    'step_randomness', default=None
)


@contextlib.contextmanager
def step_randomness(seed: tf.Tensor, example_offset: int | tf.Tensor) -> Iterator[None]:
    """Supplies the random numbers of the `Dropout` layers called inside it.

    The numbers are drawn for the whole batch, and each replica takes its own rows, so that N replicas drop exactly
    what one device would. Enter it in the replica function itself: replicas run in threads with separate contexts.

    Args:
        seed: int [2], different for every step.
        example_offset: Position of the first image in the whole batch.
    """
    token = _step_randomness.set(_StepRandomness(tf.convert_to_tensor(seed), example_offset))
    try:
        yield
    finally:
        _step_randomness.reset(token)


@keras.saving.register_keras_serializable(package='nets')
class Dropout(keras.layers.Layer):
    """Drops values in training and divides the kept ones by `keep_prob`; otherwise the identity.

    Inside `step_randomness` the mask is a pure function of the seed and of the layer's name, so that a step can be
    repeated. Elsewhere it is random as in Keras' dropout: seeded by `keras.utils.set_random_seed`, and different in
    every call.

    Raises:
        InputError: `keep_prob` is outside (0, 1].
    """

    def __init__(self, keep_prob: float, *, name: str, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if not 0.0 < keep_prob <= 1.0:
            raise InputError(f'dropout_keep_prob={keep_prob}: must be greater than 0 and at most 1')
        self.keep_prob = keep_prob
        generator = keras.random.SeedGenerator()
        # As a direct attribute it would be a variable of the net, and stored in checkpoints.
        self._seed_generator = lambda: generator

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or self.keep_prob == 1.0:
            return inputs
        step = _step_randomness.get()
        if step is None:
            return keras.random.dropout(inputs, 1.0 - self.keep_prob, seed=self._seed_generator())
        kept = self._bits(step, tf.shape(inputs)) < tf.constant(round(self.keep_prob * 2**32), tf.uint32)
        return tf.where(kept, inputs / self.keep_prob, tf.zeros_like(inputs))

    def _bits(self, step: _StepRandomness, shape: tf.Tensor) -> tf.Tensor:
        """Returns uint32 of `shape`, over its whole range: the rows from `example_offset` on, of one endless draw."""
        # Philox by name: the default differs between devices and under XLA. Bits instead of floats, which XLA derives
        # differently. The name's CRC is, unlike `hash`, the same in every process.
        number = zlib.crc32(self.name.encode()) & 0x7FFFFFFF
        seed = tf.random.experimental.stateless_fold_in(step.seed, number, alg='philox')
        sizes = tf.cast(shape, tf.int64)
        first = tf.cast(step.example_offset, tf.int64) * tf.reduce_prod(sizes[1:])
        return tf.reshape(_philox_bits(seed, first, tf.reduce_prod(sizes)), shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), 'keep_prob': self.keep_prob}


def _philox_bits(seed: tf.Tensor, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns uint32 [count]: numbers `first` and up of a larger draw by `tf.random.stateless_uniform`.

    Philox derives numbers from a counter, four at a time, so the numbers before need not be drawn.
    """
    draw = functools.partial(tf.raw_ops.StatelessRandomUniformFullIntV2, alg=_PHILOX)
    # As in TensorFlow; `StatelessRandomGetKeyCounter` makes another key of a negative seed under XLA.
    scrambled = draw(shape=[2], key=[_SCRAMBLING_KEY], counter=tf.cast(seed, tf.uint64), dtype=tf.uint64)
    counter = tf.stack([tf.cast(first // 4, tf.uint64), scrambled[1]])
    bits = draw(shape=[count + 4], key=scrambled[:1], counter=counter, dtype=tf.uint32)
    return tf.slice(bits, [first % 4], [count])  # a size that XLA can infer
