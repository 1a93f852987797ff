"""Dynamic loss scaling, which keeps small gradients from underflowing to 0 in float16.

    with strategy.scope():
        scale = LossScale()
    loss_to_differentiate = loss * scale.value()
    scale.apply(gradients, update)          # in each replica, once the gradients are reduced

Source: 'Mixed Precision Training', https://arxiv.org/abs/1710.03740; the same rule as in TensorFlow and PyTorch.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from engine.optim.optimizers import read, resource_handle

INITIAL_SCALE, LARGEST_SCALE, STEPS_TO_GROW = 2.0**15, 2.0**24, 2000.0


class LossScale:
    """Halves the scale and skips the step on all replicas if a gradient is not finite; doubles it periodically.

    Attributes:
        variables: The scale and the number of steps since its last change, by their names in a checkpoint.
    """

    SCALE, STEPS = 'loss_scale', 'loss_scale_steps'

    def __init__(self) -> None:
        """Creates the variables. Call this in the weights' strategy scope."""
        starts = {self.SCALE: INITIAL_SCALE, self.STEPS: 0.0}
        self.variables = {name: tf.Variable(start, trainable=False, name=name) for name, start in starts.items()}

    def value(self) -> tf.Tensor:
        """Returns the scale, a float32 scalar. Call this in a replica context."""
        return read(resource_handle(self.variables[self.SCALE]))

    def apply(self, gradients: Sequence[tf.Tensor], update: Callable[[list[tf.Tensor]], None]) -> None:
        """Calls `update` with the unscaled gradients if all are finite. Call this in a replica context.

        Args:
            gradients: float32 gradients of the scaled loss, reduced over all replicas, so that all decide alike.
            update: Called with the gradients of the unscaled loss.
        """
        handles = [resource_handle(self.variables[name]) for name in (self.SCALE, self.STEPS)]
        scale, steps = (read(handle) for handle in handles)
        # A sum is finite only if all its terms are: one pass, and no array of booleans.
        is_finite = tf.math.is_finite(tf.add_n([tf.reduce_sum(gradient) for gradient in gradients]))

        def make_step() -> tf.Tensor:
            update([gradient / scale for gradient in gradients])
            return tf.constant(True)

        made = tf.cond(is_finite, make_step, lambda: tf.constant(False))
        grows = steps + 1.0 >= STEPS_TO_GROW
        larger = tf.minimum(tf.where(grows, 2.0 * scale, scale), LARGEST_SCALE)
        smaller = tf.maximum(0.5 * scale, 1.0)
        with tf.control_dependencies([made]):
            next_steps = tf.where(is_finite & ~grows, steps + 1.0, 0.0)
            for handle, value in zip(handles, (tf.where(is_finite, larger, smaller), next_steps), strict=True):
                tf.raw_ops.AssignVariableOp(resource=handle, value=value)
