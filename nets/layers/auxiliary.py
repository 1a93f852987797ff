"""Auxiliary heads: logits from the middle of a net, which only training uses.

    logits = build.apply(AuxiliaryHead(name='aux'), [logits, auxiliary])   # the model still returns the logits
    with auxiliary_logits() as collected:
        logits = model(images, training=True)
    loss += 0.4 * cross_entropy(collected[0], labels)

So a net with such a head is one Keras model with one output, whose variables are saved and loaded together; outside
training nothing depends on the head, and TensorFlow does not compute it.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

_collector: contextvars.ContextVar[list[tf.Tensor] | None] = contextvars.ContextVar('auxiliary_logits', default=None)


@contextlib.contextmanager
def auxiliary_logits() -> Iterator[list[tf.Tensor]]:
    """Collects the auxiliary logits, float32 [batch, classes], of nets that are called inside it with `training=True`.

    Enter it in the replica function itself: replicas run in threads, and each sees only its own context.
    """
    collected: list[tf.Tensor] = []
    token = _collector.set(collected)
    try:
        yield collected
    finally:
        _collector.reset(token)


@keras.saving.register_keras_serializable(package='nets')
class AuxiliaryHead(keras.layers.Layer):
    """Takes [logits, auxiliary logits] and returns the logits; reports the others to `auxiliary_logits`."""

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        logits, auxiliary = inputs
        collected = _collector.get()
        if training and collected is not None:
            collected.append(auxiliary)
        return logits

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]
