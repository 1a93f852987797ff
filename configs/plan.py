"""The options of `train_image_classifier.py --plan`: for which cluster a run is planned, and how fast its parts are.

make_config(TrainConfig, plan=True, plan_workers=64, plan_devices_per_worker=8, plan_images_per_second=2000.0)

Workers and devices are those of the plan: what says who trains here (`--num_clones`, `--worker_hosts`,
`--launch_workers`) has no effect on it.
"""

import dataclasses

from configs.options import Options, option
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class PlanOptions(Options):
    """What is planned for; nothing of it changes a run."""

    plan: bool = option(False, 'Print what the run would take on a cluster, by a simple model, instead of training.')
    plan_workers: int = option(1, 'Machines of the cluster.', lower=1, upper=2**20)
    plan_devices_per_worker: int = option(1, 'GPUs of each machine.', lower=1, upper=2**20)
    plan_images_per_second: float | None = option(
        None,
        'Needed: images/s of one device at its share of the batch, as benchmark_image_classifier.py --mode=step '
        'measures it.',
        above=0.0,
    )
    plan_link_gbits: float = option(
        10.0, "Bandwidth of a machine's network link each way, in Gbit/s; 10 is 10-gigabit Ethernet.", above=0.0
    )
    # What the standards allow, here and of the link: what is measured is less.
    plan_bus_gbytes: float = option(
        31.5,
        'Bandwidth between the devices of one machine each way, in GB/s; 31.5 is PCIe 4.0 with 16 lanes: 16 GT/s each, '
        '128 bits in 130. NVLink has hundreds.',
        above=0.0,
    )
    plan_latency_us: float = option(50.0, 'Microseconds that a message between machines takes at least.', lower=0.0)
    plan_examples: int | None = option(
        None,
        "Training examples, where the files of one of slim's data sets are not at hand: imagenet has 1281167. "
        'Default: those of --dataset_dir.',
        lower=1,
        upper=2**40,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan and self.plan_images_per_second is None:
            raise InputError(
                '--plan needs --plan_images_per_second, that of one device at its share of the batch: measure it with '
                'python benchmark_image_classifier.py --mode=step --batch_size=<share>'
            )
        for field in dataclasses.fields(self):
            if not self.plan and getattr(self, field.name) != field.default:  # who forgets --plan would train instead
                raise InputError(f'--{field.name}={getattr(self, field.name)}: of no use without --plan; leave it out')
