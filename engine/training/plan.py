"""The estimated time of a run on a cluster, by the model below: `train_image_classifier.py --plan`.

    run = planned_run(config)
    plan = make_plan(run, gradient_numbers=count_trainable(run))
    plan.step_seconds, plan.efficiency, plan.hours
    print(format_plan(plan, run))

The model. Each of W workers has D devices, and each device computes its share of a batch as fast as it does alone.
Then the gradients, G bytes, are summed: by a ring of the D devices over the worker's bus, in 2 (D - 1) / D * G / bus
seconds, and by a ring of the W workers over their links, in 2 (W - 1) / W * G / link + 2 (W - 1) * latency seconds. A
step is the sum of the three: none is taken to overlap, as gradients are reduced after the backward pass; where the
first packs go while the last ones are computed, a step takes less. Not counted are reading, which is to keep up,
evaluation, checkpoints, and the loss and the statistics of batch normalisation, which are small, but which
`--sync_batch_norm` sums layer by layer.
"""

import dataclasses
import math

import tensorflow as tf

from configs.training import DataOptions, DeviceOptions, PlanOptions, TrainConfig
from datasets.dataset_factory import DATASETS, Dataset
from datasets.synthetic import SyntheticExamples
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS
from engine.optim.reduction import sent_in_ring
from engine.optim.schedules import make_schedule, scaled
from engine.training.setup import (
    Run,
    assemble,
    check_batch_size,
    known_dataset,
    open_dataset,
    refuse_few_examples,
    refuse_ftrl_with_warmup,
    with_default_dataset,
)
from engine.training.state import Position
from support.errors import InputError
from support.tables import format_table


@dataclasses.dataclass(frozen=True)
class Plan:
    """The estimate for a run.

    Attributes:
        replicas: Devices of all workers.
        examples_per_step: Of one update, over all devices.
        examples_per_device: Of one batch; a step of accumulated gradients has several.
        gradient_numbers: Count of the trainable numbers.
        bytes_sent: By a worker over its link, in each step.
        compute_seconds: Of a step.
        communication_seconds: Of a step.
        steps_per_epoch: Need not be whole.
        steps: Of the whole run.
        learning_rate: After `--scale_learning_rate`.
        warmup_steps: Need not be whole.
    """

    replicas: int
    examples_per_step: int
    examples_per_device: int
    gradient_numbers: int
    bytes_sent: float
    compute_seconds: float
    communication_seconds: float
    steps_per_epoch: float
    steps: int
    learning_rate: float
    warmup_steps: float

    @property
    def step_seconds(self) -> float:
        return self.compute_seconds + self.communication_seconds

    @property
    def efficiency(self) -> float:
        """Share of a step in which devices compute, in (0, 1]."""
        return self.compute_seconds / self.step_seconds

    @property
    def communication_share(self) -> float:
        """Share of a step in which devices wait for the sum of the gradients, in [0, 1)."""
        return self.communication_seconds / self.step_seconds

    @property
    def images_per_second(self) -> float:
        """Over all devices."""
        return self.examples_per_step / self.step_seconds

    @property
    def hours(self) -> float:
        return self.steps * self.step_seconds / 3600


def print_plan(config: TrainConfig) -> None:
    """Prints the plan of what the config says; makes no train_dir.

    Raises:
        InputError: what training would refuse, or a run without an end.
    """
    config = with_default_dataset(config)
    refuse_impossible(config)
    run = planned_run(config)
    print(format_plan(make_plan(run, count_trainable(run)), run), flush=True)


def refuse_impossible(config: TrainConfig) -> None:
    """Refuses, in training's words, what is seen from the options alone."""
    refuse_ftrl_with_warmup(config.optimizer, config.schedule)
    check_batch_size(config.data, config.augment, config.plan.plan_workers * config.plan.plan_devices_per_worker)


def planned_run(config: TrainConfig) -> Run:
    """Returns the run as this machine can look at it: on one CPU, for others may be using the GPUs.

    Raises:
        InputError: what training would refuse: a data set, a net, a preprocessing.
    """
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu'))
    return assemble(config, SINGLE_PROCESS, strategy, _open_dataset(config.data, config.plan))


def _open_dataset(data: DataOptions, plan: PlanOptions) -> Dataset:
    """Opens the data set as training does, or describes it by its name where `--plan_examples` replaces its files."""
    count = plan.plan_examples
    if count is None:
        try:
            return open_dataset(data, SINGLE_PROCESS)
        except InputError as error:
            raise InputError(f'{error}. Where the data set is not at hand, give --plan_examples') from error
    if data.dataset_name not in DATASETS:  # how many classes it has, only its files say
        return dataclasses.replace(open_dataset(data, SINGLE_PROCESS), examples=SyntheticExamples(count))
    return known_dataset(data, count)


def count_trainable(run: Run) -> int:
    """Makes the net, and returns how many numbers of it are trained; raises as training would."""
    return sum(math.prod(variable.shape) for variable in run.state.trainable.values())


def make_plan(run: Run, gradient_numbers: int) -> Plan:
    """Returns the plan of a run that trains `gradient_numbers` numbers, by the model at the head of this file.

    Raises:
        InputError: replicas that do not divide the batch, fewer examples than workers, a schedule that lacks what it
            needs, or a run without an end.
    """
    config, dataset = run.config, run.dataset
    refuse_impossible(config)
    options, data = config.plan, config.data
    workers, devices = options.plan_workers, options.plan_devices_per_worker
    refuse_few_examples(dataset, workers)
    steps_per_epoch = dataset.num_examples / data.examples_per_step
    schedule = scaled(config.schedule, data.examples_per_step)
    steps = run.steps_left(Position())
    make_schedule(schedule, steps_per_epoch, None if math.isinf(steps) else int(steps))  # which may refuse it
    if math.isinf(steps):
        raise InputError(
            '--plan: training without --max_number_of_steps or --num_epochs goes on until it is stopped; give one of '
            'them'
        )
    assert options.plan_images_per_second is not None  # PlanOptions needs it
    gradient_bytes = gradient_numbers * tf.as_dtype(config.optimizer.gradient_dtype).size
    bytes_sent = sent_in_ring(workers, gradient_bytes)
    over_links = bytes_sent / (options.plan_link_gbits * 1e9 / 8) + 2 * (workers - 1) * options.plan_latency_us * 1e-6
    over_bus = sent_in_ring(devices, gradient_bytes) / (options.plan_bus_gbytes * 1e9)
    return Plan(
        replicas=workers * devices,
        examples_per_step=data.examples_per_step,
        examples_per_device=data.batch_size // (workers * devices),
        gradient_numbers=gradient_numbers,
        bytes_sent=bytes_sent,
        compute_seconds=data.examples_per_step / (workers * devices) / options.plan_images_per_second,
        communication_seconds=over_links + over_bus,
        steps_per_epoch=steps_per_epoch,
        steps=int(steps),
        learning_rate=schedule.learning_rate,
        warmup_steps=steps_per_epoch * schedule.warmup_epochs,
    )


def format_plan(plan: Plan, run: Run) -> str:
    """Returns the plan as lines of text: a heading, a quantity a line, and what it leaves out."""
    config, dataset = run.config, run.dataset
    options, parts = config.plan, config.data.gradient_accumulation_steps
    heading = (
        f'plan: {config.net.model_name} on {dataset.name}, split {dataset.split}: {dataset.num_examples} examples, '
        f'{plan.gradient_numbers} numbers to train'
    )
    in_parts = f' in {parts} parts' if parts > 1 else ''
    speed = f'{options.plan_images_per_second:g} images/s'
    rows = [
        ('workers', f'{options.plan_workers} with {options.plan_devices_per_worker} devices each of {speed}'),
        ('links', f'{options.plan_link_gbits:g} Gbit/s, {options.plan_latency_us:g} us'),
        ('buses', f'{options.plan_bus_gbytes:g} GB/s'),
        ('examples a step', f'{plan.examples_per_step}{in_parts} ({plan.examples_per_device} on each device)'),
        ('steps an epoch', f'{plan.steps_per_epoch:.1f}'),
        ('steps', f'{plan.steps} ({plan.steps / plan.steps_per_epoch:.1f} epochs)'),
        ('learning rate', f'{plan.learning_rate:g}'),
        ('warm-up steps', f'{plan.warmup_steps:.0f}'),
        ('bytes sent by a worker each step', f'{plan.bytes_sent:.0f} ({config.optimizer.gradient_dtype})'),
        ('computation', f'{plan.compute_seconds:.4g} s a step'),
        ('communication', f'{plan.communication_seconds:.4g} s a step ({plan.communication_share:.1%})'),
        ('both', f'{plan.step_seconds:.4g} s a step'),
        ('images/s', f'{plan.images_per_second:.0f}'),
        ('efficiency', f'{plan.efficiency:.1%} of {plan.replicas} devices'),
        ('time', f'{plan.hours:.2f} h'),
    ]
    left_out = (
        'Communication is taken not to overlap with computation; reading, evaluation and checkpoints are not counted.'
    )
    return '\n'.join([heading, format_table(rows, indent='  '), left_out])
