"""How fast the parts of training are: the host stage, the compiled step, both together, evaluation.

    figures = measure(make_config(BenchmarkConfig, mode='input', dataset_dir='/data/imagenet'))
    figures['images_per_second']['median']

What is measured is what training runs, with the same functions and the same flags. The steps after the warm-up are
measured in blocks, whose spread tells how quiet the machine was.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence

import psutil
import tensorflow as tf
from absl import logging

from configs.benchmark import BenchmarkConfig
from configs.cores import usable_cores
from configs.errors import InputError
from configs.options import replace_options
from datasets import dataset_factory, decoded, input_pipeline, records
from datasets.dataset_factory import Dataset
from datasets.synthetic import SyntheticExamples
from engine import distribution, learning, train_input
from engine.benchmark_figures import Block, Figures, format_table, peak_rss_mib, summarize, write_json
from engine.cluster import joining
from engine.cluster.cluster import ALONE, Cluster
from engine.evaluator import Evaluator
from engine.kernels import set_precision
from engine.model_spec import ModelSpec
from engine.position import Position
from engine.reduction import Reduction
from engine.train_state import make_state

_BLOCKS = 10


# Runs so many steps; says what they took but for the time, which whoever calls it measures.
Run = Callable[[int], Block]


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What is trained or evaluated on what."""

    config: BenchmarkConfig
    dataset: Dataset
    spec: ModelSpec
    strategy: tf.distribute.Strategy
    cluster: Cluster


def measure(config: BenchmarkConfig) -> Figures:
    """Measures, prints the table and writes the JSON file, as `benchmark_image_classifier.py` does.

    Several workers measure together; what is printed is what they do together, by the chief's clock.

    Returns:
        What was measured and how fast it is. images_per_second and images_per_cpu_second: median, low and high of the
        blocks. waiting_share: of the time, in [0, 1], or None. seconds_to_first_batch: from the first look at the data
        until a batch has been through, compiling included. peak_rss_mib: of the process so far. With several replicas,
        communication_share: of the time, in [0, 1], in which the first one waited for the sum of its gradients (None on
        GPUs); bytes_per_step_expected: what each replica has to send in a ring; with several workers,
        bytes_per_step_sent: what each has sent, over all interfaces of this machine, whoever else sends there.

    Raises:
        InputError: whatever the user can put right.
    """
    with joining.join_as_told(config) as cluster:
        return _measure(config, cluster)


def _measure(config: BenchmarkConfig, cluster: Cluster) -> Figures:
    start = time.monotonic()
    options = config.benchmark
    subject = _prepare(config, cluster)
    run = _MODES[options.mode](subject)
    run(1)
    first_batch = time.monotonic() - start
    if options.warmup_steps > 1:
        run(options.warmup_steps - 1)
    size = _block_size(options.num_steps)
    blocks = [_measure_block(run, size) for _ in range(math.ceil(options.num_steps / size))]
    figures = {
        **_describe(subject),
        **summarize(blocks),
        **_communication(subject, blocks),
        'seconds_to_first_batch': round(first_batch, 2),
        'peak_rss_mib': peak_rss_mib(),
    }
    if cluster.is_chief:
        print(format_table(figures), flush=True)
    if cluster.is_chief and options.results_path:
        write_json(options.results_path, figures)
    return figures


def make_run(config: BenchmarkConfig, cluster: Cluster = ALONE) -> Run:
    """Returns what `measure` measures. Of an evaluation, several steps are a tenth of --num_steps, however many."""
    return _MODES[config.benchmark.mode](_prepare(config, cluster))


def _prepare(config: BenchmarkConfig, cluster: Cluster) -> _Subject:
    learning.refuse_ftrl_with_warmup(config)
    config = _with_dataset(config)
    data = config.data
    strategy = distribution.make_strategy(config.devices, cluster)
    set_precision(config.net.mixed_precision, strategy)
    learning.refuse_odd_batches(config, distribution.batch_per_replica(strategy, data.batch_size))
    evaluates = config.benchmark.mode == 'eval'
    split = config.evaluation.eval_split_name if evaluates else data.dataset_split_name
    flag = 'eval_split_name' if evaluates else 'dataset_split_name'
    dataset = dataset_factory.get_dataset(
        data.dataset_name or '',
        data.dataset_dir,
        split,
        data.labels_offset,
        flag,
        record_names=records.names_from(data),
    )
    if config.benchmark.mode == 'step':  # of the same classes and channels, but nothing is read
        dataset = dataclasses.replace(dataset, examples=SyntheticExamples(dataset.num_examples))
    return _Subject(config, dataset, learning.make_spec(config, dataset), strategy, cluster)


def _with_dataset(config: BenchmarkConfig) -> BenchmarkConfig:
    """Returns the config with a data set: imagenet where there is a folder, else synthetic."""
    data, mode = config.data, config.benchmark.mode
    name = data.dataset_name or ('synthetic' if data.dataset_dir is None else 'imagenet')
    if mode == 'input' and name == 'synthetic':
        raise InputError('--mode=input: synthetic data has no host stage to measure; name a --dataset_dir')
    if name != data.dataset_name:
        logging.info('no --dataset_name was given: measuring on %s', name)
    return replace_options(config, dataset_name=name)


def _input_mode(subject: _Subject) -> Run:
    """Takes batches from the host stage, which nothing else slows down."""
    data, worker = subject.config.data, train_input.worker_of(subject.config, subject.cluster)
    preprocessing = subject.spec.make_preprocessing(subject.config.augment)
    dataset = _with_cache(subject)
    share = data.batch_size // worker.count
    batches = input_pipeline.training_batches(
        dataset, preprocessing, share, data.seed, 0, worker=worker, data_service=data.data_service
    )
    iterator, taken = iter(batches), 0

    def run(num_steps: int) -> Block:
        nonlocal taken
        images = num_steps * data.batch_size
        with input_pipeline.naming_failures(dataset, preprocessing, range(taken, taken + images), data.seed, worker):
            for _ in range(num_steps):
                next(iterator)
        taken += images
        return Block(images)

    return run


def _train_mode(subject: _Subject) -> Run:
    """Makes training steps, on whatever the data set is."""
    config, strategy = subject.config, subject.strategy
    data, preprocessing = config.data, subject.spec.make_preprocessing(config.augment)
    with strategy.scope():
        state = make_state(config, subject.spec)
    end = learning.steps_left(config, subject.dataset, Position())
    run_steps = learning.make_run_steps(config, strategy, state, subject.dataset, preprocessing, end)
    dataset = _with_cache(subject)
    iterator = train_input.make_iterator(strategy, config, dataset, preprocessing, 0, subject.cluster)
    position, worker = Position(), train_input.worker_of(config, subject.cluster)

    def run(num_steps: int) -> Block:
        nonlocal position
        before, position = position, position.after(num_steps, data.examples_per_step)
        positions = range(before.stream, position.stream)
        with (
            distribution.naming_lost_workers(subject.cluster),
            input_pipeline.naming_failures(dataset, preprocessing, positions, data.seed, worker),
        ):
            report = run_steps(iterator, before, num_steps)
        return Block(len(positions), waited=report.waited, communicated=report.communicated)

    return run


def _eval_mode(subject: _Subject) -> Run:
    """Evaluates the first batches of the split, anew for each block, with the weights that the net begins with."""
    config, strategy = subject.config, subject.strategy
    preprocessing = subject.spec.make_preprocessing()
    with strategy.scope():
        model = subject.spec.make_model(mixed_precision=config.net.mixed_precision)

    @functools.cache
    def make_evaluator(num_batches: int) -> Evaluator:
        return Evaluator(
            model,
            subject.dataset,
            preprocessing,
            strategy,
            batch_size=config.data.batch_size,
            recall_at=config.evaluation.recall_at,
            max_batches=num_batches,
            xla=distribution.use_xla(config.devices, strategy),
            fast_convolutions=distribution.use_fast_convolutions(config.devices, strategy),
            cluster=subject.cluster,
        )

    def run(num_steps: int) -> Block:
        # An evaluator always makes the same number of batches; another one would have to be compiled.
        num_batches = 1 if num_steps == 1 else _block_size(config.benchmark.num_steps)
        return Block(int(make_evaluator(num_batches)()['num_examples']))

    return run


_MODES: dict[str, Callable[[_Subject], Run]] = {
    'input': _input_mode,
    'step': _train_mode,
    'train': _train_mode,
    'eval': _eval_mode,
}


def _with_cache(subject: _Subject) -> Dataset:
    """Returns the data set with its decoded images kept, if training with this config would keep them."""
    config, dataset = subject.config, subject.dataset
    passes = learning.steps_left(config, dataset, Position()) * config.data.examples_per_step / dataset.num_examples
    channels = subject.spec.make_preprocessing().source_channels
    return decoded.with_cache(dataset, train_input.cache_mode(config), channels, passes)


def _block_size(num_steps: int) -> int:
    return math.ceil(num_steps / _BLOCKS)


def _measure_block(run: Run, num_steps: int) -> Block:
    sent, cpu_start, start = _bytes_sent(), time.process_time(), time.monotonic()
    block = run(num_steps)
    return dataclasses.replace(
        block,
        seconds=time.monotonic() - start,
        cpu_seconds=time.process_time() - cpu_start,
        bytes_sent=_bytes_sent() - sent,
    )


def _bytes_sent() -> int:
    """Returns what this machine has sent since it was started, over all its interfaces, that to itself included."""
    counters = psutil.net_io_counters()
    return counters.bytes_sent if counters else 0


def _communication(subject: _Subject, blocks: Sequence[Block]) -> Figures:
    """Returns what the replicas of a training step have exchanged."""
    config, strategy, cluster = subject.config, subject.strategy, subject.cluster
    replicas, steps = (
        strategy.num_replicas_in_sync,
        sum(block.images for block in blocks) // config.data.examples_per_step,
    )
    if replicas == 1 or config.benchmark.mode not in ('step', 'train'):
        return {'communication_share': None, 'bytes_per_step_expected': 0, 'bytes_per_step_sent': 0}
    sizes = [math.prod(variable.shape) for variable in subject.spec.make_model().trainable_variables]
    share = sum(block.communicated for block in blocks) / sum(block.seconds for block in blocks)
    sent = sum(block.bytes_sent for block in blocks) / steps / cluster.local_count
    reduction = Reduction(replicas, config.optimizer.gradient_dtype)
    return {
        'communication_share': None if distribution.is_on_gpus(strategy) else round(share, 4),
        'bytes_per_step_expected': round(reduction.bytes_sent(sum(sizes))),
        'bytes_per_step_sent': round(sent) if cluster.count > 1 else 0,
    }


def _describe(subject: _Subject) -> Figures:
    """Returns what was measured, and where."""
    config, dataset, spec, strategy = subject.config, subject.dataset, subject.spec, subject.strategy
    return {
        'mode': config.benchmark.mode,
        'model_name': spec.model_name,
        'preprocessing_name': spec.preprocessing_name,
        'image_size': spec.image_size,
        'mixed_precision': config.net.mixed_precision,
        'dataset_name': 'synthetic' if isinstance(dataset.examples, SyntheticExamples) else dataset.name,
        'dataset_split_name': dataset.split,
        'batch_size': config.data.batch_size,
        'gradient_accumulation_steps': config.data.gradient_accumulation_steps,
        'workers': subject.cluster.count,
        'replicas': strategy.num_replicas_in_sync,
        'devices': list(strategy.extended.worker_devices),
        'cores': usable_cores(),
        'tensorflow': tf.__version__,
    }
