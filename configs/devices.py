"""The options of devices and of workers: addresses and timeouts.

make_config(TrainConfig, worker_hosts=('node1:2222', 'node2:2222'), task=0)
"""

import dataclasses

from configs.options import Options, option
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class DeviceOptions(Options):
    """Which devices compute, and how."""

    devices: str = option('auto', 'auto: all visible GPUs, else the CPU; cpu; gpu.', choices=('auto', 'cpu', 'gpu'))
    num_clones: int | None = option(
        None,
        'Replicas on this machine: so many GPUs, or logical devices of the CPU. Default: all GPUs, or one CPU.',
        lower=1,
        upper=2**10,
    )
    xla: str = option('auto', 'Compile the step with XLA: auto (on GPUs only), on, off.', choices=('auto', 'on', 'off'))
    fast_convolutions: str = option(
        'auto',
        "Compute 3x3 and 5x5 convolutions as is fastest on CPUs, in float32 by Winograd's minimal filtering, which "
        'rounds differently: auto (on CPUs only), on, off.',
        choices=('auto', 'on', 'off'),
    )
    all_reduce: str = option(
        'auto',
        'How gradients are summed over replicas: nccl (GPUs only), ring, or auto: nccl on GPUs.',
        choices=('auto', 'nccl', 'ring'),
    )


@dataclasses.dataclass(frozen=True)
class ClusterOptions(Options):
    """Which workers train together, and which of them this process is; by default it is alone."""

    worker_hosts: tuple[str, ...] = option(
        (), 'host:port of every worker, separated by commas, the same on all; the first one is the chief.'
    )
    task: int | None = option(None, 'Which of --worker_hosts this process is, from 0.', lower=0)
    launch_workers: int = option(
        0, 'Start so many workers on this machine, and end them all when one fails; 0: none.', lower=0, upper=64
    )
    cluster: str = option(
        'auto',
        'Where to look for the workers without --worker_hosts: auto (TF_CONFIG; RANK, WORLD_SIZE and MASTER_ADDR; the '
        "variables of Open MPI and of SLURM's srun), none.",
        choices=('auto', 'none'),
    )
    worker_timeout_secs: float = option(
        120.0,
        'A worker that is not heard of, or does not go on, for so long is lost; the others then end too.',
        above=0.0,
        upper=1e6,
    )
    worker_join_timeout_secs: float = option(
        600.0, 'Seconds that workers wait for each other at the start.', above=0.0, upper=1e6
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.launch_workers and self.task is not None:
            raise InputError(f'--launch_workers={self.launch_workers} starts all its workers: give it without --task')
        if self.launch_workers and self.worker_hosts:
            raise InputError(
                f'--launch_workers={self.launch_workers} finds the addresses of its workers itself: give it without '
                '--worker_hosts, or start each of --worker_hosts with its own --task'
            )
