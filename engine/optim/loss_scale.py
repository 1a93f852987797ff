"""Dynamic loss scaling, without which small gradients are 0 in float16.

    with strategy.scope():
        scale = LossScale()
    loss_to_differentiate = loss * scale.value()
    scale.apply(gradients, update)          # in each replica, once the gradients are reduced

Source: 'Mixed Precision Training', https://arxiv.org/abs/1710.03740; the rule is that of TensorFlow's and PyTorch's.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from engine.optim.optimizers import read, resource_handle

INITIAL_SCALE, LARGEST_SCALE, STEPS_TO_GROW = 2.0**15, 2.0**24, 2000.0


class LossScale:
    """Halves the scale, and skips the step in all replicas, where a gradient is not finite; doubles it now and then.

    Attributes:
        variables: The scale, and the steps since it last changed, by their names in a checkpoint.
    """

    SCALE, STEPS = 'loss_scale', 'loss_scale_steps'

    def __init__(self) -> None:
        """Creates the variables. Call it in the strategy scope in which the weights were made."""
        starts = {self.SCALE: INITIAL_SCALE, self.STEPS: 0.0}
        self.variables = {name: tf.Variable(start, trainable=False, name=name) for name, start in starts.items()}

    def value(self) -> tf.Tensor:
        """Returns the scale, a float32 scalar. Call it in a replica context."""
        return read(resource_handle(self.variables[self.SCALE]))

    def apply(self, gradients: Sequence[tf.Tensor], update: Callable[[list[tf.Tensor]], None]) -> None:
        """Updates with the gradients of the loss as it is, if all are finite. Call it in a replica context.

        Args:
            gradients: float32, of the scaled loss, reduced over all replicas: so all decide alike.
            update: Is given the gradients of the loss.
        """
        handles = [resource_handle(self.variables[name]) for name in (self.SCALE, self.STEPS)]
        scale, steps = (read(handle) for handle in handles)
        # A sum is finite only if all that it sums is: one pass, and no array of truth values.
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
