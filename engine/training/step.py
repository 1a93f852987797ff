"""The compiled step: device stage of the preprocessing, forward, backward, reduction, update.

    run = make_steps(strategy, ReplicaStep(state, augmentation, schedule, ...), schedule, batch_size)
    report = run(iterator, position, num_steps)     # several steps a call

All random numbers of a step are drawn for the whole global batch from (seed, position in the training stream), and each
replica takes its own rows. So N replicas compute the same as one, K batches with accumulated gradients the same as one
batch of K times the size, and a step can be repeated.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from engine.distributed import distribution
from engine.evaluation import metrics
from engine.optim import losses
from engine.optim.reduction import Reduction
from engine.optim.schedules import Schedule
from engine.training.state import Position, TrainState
from nets.layers import auxiliary_logits, batch_statistics, fast_convolutions, step_randomness, update_moving
from preprocessing.augmentation import Augmentation


@dataclasses.dataclass(frozen=True)
class StepReport:
    """The results of a call of several steps.

    Attributes:
        cross_entropy: float32 [steps], mean over the global batch, before each step's update; that of auxiliary
            logits, times its weight, is included.
        accuracy: float32 [steps], share of the global batch whose greatest logit belongs to its label, before each
            step's update; the label of a mixed image is the one with the larger share.
        regularization: L2 loss before the last step's update.
        learning_rate: Learning rate of the last step.
        seconds: Duration of the call; the first one includes compilation.
        waited: Seconds in which the call waited for the input pipeline.
        communicated: Seconds in which the first replica of this worker had its gradients and waited for their sum; 0
            with one replica, and on GPUs, whose work runs asynchronously to the host's clock.
        loss_scale: The loss scale after these steps, or None.
    """

    cross_entropy: np.ndarray
    accuracy: np.ndarray
    regularization: float
    learning_rate: float
    seconds: float
    waited: float
    communicated: float = 0.0
    loss_scale: float | None = None


@functools.cache
def _compiled_device_train(augmentation: Augmentation) -> Callable[..., tf.Tensor]:
    # Cached, as an augmentation has no state and compiling takes a second.
    return tf.function(augmentation.device_train, jit_compile=True, autograph=False)


class ReplicaStep:
    """A step on one replica, to be called in its replica context."""

    def __init__(
        self,
        state: TrainState,
        augmentation: Augmentation,
        schedule: Schedule,
        reduction: Reduction,
        *,
        batch_size: int,
        num_batches: int = 1,
        seed: int,
        label_smoothing: float = 0.0,
        sync_batch_norm: bool = False,
        xla: bool = False,
        fast_convolutions: bool = False,
        auxiliary_weight: float = 0.0,
    ):
        """Prepares the step.

        Args:
            batch_size: Examples per step, over all replicas.
            num_batches: Number of parts in which each replica processes its share, one after the other.
            sync_batch_norm: Whether batch normalisation uses the statistics of all replicas.
            fast_convolutions: Whether 3x3 and 5x5 convolutions use the kernels that are fastest on CPUs.
            auxiliary_weight: Factor of the cross-entropy of the net's auxiliary logits, if it has any.
        """
        self._state = state
        self._augmentation = augmentation
        self._schedule = schedule
        self._reduction = reduction
        self._batch_size, self._num_batches = batch_size, num_batches
        self._share = batch_size // reduction.num_replicas
        self._part = self._share // num_batches
        self._seed = seed
        self._label_smoothing = label_smoothing
        self._fast_convolutions = fast_convolutions
        self._auxiliary_weight = auxiliary_weight
        self._reduce_mean = reduction.mean if sync_batch_norm and reduction.num_replicas > 1 else None
        self._moving = state.moving_statistics
        compute = self._compute_gradients if num_batches == 1 else self._accumulate_gradients
        self._gradients = tf.function(compute, jit_compile=True, autograph=False) if xla else compute
        # XLA fuses the device stage's many small passes, also on CPUs: 0.14 ms per image instead of 1.16.
        self._device_train = _compiled_device_train(augmentation)

    def __call__(
        self,
        batch: dict[str, tf.Tensor],
        step: tf.Tensor,
        images_seen: tf.Tensor,
        stream: tf.Tensor,
        regularize: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes one update.

        Args:
            batch: This replica's share: image uint8 [batch, height, width, channels], label int32 [batch].
            step: int64 scalar, number of steps before this one.
            images_seen: int64 scalar, number of examples trained on before this step.
            stream: int64 scalar, position of the batch in the training stream.
            regularize: bool scalar, whether to compute the L2 loss, which costs a pass over the weights.

        Returns:
            float32 [2] over the whole batch before the update: mean cross-entropy, with that of auxiliary logits, and
            number of correctly classified examples; the L2 loss (0 if not computed); and the seconds from the last
            gradient to the last of their sums, float64.
        """
        state, replica = self._state, tf.distribute.get_replica_context().replica_id_in_sync_group
        scale = state.loss_scale.value() if state.loss_scale else tf.constant(1.0)
        measured, statistics, gradients = self._gradients(
            batch, stream, tf.cast(replica, tf.int32) * self._share, scale
        )
        computed = _time_after(gradients)
        gradients, (measured, *statistics) = self._reduction(gradients, [measured, *statistics])
        communicated = _time_after(gradients) - computed
        l2_loss = tf.cond(
            regularize, lambda: losses.l2_loss(state.variables, state.weight_decays), lambda: tf.constant(0.0)
        )

        def update(gradients: list[tf.Tensor]) -> None:
            rate = self._schedule(images_seen / self._batch_size)
            state.optimizer.apply(dict(zip(state.trainable, gradients, strict=True)), rate)
            shares = self._reduction.num_replicas * self._num_batches
            update_moving(self._moving, [total / shares for total in statistics])
            if state.averages:
                state.averages.update(step)

        with tf.control_dependencies([l2_loss]):
            if state.loss_scale:
                state.loss_scale.apply(gradients, update)
            else:
                update(gradients)
        return measured, l2_loss, communicated

    def loss_scale(self) -> float | None:
        """Returns the current loss scale, or None."""
        scale = self._state.loss_scale
        return float(tf.convert_to_tensor(scale.variables[scale.SCALE])) if scale else None

    def _compute_gradients(
        self, batch: dict[str, tf.Tensor], stream: tf.Tensor, offset: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Computes sums over rows of the batch: loss and correct examples, float32 [2]; statistics; gradients.

        Args:
            batch: The rows: a part of the replica's share.
            stream: Position of the whole batch in the training stream.
            offset: int32 scalar, index of the first row in the whole batch.
            scale: Factor of the loss before differentiation.
        """
        seed = tf.stack([tf.constant(self._seed, tf.int64), stream])
        # For the whole batch again in each of its parts: the cost is negligible beside the net's.
        draws = self._augmentation.make_draws(seed, self._batch_size)
        draws = {name: _rows(draw, offset, self._part) for name, draw in draws.items()}
        images = self._device_train(batch['image'], draws)
        targets = self._augmentation.targets(batch['label'], draws)
        variables = [variable.value for variable in self._state.trainable.values()]
        with (
            step_randomness(seed, offset),
            batch_statistics(self._reduce_mean, self._reduction.num_replicas) as statistics,
            fast_convolutions(self._fast_convolutions),
            auxiliary_logits() as auxiliary_heads,
            tf.GradientTape(watch_accessed_variables=False) as tape,
        ):
            tape.watch(variables)
            logits = self._state.model(images, training=True)
            per_example = losses.mixed_cross_entropy(logits, targets, self._label_smoothing)
            for auxiliary in auxiliary_heads:
                of_head = losses.mixed_cross_entropy(auxiliary, targets, self._label_smoothing)
                per_example += self._auxiliary_weight * of_head
            loss = tf.reduce_sum(per_example) / self._batch_size
            scaled = loss * scale if self._state.loss_scale else loss
        values = {id(statistic.variable): statistic.value for statistic in statistics}
        measured = tf.stack([loss, tf.cast(metrics.count_recognised(logits, targets), tf.float32)])
        return measured, [values[id(kept)] for kept, _ in self._moving], tape.gradient(scaled, variables)

    def _accumulate_gradients(
        self, batch: dict[str, tf.Tensor], stream: tf.Tensor, offset: tf.Tensor, scale: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Sums the results of `_compute_gradients` over the parts of a share, one after the other."""

        def add_part(part: tf.Tensor, sums: Any) -> tuple[tf.Tensor, Any]:
            first = part * self._part
            rows = {name: _rows(values, first, self._part) for name, values in batch.items()}
            of_part = self._compute_gradients(rows, stream, offset + first, scale)
            return part + 1, tf.nest.map_structure(tf.add, sums, of_part)

        zeros = [tf.zeros(variable.shape) for variable in self._state.trainable.values()]
        start = (tf.zeros([2]), [tf.zeros(kept.shape) for kept, _ in self._moving], zeros)
        _, sums = tf.while_loop(
            lambda part, _: part < self._num_batches, add_part, (tf.constant(0), start), parallel_iterations=1
        )
        return sums


def _rows(values: tf.Tensor, first: tf.Tensor, count: int) -> tf.Tensor:
    """Returns values[first : first + count] with a number of rows that XLA knows at compile time."""
    return tf.slice(values, [first] + [0] * (len(values.shape) - 1), [count, *values.shape[1:]])


RunSteps = Callable[[Any, Position, int], StepReport]


def make_steps(
    strategy: tf.distribute.Strategy,
    replica_step: ReplicaStep,
    schedule: Schedule,
    batch_size: int,
    batches_taken: tf.Variable | None = None,
) -> RunSteps:
    """Returns `run(iterator, position, num_steps)`, which makes several steps in one call of a compiled function.

    `batches_taken`, an int64 scalar, counts the batches that have arrived; `schedule` is only for the report.
    """

    @tf.function(autograph=False)
    def run(
        iterator: Any, step: tf.Tensor, images_seen: tf.Tensor, stream: tf.Tensor, num_steps: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        def make_step(
            i: tf.Tensor, measured: tf.TensorArray, waited: tf.Tensor, communicated: tf.Tensor, _: tf.Tensor
        ) -> tuple[tf.Tensor, tf.TensorArray, tf.Tensor, tf.Tensor, tf.Tensor]:
            batch, seconds = _next_batch(strategy, iterator, batches_taken)
            done = tf.cast(i, tf.int64)
            images = done * batch_size
            arguments = (batch, step + done, images_seen + images, stream + images, i == num_steps - 1)
            of_step, l2_loss, reducing = (
                strategy.experimental_local_results(values)[0]  # the same on all replicas
                for values in strategy.run(replica_step, args=arguments)
            )
            return i + 1, measured.write(i, of_step), waited + seconds, communicated + reducing, l2_loss

        zero = tf.constant(0.0, tf.float64)
        _, measured, waited, communicated, l2_loss = tf.while_loop(
            lambda i, *_: i < num_steps,
            make_step,
            (tf.constant(0), tf.TensorArray(tf.float32, num_steps, element_shape=[2]), zero, zero, tf.constant(0.0)),
            parallel_iterations=1,
        )
        return measured.stack(), l2_loss, waited, communicated

    def call(iterator: Any, position: Position, num_steps: int) -> StepReport:
        start = time.monotonic()
        at = [tf.constant(count, tf.int64) for count in (position.step, position.images_seen, position.stream)]
        measured, l2_loss, waited, communicated = run(iterator, *at, tf.constant(num_steps, tf.int32))
        rate = schedule(tf.constant(position.images_seen / batch_size + num_steps - 1, tf.float64))
        cross_entropy, recognised = measured.numpy().T  # waits for the last step
        seconds, scale = time.monotonic() - start, replica_step.loss_scale()
        is_measured = strategy.num_replicas_in_sync > 1 and not distribution.is_on_gpus(strategy)
        reducing = float(communicated) if is_measured else 0.0
        accuracy = recognised / np.float32(batch_size)
        return StepReport(cross_entropy, accuracy, float(l2_loss), float(rate), seconds, float(waited), reducing, scale)

    return call


def _time_after(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    with tf.control_dependencies(tensors):
        return tf.timestamp()


def _next_batch(
    strategy: tf.distribute.Strategy, iterator: Any, batches_taken: tf.Variable | None
) -> tuple[Any, tf.Tensor]:
    """Returns the next batch and the seconds of waiting for it (float64 scalar)."""
    before = tf.timestamp()
    with tf.control_dependencies([before]):
        batch = next(iterator)
    arrived = [part for value in batch.values() for part in strategy.experimental_local_results(value)]
    with tf.control_dependencies(arrived):
        if batches_taken is not None:
            batches_taken.assign_add(1)
        return batch, tf.timestamp() - before
