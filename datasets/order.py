"""The order in which training takes examples: a pure function of seed and position.

    order = make_order(num_examples=50_000, num_files=1, seed=0, worker=Worker(index=1, count=4), batch_size=32)
    positions = order.positions(k, 32)         # in the stream of all workers, of this one's examples from the k-th on
    numbers = order.numbers(positions)         # which examples stand there

Training reads an endless stream of positions 0, 1, 2, ...: position p belongs to epoch p // n. Each epoch is a
permutation of the whole split, computed by a block cipher for any index alone: there is no shuffle buffer to fill, to
size or to restore.
"""

import dataclasses

import tensorflow as tf

# `tf.random.experimental.index_shuffle` fixes 4 rounds, after which consecutive epochs of 50,000 examples correlate by
# up to 0.76. From 8 on, correlations within and between epochs are those of random permutations.
_SHUFFLE_ROUNDS = 16


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of several processes that each read a share of every batch.

    Attributes:
        index: Which it is.
        count: How many there are.
        own_files: Whether each reads files of its own where there are enough; the batches then depend on `count`.
    """

    index: int
    count: int
    own_files: bool = True


ONE_WORKER = Worker(index=0, count=1)


@dataclasses.dataclass(frozen=True)
class Order:
    """Which example stands where, and which positions are this worker's.

    Where every worker reads all files, batches are those of a single worker, whatever the number of workers.

    Otherwise each worker reads a range of the split, which are files of its own but for those at its ends: worker w
    takes the positions w, w + W, w + 2 W, ... of the stream. How many of them an epoch holds differs by one between
    workers and, as the split need not be divisible, between epochs; the ranges follow these counts, so that the workers
    together take every example exactly once an epoch.

    Attributes:
        num_examples: Examples of an epoch.
        seed: Of the permutations.
        worker: Who reads.
        batch_size: Examples that this worker gives to each batch.
        has_ranges: Whether each worker reads a range of its own.
    """

    num_examples: int
    seed: int
    worker: Worker
    batch_size: int
    has_ranges: bool

    @property
    def stride(self) -> int:
        """How far the next position is at which the example is one of this worker's files."""
        return self.worker.count if self.has_ranges else 1

    def positions(self, first: tf.Tensor, count: int) -> tf.Tensor:
        """Returns int64 [count]: where this worker's examples `first`, `first` + 1, ... stand in the stream."""
        k = first + tf.range(count, dtype=tf.int64)
        if self.has_ranges:
            return k * self.worker.count + self.worker.index
        batch, row = k // self.batch_size, k % self.batch_size
        return (batch * self.worker.count + self.worker.index) * self.batch_size + row

    def numbers(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns the examples, int64 in 0 .. num_examples - 1, at int64 [n] positions of one worker.

        Many at once take little more time than one.
        """
        n, count = self.num_examples, self.worker.count
        epochs, places = positions // n, positions % n
        if not self.has_ranges:
            return _permuted(places, tf.constant(n, tf.int64), _keys(epochs, self.seed))
        worker = positions[0] % count
        # [positions, workers]: at which place of the epoch each worker comes first, how many places are its own.
        firsts = (tf.range(count, dtype=tf.int64) - epochs[:, tf.newaxis] * n) % count
        sizes = (n - firsts + count - 1) // count
        before = tf.reduce_sum(tf.where(tf.range(count, dtype=tf.int64) < worker, sizes, 0), axis=1)
        first, size = firsts[:, worker], sizes[:, worker]
        keys = _keys(epochs * count + worker, self.seed)
        return before + _permuted((places - first) // count, size, keys)


def make_order(num_examples: int, num_files: int, seed: int, worker: Worker, batch_size: int) -> Order:
    """Returns the order for a worker: of files of its own if it wants that and there are enough, else of all."""
    # All files by default, and with fewer files than workers: batches, and so results, do not depend on the number of
    # workers, which may change in a run. Own files trade that for less reading.
    has_ranges = worker.own_files and 1 < worker.count <= num_files
    return Order(num_examples, seed, worker, batch_size, has_ranges)


def _permuted(index: tf.Tensor, size: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Returns where permutations of 0 .. size - 1 take int64 [n] `index`; another permutation for each of the keys."""
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=keys, max_index=size - 1, rounds=_SHUFFLE_ROUNDS)


def _keys(numbers: tf.Tensor, seed: int) -> tf.Tensor:
    """Returns uint32 [n, 3]: a key for each seed and int64 [n] number, of which there are few different ones."""
    # For up to 65,536 examples the cipher looks at 8 bits of each word of its key. If the epoch were a word, epoch 256
    # would repeat epoch 0; drawn from seed and epoch, the key has 24 bits of both.
    different, which = tf.unique(numbers)
    keys = tf.map_fn(
        lambda number: tf.random.stateless_uniform(
            [3], tf.stack([tf.constant(seed, tf.int64), number]), None, None, tf.uint32, alg='philox'
        ),
        different,
        fn_output_signature=tf.TensorSpec([3], tf.uint32),
    )
    return tf.gather(keys, which)
