"""Strategies over one CPU, one GPU, all GPUs of a machine, or the devices of several machines.

strategy = make_strategy(options, cluster)
per_replica = batch_per_replica(batch_size, strategy.num_replicas_in_sync)
with naming_lost_workers(cluster): ...      # code that waits for other workers
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy
from tensorflow.python.eager import context

from configs.devices import DeviceOptions
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.distributed.tasks import check_port_is_free
from support.errors import InputError
from support.processor import this_processor

_SECONDS_FOR_NEWS = 10.0


def make_strategy(options: DeviceOptions, cluster: Cluster = SINGLE_PROCESS) -> tf.distribute.Strategy:
    """Returns a strategy over the requested devices of all workers.

    Without GPUs, `--num_clones=N` divides the CPU into N logical devices, which compute the same as N GPUs. With
    several workers, this must be a process's first use of TensorFlow.

    Raises:
        InputError: there are more clones than GPUs, `--devices=gpu` or nccl without a GPU, logical CPUs with several
            workers, or TensorFlow cannot start its server.
    """
    devices = _devices(options, cluster)
    if options.all_reduce == 'nccl' and not any('GPU' in device for device in devices):
        raise InputError('--all_reduce=nccl needs GPUs, and there are none; leave it out')
    if cluster.count == 1:
        return _strategy_over(*devices)
    return _strategy_of_workers(cluster, len(devices), is_on_gpus=any('GPU' in device for device in devices))


@functools.cache
def _strategy_over(*devices: str) -> tf.distribute.Strategy:
    # Cached: the collectives of a second strategy over the same devices would reuse the keys of the first, and
    # TensorFlow refuses them if the shapes differ.
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def _strategy_of_workers(cluster: Cluster, num_devices: int, is_on_gpus: bool) -> tf.distribute.Strategy:
    tf.get_logger().setLevel('WARNING')  # it logs a line for every compiled collective
    # `Cluster` detects lost workers: sooner than TensorFlow, by name, and without killing this process.
    collective_all_reduce_strategy.CollectiveAllReduceExtended._enable_check_health = False
    context.context().configure_coordination_service(service_type='', service_leader='')
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({'worker': list(cluster.addresses)}),
        task_type='worker',
        task_id=cluster.index,
        num_accelerators={'GPU': num_devices} if is_on_gpus else {},
        rpc_layer='grpc',
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except (RuntimeError, tf.errors.OpError) as error:
        check_port_is_free(cluster.addresses[cluster.index], 'TensorFlow cannot start its server')
        raise InputError(
            f'TensorFlow cannot start its server at {cluster.addresses[cluster.index]}: {error}'
        ) from error
    cluster.check_same({'devices': num_devices, 'on GPUs': is_on_gpus})
    cluster.watch(lambda: int(batches_taken().numpy()), _abort_collectives)
    return strategy


def _abort_collectives(why: str) -> None:
    context.context().abort_collective_ops(tf.errors.UNAVAILABLE, why)


@functools.cache
def batches_taken() -> tf.Variable:
    """Returns the counter of batches taken by this worker, an int64 scalar that shows its progress."""
    with tf.device('CPU:0'):
        return tf.Variable(0, trainable=False, dtype=tf.int64)


@contextlib.contextmanager
def naming_lost_workers(cluster: Cluster) -> Iterator[None]:
    """Replaces TensorFlow's error for a failed collective by one that names the lost worker.

    Raises:
        WorkerLostError: a worker is lost.
    """
    try:
        with cluster.working():
            yield
    except tf.errors.OpError as error:
        loss = cluster.loss(within=_SECONDS_FOR_NEWS)
        if loss is None:
            raise
        raise loss from error


def _devices(options: DeviceOptions, cluster: Cluster) -> list[str]:
    gpus = [] if options.devices == 'cpu' else tf.config.list_physical_devices('GPU')
    if len(gpus) >= cluster.local_count > 1:  # workers of one machine divide its GPUs
        gpus = gpus[cluster.local_index :: cluster.local_count][: len(gpus) // cluster.local_count]
    if options.devices == 'gpu' and not gpus:
        raise InputError('--devices=gpu: TensorFlow sees no GPU; install the extra "gpu", or use --devices=cpu')
    if not gpus:
        _use_only([])
        if cluster.count > 1 and (options.num_clones or 1) > 1:
            raise InputError(
                f'--num_clones={options.num_clones}: without GPUs each of several workers is one replica; start more'
            )
        return ['CPU:0'] if cluster.count > 1 else _cpu_devices(options.num_clones or 1)
    if options.num_clones and options.num_clones > len(gpus):
        raise InputError(f'--num_clones={options.num_clones}: TensorFlow sees {len(gpus)} GPUs')
    _use_only(gpus[: options.num_clones])
    if cluster.count > 1:  # TensorFlow must not start before its server
        return [gpu.name for gpu in gpus[: options.num_clones]]
    return [gpu.name for gpu in tf.config.list_logical_devices('GPU')[: options.num_clones]]


def _use_only(gpus: list[tf.config.PhysicalDevice]) -> None:
    """Hides all other GPUs, and allocates memory on demand so that an evaluation can run beside training."""
    with contextlib.suppress(RuntimeError):  # TensorFlow has already started with its devices
        tf.config.set_visible_devices(gpus, 'GPU')
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)


def _cpu_devices(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices('CPU')[0]
    if count > 1:
        with contextlib.suppress(RuntimeError):  # TensorFlow has already started with its devices
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    devices = [device.name for device in tf.config.list_logical_devices('CPU')]
    if count > len(devices):
        raise InputError(f'--num_clones={count}: TensorFlow has started with {len(devices)} CPU devices')
    return devices[:count]


def batch_per_replica(batch_size: int, replicas: int) -> int:
    """Returns each replica's share of the global batch.

    Raises:
        InputError: the batch size is not a multiple of the number of replicas.
    """
    if batch_size % replicas:
        raise InputError(f'--batch_size={batch_size}: must be a multiple of the {replicas} replicas')
    return batch_size // replicas


def distribute(strategy: tf.distribute.Strategy, make_batches: Callable[[], tf.data.Dataset]) -> Iterable[Any]:
    """Returns an iterable of batches for this worker's replicas in turn; each `iter` starts over.

    With one CPU it is the data set itself. A strategy over several devices prefetches each replica's batch to its
    device by an iterator with a tuning thread, see `datasets.tuning`; CPUs need no prefetching.

    Args:
        make_batches: Creates this worker's data set, which must not end before its batches are taken.
    """
    on_gpus = is_on_gpus(strategy)
    if strategy.num_replicas_in_sync == 1 and not on_gpus:
        return make_batches()
    # On GPUs there is still a tuning thread per device.
    options = tf.distribute.InputOptions(experimental_fetch_to_device=on_gpus)
    return strategy.distribute_datasets_from_function(lambda _: make_batches(), options)


def local_rows(strategy: tf.distribute.Strategy, value: Any) -> np.ndarray:
    """Returns the rows of a distributed value on this worker's replicas, concatenated."""
    rows = [np.asarray(part) for part in strategy.experimental_local_results(value)]
    return np.concatenate(rows) if len(rows) > 1 else rows[0]


class SameBatch:
    """An endless iterator over one batch that stays on the devices; all replicas have the same share."""

    def __init__(self, strategy: tf.distribute.Strategy, share: dict[str, tf.Tensor]):
        self._batch = {
            key: strategy.experimental_distribute_values_from_function(lambda _, value=value: tf.identity(value))
            for key, value in share.items()
        }

    def __iter__(self) -> 'SameBatch':
        return self

    def __next__(self) -> dict[str, Any]:
        return self._batch


def use_xla(options: DeviceOptions, strategy: tf.distribute.Strategy) -> bool:
    """Returns whether XLA compiles the step: by default only on GPUs, see `support.processor`."""
    return options.xla == 'on' or (options.xla == 'auto' and is_on_gpus(strategy))


def use_fast_convolutions(options: DeviceOptions, strategy: tf.distribute.Strategy) -> bool:
    """Returns whether to use `nets.layers.fast_convolutions`: by default never on GPUs, which have their own."""
    if options.fast_convolutions == 'auto':
        return not is_on_gpus(strategy) and this_processor().choices.fast_convolutions
    return options.fast_convolutions == 'on'


def describe_devices(strategy: tf.distribute.Strategy, cluster: Cluster) -> str:
    """Describes the devices of all workers: `1 CPU`, `2 logical CPUs`, `8 GPUs`."""
    count = strategy.num_replicas_in_sync
    kind = 'GPU' if is_on_gpus(strategy) else 'CPU' if count == cluster.count else 'logical CPU'
    return f'{count} {kind}{"s" if count > 1 else ""}'


def is_on_gpus(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether replicas compute on GPUs."""
    return any('GPU' in device for device in strategy.extended.worker_devices)
