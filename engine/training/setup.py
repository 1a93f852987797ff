"""Assembles a run from a config: net, data, devices, and the parts that train.

    with join_cluster(config) as cluster:
        run = open_run(config, cluster)
        run_steps, batches = run.make_steps(end=100), run.make_input(num_steps=100)
        report = run_steps(batches.make_iterator(first_image=0), Position(), 10)

Training, the benchmarks, `--plan` and `--summary` all use it, so that they refuse an impossible config with the same
messages.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from configs.options import replace_options
from configs.training import AugmentOptions, DataOptions, NetOptions, OptimizerOptions, ScheduleOptions, TrainConfig
from datasets import dataset_factory, decoded, records
from datasets.dataset_factory import DATASETS, Dataset
from datasets.synthetic import SyntheticExamples
from engine.classifiers.model_spec import ModelSpec
from engine.distributed import distribution
from engine.distributed.cluster import Cluster
from engine.distributed.kernels import set_precision
from engine.optim.reduction import Reduction
from engine.optim.schedules import make_schedule, scaled
from engine.runs.length import steps_left
from engine.training.input import BadImages, TrainInput
from engine.training.state import Position, TrainState, make_state
from engine.training.step import ReplicaStep, RunSteps, make_steps
from nets.nets_factory import get_net
from preprocessing.augmentation import make_augmentation
from preprocessing.preprocessing_factory import Preprocessing
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run. Parts that take time or memory are created on first use.

    Attributes:
        config: All its options.
        cluster: Its workers.
        strategy: The strategy over the devices of all workers.
        dataset: The training examples.
        spec: Its net and preprocessing.
        preprocessing: The preprocessing with the run's augmentation.
    """

    config: TrainConfig
    cluster: Cluster
    strategy: tf.distribute.Strategy
    dataset: Dataset
    spec: ModelSpec
    preprocessing: Preprocessing

    @functools.cached_property
    def state(self) -> TrainState:
        """The net with its initial weights, the optimizer's slots and the moving averages.

        All workers must access it for the first time together, because they exchange its initial values.

        Raises:
            InputError: as `make_state`.
        """
        with self.strategy.scope():
            return make_state(self.config, self.spec)

    def steps_left(self, position: Position) -> float:
        """Returns the number of steps that remain, infinity if training has no end.

        `engine.runs.length` has the rule.
        """
        config = self.config
        return steps_left(
            config.length,
            self.dataset.name,
            self.dataset.num_examples,
            config.data.examples_per_step,
            position.step,
            position.images_seen,
        )

    def make_steps(self, end: float) -> RunSteps:
        """Returns the compiled function that makes several steps.

        Args:
            end: The step at which the learning rate's schedule ends, or infinity.

        Raises:
            InputError: the schedule lacks an option, or `--xla=on` is given but XLA cannot compile the step.
        """
        config, state, strategy = self.config, self.state, self.strategy
        batch_size, num_examples = config.data.examples_per_step, self.dataset.num_examples
        schedule = make_schedule(
            scaled(config.schedule, batch_size), num_examples / batch_size, None if math.isinf(end) else int(end)
        )
        replica_step = ReplicaStep(
            state,
            make_augmentation(self.preprocessing, num_examples),
            schedule,
            Reduction(strategy.num_replicas_in_sync, config.optimizer.gradient_dtype, config.devices.all_reduce),
            batch_size=batch_size,
            num_batches=config.data.gradient_accumulation_steps,
            seed=config.data.seed,
            label_smoothing=config.loss.label_smoothing,
            sync_batch_norm=config.net.sync_batch_norm,
            xla=self._uses_xla(),
            fast_convolutions=distribution.use_fast_convolutions(config.devices, strategy),
            auxiliary_weight=get_net(config.net.model_name).auxiliary_weight,
        )
        return make_steps(strategy, replica_step, schedule, batch_size, distribution.batches_taken())

    def _uses_xla(self) -> bool:
        # XLA cannot compile the exchange of batch statistics, which happens within the compiled function.
        has_statistics = self.config.net.sync_batch_norm and bool(self.state.moving_statistics)
        exchanges = has_statistics and self.strategy.num_replicas_in_sync > 1
        if exchanges and self.config.devices.xla == 'on':
            raise InputError(
                '--xla=on: XLA cannot compile --sync_batch_norm over several replicas; leave one of them out'
            )
        return distribution.use_xla(self.config.devices, self.strategy) and not exchanges

    def make_input(self, num_steps: float, skips_bad_images: bool = False) -> TrainInput:
        """Returns the source of the run's batches, with decoded images cached according to `--cache`.

        Args:
            num_steps: Number of steps to make, or infinity if unknown; `--cache=auto` depends on it.
            skips_bad_images: Whether images that cannot be decoded are skipped instead of causing an error.

        Raises:
            InputError: as `decoded.with_cache` and `cache_mode`.
        """
        data, preprocessing = self.config.data, self.preprocessing
        passes = num_steps * data.examples_per_step / self.dataset.num_examples
        dataset = decoded.with_cache(
            self.dataset, cache_mode(data), preprocessing.source_channels, passes, keeps_bad=skips_bad_images
        )
        bad_images = BadImages(data, dataset, preprocessing, self.cluster) if skips_bad_images else None
        return TrainInput(data, dataset, preprocessing, self.strategy, self.cluster, bad_images)


def open_run(config: TrainConfig, cluster: Cluster, open_data: Callable[[], Dataset] | None = None) -> Run:
    """Opens a config's run: devices first, then the data, then the net's description.

    Args:
        config: Names a data set, see `with_default_dataset`.
        cluster: The workers, which must all call this.
        open_data: Opens a data set in place of the config's training data.

    Raises:
        InputError: the devices, the batch size, the data or the net are invalid or not available.
    """
    strategy = distribution.make_strategy(config.devices, cluster)
    replicas = strategy.num_replicas_in_sync
    check_batch_size(config.data, config.augment, replicas)
    set_precision(config.net.mixed_precision, strategy)
    refuse_parts_with_sync(config.data, config.net, replicas)
    if open_data is None:
        logging.info(
            'training %s on %s: opening %s, then building the net',
            config.net.model_name, distribution.describe_devices(strategy, cluster), config.data.dataset_name,
        )  # fmt: skip
        dataset = open_dataset(config.data, cluster)
    else:
        dataset = open_data()
    return assemble(config, cluster, strategy, dataset)


def assemble(config: TrainConfig, cluster: Cluster, strategy: tf.distribute.Strategy, dataset: Dataset) -> Run:
    """Returns the run of a config on open devices and data.

    Raises:
        InputError: the net or the preprocessing is unknown, or does not support an option.
    """
    spec = make_spec(config.net, config.data, dataset)
    return Run(config, cluster, strategy, dataset, spec, spec.make_preprocessing(config.augment))


def with_default_dataset(config: TrainConfig) -> TrainConfig:
    """Returns the config with a data set: by default imagenet, as in slim; without a folder, digits with evaluation."""
    data = config.data
    if data.dataset_name is not None:
        return config
    if data.dataset_dir is not None:
        return replace_options(config, dataset_name='imagenet')
    logging.info(
        'no --dataset_dir: using the embedded %s (configs/alexnet_v2_digits.cfg reaches a higher accuracy)',
        dataset_factory.EMBEDDED,
    )
    every = {} if config.evaluation.is_wanted else {'eval_every_epochs': 5.0}
    return replace_options(config, dataset_name=dataset_factory.EMBEDDED, **every)


def open_dataset(data: DataOptions, cluster: Cluster) -> Dataset:
    """Opens the training data, first on the chief, which may download or write it.

    Raises:
        InputError: as `get_dataset`, or the workers' data differ, or there are more workers than examples.
    """
    dataset = cluster.after_chief(
        lambda: dataset_factory.get_dataset(
            data.dataset_name or '',
            data.dataset_dir,
            data.dataset_split_name,
            data.labels_offset,
            record_names=records.names_from(data),
        )
    )
    cluster.check_same({'examples': dataset.identity()})
    refuse_few_examples(dataset, cluster.count)
    return dataset


def known_dataset(data: DataOptions, num_examples: int) -> Dataset:
    """Returns one of slim's data sets with its known classes and channels; does not need its files.

    Raises:
        InputError: `--labels_offset` leaves fewer than two classes.
    """
    name = data.dataset_name or ''
    known, examples = DATASETS[name], SyntheticExamples(num_examples)
    num_classes = known.num_classes - data.labels_offset
    if num_classes < 2:
        raise InputError(f'--labels_offset={data.labels_offset} leaves {num_classes} of {known.num_classes} classes')
    return Dataset(name, '', data.dataset_split_name, examples, num_classes, data.labels_offset, (), known.channels)


def make_spec(net: NetOptions, data: DataOptions, dataset: Dataset) -> ModelSpec:
    """Returns the spec of the net and preprocessing that the options select for a data set."""
    return ModelSpec.for_dataset(
        dataset,
        net.model_name,
        preprocessing_name=data.preprocessing_name,
        image_size=net.train_image_size,
        depth_multiplier=net.depth_multiplier,
        use_grayscale=data.use_grayscale,
        global_pool=net.global_pool,
        channels=data.channels,
    )


def cache_mode(data: DataOptions) -> str:
    """Returns the effective `--cache`: 'off' if a tf.data service decodes the images.

    Raises:
        InputError: both a cache and a tf.data service are asked for.
    """
    if data.data_service is None:
        return data.cache
    if data.cache not in ('auto', 'off'):
        raise InputError(f'--cache={data.cache}: --data_service decodes elsewhere; leave one of them out')
    return 'off'


def refuse_ftrl_with_warmup(optimizer: OptimizerOptions, schedule: ScheduleOptions) -> None:
    """Raises InputError for ftrl with a warm-up: ftrl divides by the learning rate, which is 0 at step 0."""
    if optimizer.optimizer == 'ftrl' and schedule.warmup_epochs:
        raise InputError(
            f'--warmup_epochs={schedule.warmup_epochs}: starts with a learning rate of 0, by which '
            '--optimizer=ftrl divides; leave it out, or choose another optimizer'
        )


def check_batch_size(data: DataOptions, augment: AugmentOptions, replicas: int) -> None:
    """Raises InputError if the batch size is not a multiple of the replicas, or a share is odd but images are mixed."""
    per_replica = distribution.batch_per_replica(data.batch_size, replicas)
    if augment.mixes and per_replica % 2:
        raise InputError(
            f'--batch_size={data.batch_size}: --mixup_alpha and --cutmix_alpha mix pairs, and {per_replica} '
            'examples on a replica are odd; make them even'
        )


def refuse_parts_with_sync(data: DataOptions, net: NetOptions, replicas: int) -> None:
    """Raises InputError for gradient accumulation with `--sync_batch_norm`: TensorFlow has no collectives in loops."""
    parts = data.gradient_accumulation_steps
    if parts > 1 and net.sync_batch_norm and replicas > 1:
        raise InputError(
            f'--gradient_accumulation_steps={parts}: cannot be combined with --sync_batch_norm over several '
            'replicas; leave one of them out'
        )


def refuse_few_examples(dataset: Dataset, workers: int) -> None:
    """Raises InputError if there are more workers than examples."""
    if dataset.num_examples < workers:
        raise InputError(
            f'{dataset.name}, split {dataset.split}, has {dataset.num_examples} examples, fewer than the '
            f'{workers} workers; start fewer'
        )
