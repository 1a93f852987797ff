"""Moving averages of the weights.

    with strategy.scope():
        averages = ExponentialMovingAverage(0.9999, variables)     # by name, with their initial or restored values
    optimizer.apply(gradients, learning_rate)                      # in each replica
    averages.update(step)                                          # in each replica, after the update of the same step

They equal TF1's `tf.train.ExponentialMovingAverage(decay, num_updates=global_step)`, which slim uses.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from engine.optim.optimizers import read, resource_handle


class ExponentialMovingAverage:
    """Keeps `average -= (1 - d) * (average - variable)` with `d = min(decay, (1 + step) / (10 + step))`.

    Slim ran average and update concurrently, so the average took weights from before or after the step's update; here
    it always follows the update.

    Attributes:
        averages: The average of each variable, by its name in slim's checkpoints,
            `<variable>/ExponentialMovingAverage`.
    """

    SUFFIX = '/ExponentialMovingAverage'

    def __init__(self, decay: float, variables: Mapping[str, keras.Variable | tf.Variable]) -> None:
        """Creates the averages, equal to their variables, which must be float32 and equal on all replicas.

        Call this in the variables' strategy scope.
        """
        self.decay, self._variables = decay, dict(variables)
        self.averages = {
            name + self.SUFFIX: tf.Variable(tf.convert_to_tensor(variable), trainable=False, name=name + self.SUFFIX)
            for name, variable in variables.items()
        }

    def update(self, step: tf.Tensor) -> None:
        """Moves every average towards its variable. Call this in a replica context.

        Args:
            step: Scalar: number of steps before the current one.
        """
        step = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self.decay, (1.0 + step) / (10.0 + step))
        for name, variable in self._variables.items():
            average = resource_handle(self.averages[name + self.SUFFIX])
            # Saves a pass over memory compared with `assign_sub`: 45 M parameters, 2 cores, 36 instead of 44 ms.
            difference = read(average) - read(resource_handle(variable))
            tf.raw_ops.ResourceApplyGradientDescent(var=average, alpha=rate, delta=difference)
