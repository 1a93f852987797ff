"""Sums over all replicas: combines gradients and losses of the replicas' shares into those of the whole batch.

    reduction = Reduction(num_replicas=8, gradient_dtype='bfloat16')
    gradients, (loss,) = reduction(gradients, [loss])       # in each replica, inside a tf.function

Gradients are sent in packs. So a hundred small ones do not cost a hundred round trips, and the packs of the last layers
can be sent while the first layers still compute theirs.
"""

from collections.abc import Sequence

import tensorflow as tf

# Measured, alexnet_v2's 200 MB over two processes and loopback: see docs/distribution.md.
_BYTES_PER_PACK = 32 * 2**20
_IMPLEMENTATIONS = {'auto': 'AUTO', 'nccl': 'NCCL', 'ring': 'RING'}

Tensors = list[tf.Tensor]


class Reduction:
    """Sums gradients and other values over all replicas.

    Attributes:
        num_replicas: Number of replicas over all workers.
        gradient_dtype: The dtype in which gradients are sent and summed.
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
        """Returns the sums over all replicas, equal on each. Call this in a replica context in a `tf.function`.

        Args:
            gradients: float32; sent and summed as `gradient_dtype`.
            others: float32; few numbers, sent and summed in float32.
        """
        if self.num_replicas == 1:
            return list(gradients), list(others)
        # One call for all, so that the loss needs no separate collective.
        if self.gradient_dtype == tf.float32:
            sums = self._sum([*gradients, *others])
            return sums[: len(gradients)], sums[len(gradients) :]
        sums = self._sum([tf.cast(gradient, self.gradient_dtype) for gradient in gradients])
        return [tf.cast(total, tf.float32) for total in sums], self._sum(list(others))

    def mean(self, values: Sequence[tf.Tensor]) -> Tensors:
        """Returns the differentiable means over all replicas."""
        return [total / self.num_replicas for total in self._sum(list(values))]

    def _sum(self, values: Tensors) -> Tensors:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values, options=self._options)

    def bytes_sent(self, count: int) -> float:
        """Returns the bytes that each replica sends to sum `count` numbers in a ring."""
        return sent_in_ring(self.num_replicas, count * self.gradient_dtype.size)


def sent_in_ring(members: int, size: float) -> float:
    """Returns the bytes that each member of a ring sends to sum arrays of `size` bytes."""
    return 2 * (members - 1) / members * size


def broadcast(strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable]) -> None:
    """Copies float32 variables bit by bit from the first replica, the chief's, to all others."""

    @tf.function(autograph=False)
    def run() -> None:
        strategy.run(replica)

    def replica() -> None:
        context = tf.distribute.get_replica_context()
        is_source = tf.equal(context.replica_id_in_sync_group, 0)
        for variable in variables:
            value = tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=tf.float32)
            # The summand must keep the chief's 0.0 and -0.0 unchanged: only -0.0 does.
            value = tf.where(is_source, value, tf.fill(tf.shape(value), -0.0))
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, value)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=total)

    run()
