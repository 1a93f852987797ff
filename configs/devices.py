"""The options of devices and of workers: addresses and timeouts.

make_config(TrainConfig, worker_hosts=('node1:2222', 'node2:2222'), task=0)
"""

import dataclasses

from configs.options import Options, option
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class DeviceOptions(Options):
    """Devices."""

    devices: str = option(
        'auto', 'auto: all visible GPUs, otherwise the CPU; cpu; gpu.', choices=('auto', 'cpu', 'gpu')
    )
    num_clones: int | None = option(
        None,
        'Replicas on this machine: number of GPUs, or of logical CPU devices. Default: all GPUs, or one CPU.',
        lower=1,
        upper=2**10,
    )
    xla: str = option('auto', 'Compile the step with XLA: auto (on GPUs only), on, off.', choices=('auto', 'on', 'off'))
    fast_convolutions: str = option(
        'auto',
        "Compute 3x3 and 5x5 convolutions in the way that is fastest on CPUs (float32: Winograd's minimal filtering, "
        'which rounds differently): auto (on CPUs only), on, off.',
        choices=('auto', 'on', 'off'),
    )
    all_reduce: str = option(
        'auto',
        'Algorithm that sums gradients over replicas: nccl (GPUs only), ring, or auto (nccl on GPUs).',
        choices=('auto', 'nccl', 'ring'),
    )


@dataclasses.dataclass(frozen=True)
class ClusterOptions(Options):
    """Distributed training and evaluation; by default, this process works alone."""

    worker_hosts: tuple[str, ...] = option(
        (), 'host:port of every worker, separated by commas, the same list on all workers; the first is the chief.'
    )
    task: int | None = option(None, 'Index of this process in --worker_hosts, from 0.', lower=0)
    launch_workers: int = option(
        0,
        'Start this many workers on this machine, and stop all of them if one fails; 0 starts none.',
        lower=0,
        upper=64,
    )
    cluster: str = option(
        'auto',
        'Where to find the workers without --worker_hosts: auto (TF_CONFIG; RANK, WORLD_SIZE and MASTER_ADDR; the '
        "variables of Open MPI and of SLURM's srun), or none.",
        choices=('auto', 'none'),
    )
    worker_timeout_secs: float = option(
        120.0,
        'Seconds without a sign of life or progress after which a worker counts as lost; the other workers then stop '
        'too.',
        above=0.0,
        upper=1e6,
    )
    worker_join_timeout_secs: float = option(
        600.0, 'Seconds that workers wait for each other at startup.', above=0.0, upper=1e6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.launch_workers and self.task is not None:
            raise InputError(f'--launch_workers={self.launch_workers} starts all workers itself: leave out --task')
        if self.launch_workers and self.worker_hosts:
            raise InputError(
                f'--launch_workers={self.launch_workers} chooses the addresses of its workers itself: leave out '
                '--worker_hosts, or start each of --worker_hosts with its own --task'
            )
