"""The compiled step: device stage of the preprocessing, forward, backward, reduction, update.

    run = make_steps(strategy, ReplicaStep(state, preprocessing, schedule, ...), schedule, batch_size)
    report = run(iterator, position, num_steps)     # several steps a call

Everything random in a step is drawn for the whole global batch from (seed, position in the training stream); each
replica takes its own rows. So N replicas compute what one does, and a step can be repeated.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from engine import losses
from engine.position import Position
from engine.schedules import Schedule
from engine.train_state import TrainState
from nets.layers import step_randomness
from preprocessing.preprocessing_factory import Preprocessing


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What a call of several steps tells.

    Attributes:
        cross_entropy: float32 [steps], mean over the global batch, before each step's update.
        regularization: L2 loss before the last step's update.
        learning_rate: Of the last step.
        seconds: What the call took; the first one compiles.
        waited: Seconds of these in which it waited for the input pipeline.
    """

    cross_entropy: np.ndarray
    regularization: float
    learning_rate: float
    seconds: float
    waited: float


@functools.cache
def _compiled_device_train(preprocessing: Preprocessing) -> Callable[..., tf.Tensor]:
    # Once for each preprocessing, which holds no state: compiling takes a second.
    return tf.function(preprocessing.device_train, jit_compile=True, autograph=False)


class ReplicaStep:
    """One step on one replica; called in its replica context."""

    def __init__(
        self,
        state: TrainState,
        preprocessing: Preprocessing,
        schedule: Schedule,
        *,
        batch_size: int,
        num_replicas: int,
        seed: int,
        label_smoothing: float,
        xla: bool,
    ):
        self._state = state
        self._preprocessing = preprocessing
        self._schedule = schedule
        self._batch_size = batch_size
        self._num_replicas = num_replicas
        self._seed = seed
        self._label_smoothing = label_smoothing
        compute = self._compute_gradients
        self._gradients = tf.function(compute, jit_compile=True, autograph=False) if xla else compute
        # XLA fuses the device stage's many small passes, on CPUs too: 0.14 ms an image instead of 1.16.
        self._device_train = _compiled_device_train(preprocessing)

    def __call__(
        self,
        batch: dict[str, tf.Tensor],
        step: tf.Tensor,
        images_seen: tf.Tensor,
        stream: tf.Tensor,
        regularize: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes one update.

        Args:
            batch: This replica's share: image uint8 [batch, height, width, channels], label int32 [batch].
            step: int64 scalar, steps made before this one.
            images_seen: int64 scalar, examples trained on before this step.
            stream: int64 scalar, position of the batch in the training stream.
            regularize: bool scalar, whether the L2 loss is asked for; it costs a pass over the weights.

        Returns:
            This replica's share of the mean cross-entropy, and the L2 loss (0 if not asked for), before the update.
        """
        context = tf.distribute.get_replica_context()
        offset = context.replica_id_in_sync_group * (self._batch_size // self._num_replicas)
        loss, gradients = self._gradients(batch, stream, tf.cast(offset, tf.int32))
        if self._num_replicas > 1:
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        state = self._state
        l2_loss = tf.cond(
            regularize, lambda: losses.l2_loss(state.variables, state.weight_decays), lambda: tf.constant(0.0)
        )
        with tf.control_dependencies([l2_loss]):
            rate = self._schedule(images_seen / self._batch_size)
            state.optimizer.apply(dict(zip(state.trainable, gradients, strict=True)), rate)
        if state.averages:
            state.averages.update(step)
        return loss, l2_loss

    def _compute_gradients(
        self, batch: dict[str, tf.Tensor], stream: tf.Tensor, offset: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        seed = tf.stack([tf.constant(self._seed, tf.int64), stream])
        draws = self._preprocessing.make_draws(seed, self._batch_size)
        size = self._batch_size // self._num_replicas
        local_draws = {name: draw[offset : offset + size] for name, draw in draws.items()}
        images = self._device_train(batch['image'], local_draws)
        variables = [variable.value for variable in self._state.trainable.values()]
        with (
            step_randomness(seed, offset, self._batch_size),
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(variables)
            logits = self._state.model(images, training=True)
            per_example = losses.softmax_cross_entropy(logits, batch['label'], self._label_smoothing)
            loss = tf.reduce_sum(per_example) / self._batch_size
        return loss, tape.gradient(loss, variables)


RunSteps = Callable[[Any, Position, int], StepReport]


def make_steps(
    strategy: tf.distribute.Strategy, replica_step: ReplicaStep, schedule: Schedule, batch_size: int
) -> RunSteps:
    """Returns `run(iterator, position, num_steps)`: so many steps in one call of a compiled function."""

    @tf.function(autograph=False)
    def run(
        iterator: Any, step: tf.Tensor, images_seen: tf.Tensor, stream: tf.Tensor, num_steps: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        def make_step(
            i: tf.Tensor, cross_entropy: tf.TensorArray, waited: tf.Tensor, _: tf.Tensor
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.Tensor, tf.Tensor]:
            batch, seconds = _next_batch(strategy, iterator)
            done = tf.cast(i, tf.int64)
            images = done * batch_size
            arguments = (batch, step + done, images_seen + images, stream + images, i == num_steps - 1)
            shares, l2_losses = strategy.run(replica_step, args=arguments)
            cross_entropy = cross_entropy.write(i, strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None))
            return i + 1, cross_entropy, waited + seconds, strategy.experimental_local_results(l2_losses)[0]

        _, cross_entropy, waited, l2_loss = tf.while_loop(
            lambda i, *_: i < num_steps,
            make_step,
            (tf.constant(0), tf.TensorArray(tf.float32, num_steps), tf.constant(0.0, tf.float64), tf.constant(0.0)),
            parallel_iterations=1,
        )
        return cross_entropy.stack(), l2_loss, waited

    def call(iterator: Any, position: Position, num_steps: int) -> StepReport:
        start = time.monotonic()
        at = [tf.constant(count, tf.int64) for count in (position.step, position.images_seen, position.stream)]
        cross_entropy, l2_loss, waited = run(iterator, *at, tf.constant(num_steps, tf.int32))
        rate = schedule(tf.constant(position.images_seen / batch_size + num_steps - 1, tf.float64))
        losses_of_steps = cross_entropy.numpy()  # waits for the last step
        return StepReport(losses_of_steps, float(l2_loss), float(rate), time.monotonic() - start, float(waited))

    return call


def _next_batch(strategy: tf.distribute.Strategy, iterator: Any) -> tuple[Any, tf.Tensor]:
    """Returns the next batch and the seconds (float64 scalar) that it took to come."""
    before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    arrived = [part for value in batch.values() for part in strategy.experimental_local_results(value)]
    with tf.control_dependencies(arrived):
        return batch, tf.timestamp() - before
