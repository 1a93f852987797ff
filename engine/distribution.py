"""Which devices compute: one CPU, one GPU, or all GPUs of the machine, under one strategy.

strategy = make_strategy(options)
per_replica = batch_per_replica(strategy, batch_size)
"""

import contextlib
import functools
from typing import Any

import tensorflow as tf

from configs.config import DeviceOptions
from configs.errors import InputError


def make_strategy(options: DeviceOptions) -> tf.distribute.Strategy:
    """Returns a strategy over the devices that the options ask for.

    Without GPUs, `--num_clones=N` divides the CPU into N logical devices, which compute what N GPUs would.

    Raises:
        InputError: more clones than GPUs, or `--devices=gpu` without one.
    """
    return _strategy_over(*_devices(options))


@functools.cache
def _strategy_over(*devices: str) -> tf.distribute.Strategy:
    # Once for the same devices: the collectives of a second one in this process would have the keys of the first one's,
    # and TensorFlow refuses them when the shapes are not the same.
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(devices)


def _devices(options: DeviceOptions) -> list[str]:
    gpus = [] if options.devices == 'cpu' else tf.config.list_physical_devices('GPU')
    if options.devices == 'gpu' and not gpus:
        raise InputError('--devices=gpu: TensorFlow sees no GPU; install the extra "gpu", or use --devices=cpu')
    if not gpus:
        _use_only([])
        return _cpu_devices(options.num_clones or 1)
    if options.num_clones and options.num_clones > len(gpus):
        raise InputError(f'--num_clones={options.num_clones}: TensorFlow sees {len(gpus)} GPUs')
    _use_only(gpus[: options.num_clones])
    return [gpu.name for gpu in tf.config.list_logical_devices('GPU')[: options.num_clones]]


def _use_only(gpus: list[tf.config.PhysicalDevice]) -> None:
    """Leaves other GPUs alone, and takes memory as it is needed, so that an evaluation can run beside training."""
    with contextlib.suppress(RuntimeError):  # TensorFlow has started already, with the devices that it has
        tf.config.set_visible_devices(gpus, 'GPU')
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)


def _cpu_devices(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices('CPU')[0]
    if count > 1:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started already, with as many as it has
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    devices = [device.name for device in tf.config.list_logical_devices('CPU')]
    if count > len(devices):
        raise InputError(f'--num_clones={count}: TensorFlow has started with {len(devices)} CPU devices')
    return devices[:count]


def batch_per_replica(strategy: tf.distribute.Strategy, batch_size: int) -> int:
    """Returns each replica's share of the global batch.

    Raises:
        InputError: the replicas do not divide it.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise InputError(f'--batch_size={batch_size}: must be a multiple of the {replicas} replicas')
    return batch_size // replicas


class SameBatch:
    """An endless iterator whose one batch stays on the devices: each replica's share is the same."""

    def __init__(self, strategy: tf.distribute.Strategy, share: dict[str, tf.Tensor]):
        self._batch = {
            key: strategy.experimental_distribute_values_from_function(lambda _, value=value: tf.identity(value))
            for key, value in share.items()
        }

    def __iter__(self) -> 'SameBatch':
        return self

    def __next__(self) -> dict[str, Any]:
        return self._batch


def set_precision(mixed_precision: str) -> None:
    """Lets GPUs round the factors of matrix products to TensorFloat-32's 10 bits only where that is asked for.

    TensorFlow does so by default, which would move a float32 net's numbers by 1e-3.
    """
    tf.config.experimental.enable_tensor_float_32_execution(mixed_precision != 'float32')


def use_xla(options: DeviceOptions, strategy: tf.distribute.Strategy) -> bool:
    """Says whether the step is compiled by XLA; on CPUs it is slower than oneDNN's kernels (1.9 against 1.3 s)."""
    on_gpu = any('GPU' in device for device in strategy.extended.worker_devices)
    return options.xla == 'on' or (options.xla == 'auto' and on_gpu)
