"""Batch normalisation that reports its statistics, for a training loop that keeps them itself.

    logits = model(images, training=True)          # keeps them as any Keras model; `model.fit` trains it
    with batch_statistics() as statistics:
        logits = model(images, training=True)      # keeps nothing
    moving = [(statistic.variable, statistic.momentum) for statistic in statistics]
    values = context.all_reduce(MEAN, [statistic.value for statistic in statistics])    # beside the gradients
    update_moving(moving, values)

In the project's loop a layer that assigned them itself would do so in each replica, with the statistics of that
replica's examples.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf
from keras import ops

ReduceMean: TypeAlias = Callable[[list[tf.Tensor]], list[tf.Tensor]]

# What Keras' layer also can do, and the one way in which this one does it.
_FIXED = {'axis': -1, 'synchronized': False, 'renorm': False}


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A batch's value for one of a layer's moving statistics.

    Attributes:
        variable: `moving_mean` or `moving_variance`, float32 [channels].
        value: Mean or unbiased variance of the inputs, float32 [channels]; without gradient.
        momentum: Share of `variable` that is kept in a step.
    """

    variable: keras.Variable
    value: tf.Tensor
    momentum: float


@dataclasses.dataclass(frozen=True)
class _Collector:
    statistics: list[Statistic]
    reduce_mean: ReduceMean | None
    num_replicas: int


_collector: contextvars.ContextVar[_Collector | None] = contextvars.ContextVar('batch_statistics', default=None)


@contextlib.contextmanager
def batch_statistics(reduce_mean: ReduceMean | None = None, num_replicas: int = 1) -> Iterator[list[Statistic]]:
    """Collects what the `BatchNormalization` layers called inside it, with `training=True`, see.

    Enter it in the replica function itself: replicas run in threads, and each sees its own only.

    Args:
        reduce_mean: Returns the means over all replicas of float32 tensors, and has a gradient. With it, layers
            normalise with the statistics of the global batch, and report these. None: each replica uses its own.
        num_replicas: Replicas that `reduce_mean` is over, each with the same number of examples.

    Yields:
        The statistics: moving mean and moving variance of each layer, in the order in which they were called.
    """
    collector = _Collector([], reduce_mean, num_replicas)
    token = _collector.set(collector)
    try:
        yield collector.statistics
    finally:
        _collector.reset(token)


def update_moving(moving: Sequence[tuple[keras.Variable, float]], values: Sequence[tf.Tensor]) -> None:
    """Makes `variable -= (1 - momentum) * (variable - value)`. Call it in a replica context, in a `tf.function`.

    Args:
        moving: Moving statistics and their momentum.
        values: Float32 [channels] each, in the same order; the same in all replicas.
    """
    # The training step reduces the values with the gradients, so replicas never hold different moving statistics and
    # nothing has to be merged before saving or evaluating.
    for (variable, momentum), value in zip(moving, values, strict=True):
        handle = variable.value.handle  # in a replica context, of this replica's copy
        change = (1.0 - momentum) * (tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32) - value)
        tf.raw_ops.AssignSubVariableOp(resource=handle, value=change)


@keras.saving.register_keras_serializable(package='nets')
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer over the last axis, by TensorFlow's fused kernel, with moving statistics that a caller may update.

    In training it normalises with the statistics of the batch. Inside `batch_statistics` it reports them and updates
    nothing; elsewhere, as in `Model.fit`, it moves its statistics as Keras' layer does. As in Keras, a layer with
    `trainable = False` uses its moving statistics in training too. The variables, and the statistics whatever the
    inputs are, are float32. The moving variance is that of unbiased variances, as TF1's is; Keras' is of biased ones.

    Raises:
        ValueError: An argument of Keras' layer that this one does not have.
    """

    def __init__(self, **kwargs: Any) -> None:
        for name, only in _FIXED.items():
            if kwargs.get(name, only) != only:
                raise ValueError(f'BatchNormalization {name}={kwargs[name]}: must be {only}')
        super().__init__(**kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        channels = inputs.shape[-1]
        # The kernel takes four axes.
        images = inputs if len(inputs.shape) == 4 else ops.reshape(inputs, (-1, 1, 1, channels))
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels])
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros([channels])
        if training and self.trainable:
            outputs = self._normalize_by_batch(images, gamma, beta)
        else:
            moving = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
            outputs, _, _ = self._fused(images, gamma, beta, *moving, is_training=False)
        return outputs if images is inputs else ops.reshape(outputs, ops.shape(inputs))

    def _normalize_by_batch(self, images: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        collector = _collector.get()
        if collector and collector.reduce_mean:
            mean, variance = self._global_moments(images, collector.reduce_mean)
            outputs = tf.nn.batch_normalization(tf.cast(images, tf.float32), mean, variance, beta, gamma, self.epsilon)
            outputs = tf.cast(outputs, images.dtype)
            variance *= _unbiasing(images, collector.num_replicas)
        else:
            # Forward and backward, other operations take over four times as long on a CPU.
            outputs, mean, variance = self._fused(images, gamma, beta, is_training=True)
        for variable, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            if collector:
                collector.statistics.append(Statistic(variable, tf.stop_gradient(value), self.momentum))
            else:
                variable.assign(variable * self.momentum + tf.stop_gradient(value) * (1.0 - self.momentum))
        return outputs

    def _fused(
        self, images: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *moving: tf.Tensor, is_training: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the normalised images, and in training the mean and the unbiased variance of the images."""
        return tf.compat.v1.nn.fused_batch_norm(
            images, gamma, beta, *moving, epsilon=self.epsilon, is_training=is_training
        )

    def _global_moments(self, images: tf.Tensor, reduce_mean: ReduceMean) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and the biased variance of the images of all replicas: float32 [channels] each."""
        mean, variance = tf.nn.moments(tf.cast(images, tf.float32), [0, 1, 2])
        # All replicas subtract the same, near the mean: the difference of squares then does not lose small variances.
        origin = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        mean, square = reduce_mean([mean - origin, variance + tf.square(mean - origin)])
        return mean + origin, tf.maximum(square - tf.square(mean), 0.0)


def _unbiasing(images: tf.Tensor, num_replicas: int) -> tf.Tensor:
    """Returns n / (n - 1) for the n values of a channel in all replicas; 1 for a single value."""
    values = tf.cast(num_replicas * tf.reduce_prod(tf.shape(images)[:-1]), tf.float32)
    return values / tf.maximum(values - 1.0, 1.0)
