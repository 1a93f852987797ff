"""Sums over all replicas: what each has computed of its share becomes what the whole batch gives.

    reduction = Reduction(num_replicas=8, gradient_dtype='bfloat16')
    gradients, (loss,) = reduction(gradients, [loss])       # in each replica, inside a tf.function

The gradients travel in packs, so that a hundred small ones do not cost a hundred round trips, and the first packs, of
the last layers, can go while the first layers still compute theirs.
"""

from collections.abc import Sequence

import tensorflow as tf

# Measured, alexnet_v2's 200 MB over two processes and loopback: see docs/distribution.md.
_BYTES_PER_PACK = 32 * 2**20
_IMPLEMENTATIONS = {'auto': 'AUTO', 'nccl': 'NCCL', 'ring': 'RING'}

Tensors = list[tf.Tensor]


class Reduction:
    """How replicas sum their gradients.

    Attributes:
        num_replicas: Over all workers.
        gradient_dtype: In which gradients travel, and are summed.
    """

    def __init__(self, num_replicas: int, gradient_dtype: str = 'float32', all_reduce: str = 'auto'):
        self.num_replicas = num_replicas
        self.gradient_dtype = tf.as_dtype(gradient_dtype)
        implementations = tf.distribute.experimental.CommunicationImplementation
        self._options = tf.distribute.experimental.CommunicationOptions(
            bytes_per_pack=_BYTES_PER_PACK,
            implementation=implementations(_IMPLEMENTATIONS[all_reduce]),
        )

    def __call__(self, gradients: Sequence[tf.Tensor], others: Sequence[tf.Tensor]) -> tuple[Tensors, Tensors]:
        """Returns the sums over all replicas, alike in each. Call it in a replica context, inside a `tf.function`.

        Args:
            gradients: float32; they travel as `gradient_dtype`.
            others: float32; small, and exact.
        """
        if self.num_replicas == 1:
            return list(gradients), list(others)
        # All in one call: the loss costs no collective of its own.
        if self.gradient_dtype == tf.float32:
            sums = self._sum([*gradients, *others])
            return sums[: len(gradients)], sums[len(gradients) :]
        sums = self._sum([tf.cast(gradient, self.gradient_dtype) for gradient in gradients])
        return [tf.cast(total, tf.float32) for total in sums], self._sum(list(others))

    def mean(self, values: Sequence[tf.Tensor]) -> Tensors:
        """Returns the means over all replicas, through which gradients flow."""
        return [total / self.num_replicas for total in self._sum(list(values))]

    def _sum(self, values: Tensors) -> Tensors:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values, options=self._options)

    def bytes_sent(self, count: int) -> float:
        """Returns the bytes that each replica sends in a ring to sum a given count of numbers."""
        return sent_in_ring(self.num_replicas, count * self.gradient_dtype.size)


def sent_in_ring(members: int, size: float) -> float:
    """Returns the bytes that each member of a ring sends to sum arrays of a given size."""
    return 2 * (members - 1) / members * size


def broadcast(strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable]) -> None:
    """Gives all replicas the values that float32 variables have in the first one, the chief's, to the bit."""

    @tf.function(autograph=False)
    def run() -> None:
        strategy.run(replica)

    def replica() -> None:
        context = tf.distribute.get_replica_context()
        is_source = tf.equal(context.replica_id_in_sync_group, 0)
        for variable in variables:
            value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32)
            # What is added to the chief's values must leave 0.0 and -0.0 as they are: only -0.0 does.
            value = tf.where(is_source, value, tf.fill(tf.shape(value), -0.0))
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, value)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=total)

    run()
