"""Batch normalisation that reports its statistics to a training loop, which updates the moving averages.

    logits = model(images, training=True)          # updates them like any Keras model, as in `model.fit`
    with batch_statistics() as statistics:
        logits = model(images, training=True)      # updates nothing
    moving = [(statistic.variable, statistic.momentum) for statistic in statistics]
    values = context.all_reduce(MEAN, [statistic.value for statistic in statistics])    # with the gradients
    update_moving(moving, values)

In this project's loop, a layer that updated its own variables would do so in each replica, with the statistics of that
replica's examples only.
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

# Options of Keras' layer, with the only value that this layer supports.
_FIXED = {'axis': -1, 'synchronized': False, 'renorm': False}


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A batch's value for one of a layer's moving statistics.

    Attributes:
        variable: `moving_mean` or `moving_variance`, float32 [channels].
        value: Mean or unbiased variance of the inputs, float32 [channels]; without gradient.
        momentum: Share of `variable` that a step keeps.
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
    """Collects the statistics of `BatchNormalization` layers called inside it with `training=True`.

    Enter it in the replica function itself: replicas run in threads, and each sees only its own context.

    Args:
        reduce_mean: Differentiable mean of float32 tensors over all replicas. If given, layers normalise with the
            statistics of the global batch and report these. None: each replica uses its own.
        num_replicas: Number of replicas of `reduce_mean`, each with the same number of examples.

    Yields:
        The statistics: moving mean and moving variance of each layer, in the order of the calls.
    """
    collector = _Collector([], reduce_mean, num_replicas)
    token = _collector.set(collector)
    try:
        yield collector.statistics
    finally:
        _collector.reset(token)


def update_moving(moving: Sequence[tuple[keras.Variable, float]], values: Sequence[tf.Tensor]) -> None:
    """Updates `variable -= (1 - momentum) * (variable - value)`. Call it in a replica context, in a `tf.function`.

    Args:
        moving: Moving statistics and their momentum.
        values: float32 [channels] each, in the same order; the same in all replicas.
    """
    # The training step reduces the values with the gradients, so all replicas hold the same moving statistics and
    # nothing must be merged before saving or evaluating.
    for (variable, momentum), value in zip(moving, values, strict=True):
        handle = variable.value.handle  # in a replica context: this replica's copy
        change = (1.0 - momentum) * (tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32) - value)
        tf.raw_ops.AssignSubVariableOp(resource=handle, value=change)


@keras.saving.register_keras_serializable(package='nets')
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer over the last axis, with TensorFlow's fused kernel and moving statistics that a caller may update.

    In training it normalises with the statistics of the batch. Inside `batch_statistics` it reports them and updates
    nothing; elsewhere, as in `Model.fit`, it updates its moving statistics as Keras' layer does. As in Keras, a layer
    with `trainable = False` uses its moving statistics in training too. Variables and statistics are always float32,
    whatever the inputs are. The moving variance averages unbiased variances, as in TF1; Keras averages biased ones.

    Raises:
        ValueError: An argument of Keras' layer is not supported.
    """

    def __init__(self, **kwargs: Any) -> None:
        for name, only in _FIXED.items():
            if kwargs.get(name, only) != only:
                raise ValueError(f'BatchNormalization {name}={kwargs[name]}: must be {only}')
        super().__init__(**kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        channels = inputs.shape[-1]
        # The kernel requires four axes.
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
            # Separate operations take over four times as long on a CPU, forward and backward.
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
        """Returns the normalised images, and in training their mean and unbiased variance."""
        return tf.compat.v1.nn.fused_batch_norm(
            images, gamma, beta, *moving, epsilon=self.epsilon, is_training=is_training
        )

    def _global_moments(self, images: tf.Tensor, reduce_mean: ReduceMean) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and the biased variance of the images in all replicas: float32 [channels] each."""
        mean, variance = tf.nn.moments(tf.cast(images, tf.float32), [0, 1, 2])
        # All replicas subtract the same value, near the mean: the difference of squares then keeps small variances.
        origin = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        mean, square = reduce_mean([mean - origin, variance + tf.square(mean - origin)])
        return mean + origin, tf.maximum(square - tf.square(mean), 0.0)


def _unbiasing(images: tf.Tensor, num_replicas: int) -> tf.Tensor:
    """Returns n / (n - 1) for the n values of a channel in all replicas; 1 for a single value."""
    values = tf.cast(num_replicas * tf.reduce_prod(tf.shape(images)[:-1]), tf.float32)
    return values / tf.maximum(values - 1.0, 1.0)
