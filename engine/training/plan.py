"""Estimates the time of a run on a cluster by the model below: `train_image_classifier.py --plan`.

    run = planned_run(config)
    plan = make_plan(run, gradient_numbers=count_trainable(run))
    plan.step_seconds, plan.efficiency, plan.hours
    print(format_plan(plan, run))

The model. Each of W workers has D devices, and each device computes its share of a batch as fast as it does alone.
Then the gradients, G bytes, are summed: by a ring of the D devices over the worker's bus, in 2 (D - 1) / D * G / bus
seconds, and by a ring of the W workers over their links, in 2 (W - 1) / W * G / link + 2 (W - 1) * latency seconds. A
step is the sum of the three, without overlap, as gradients are reduced after the backward pass; if the first packs are
sent while the last ones are computed, a step takes less. Not counted: reading, which is assumed to keep up, evaluation,
checkpoints, and the loss and the statistics of batch normalisation, which are small, though `--sync_batch_norm` sums
the statistics layer by layer.
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
        replicas: Number of devices of all workers.
        examples_per_step: Examples per update, over all devices.
        examples_per_device: Examples per batch on each device; a step with gradient accumulation has several batches.
        gradient_numbers: Number of trainable parameters.
        bytes_sent: Bytes sent by a worker over its link per step.
        compute_seconds: Computation per step.
        communication_seconds: Communication per step.
        steps_per_epoch: May be fractional.
        steps: Steps of the whole run.
        learning_rate: The rate after `--scale_learning_rate`.
        warmup_steps: May be fractional.
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
        """Share of a step's time in which devices compute, in (0, 1]."""
        return self.compute_seconds / self.step_seconds

    @property
    def communication_share(self) -> float:
        """Share of a step's time in which devices wait for the sum of the gradients, in [0, 1)."""
        return self.communication_seconds / self.step_seconds

    @property
    def images_per_second(self) -> float:
        """Images per second over all devices."""
        return self.examples_per_step / self.step_seconds

    @property
    def hours(self) -> float:
        return self.steps * self.step_seconds / 3600


def print_plan(config: TrainConfig) -> None:
    """Prints the plan of a config's run; does not create its train_dir.

    Raises:
        InputError: training would refuse the config, or the run has no end.
    """
    config = with_default_dataset(config)
    refuse_impossible(config)
    run = planned_run(config)
    print(format_plan(make_plan(run, count_trainable(run)), run), flush=True)


def refuse_impossible(config: TrainConfig) -> None:
    """Raises training's InputErrors that depend only on the options."""
    refuse_ftrl_with_warmup(config.optimizer, config.schedule)
    check_batch_size(config.data, config.augment, config.plan.plan_workers * config.plan.plan_devices_per_worker)


def planned_run(config: TrainConfig) -> Run:
    """Returns the run assembled on one CPU of this machine, as its GPUs may be in use.

    Raises:
        InputError: training would refuse the data set, the net or the preprocessing.
    """
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu'))
    return assemble(config, SINGLE_PROCESS, strategy, _open_dataset(config.data, config.plan))


def _open_dataset(data: DataOptions, plan: PlanOptions) -> Dataset:
    """Opens the data set as in training, or with `--plan_examples` describes one of slim's without its files."""
    count = plan.plan_examples
    if count is None:
        try:
            return open_dataset(data, SINGLE_PROCESS)
        except InputError as error:
            raise InputError(f'{error}. Where the data set is not at hand, give --plan_examples') from error
    if data.dataset_name not in DATASETS:  # only its files tell the number of classes
        return dataclasses.replace(open_dataset(data, SINGLE_PROCESS), examples=SyntheticExamples(count))
    return known_dataset(data, count)


def count_trainable(run: Run) -> int:
    """Builds the net and returns its number of trainable parameters; raises as in training."""
    return sum(math.prod(variable.shape) for variable in run.state.trainable.values())


def make_plan(run: Run, gradient_numbers: int) -> Plan:
    """Returns the plan of a run with `gradient_numbers` trainable parameters, by this module's model.

    Raises:
        InputError: the batch size is not a multiple of the replicas, there are fewer examples than workers, the
            schedule lacks an option, or the run has no end.
    """
    config, dataset = run.config, run.dataset
    refuse_impossible(config)
    options, data = config.plan, config.data
    workers, devices = options.plan_workers, options.plan_devices_per_worker
    refuse_few_examples(dataset, workers)
    steps_per_epoch = dataset.num_examples / data.examples_per_step
    schedule = scaled(config.schedule, data.examples_per_step)
    steps = run.steps_left(Position())
    make_schedule(schedule, steps_per_epoch, None if math.isinf(steps) else int(steps))  # it may raise InputError
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
    """Returns the plan as text: a heading, one quantity per line, and a note on what is not counted."""
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
