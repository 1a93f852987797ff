"""Measures the speed of the parts of training: the host stage, the compiled step, both together, evaluation.

    figures = benchmark(make_config(BenchmarkConfig, mode='input', dataset_dir='/data/imagenet'))
    figures['images_per_second']['median']

The benchmark runs the same functions as training, with the same flags. The steps after the warm-up are measured in
blocks, whose spread shows how quiet the machine was.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence

import psutil
import tensorflow as tf
from absl import logging

from configs.benchmark import BenchmarkConfig, BenchmarkOptions
from configs.options import replace_options
from datasets import dataset_factory, input_pipeline, records
from datasets.dataset_factory import Dataset
from datasets.synthetic import SyntheticExamples
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.distributed.joining import join_cluster
from engine.evaluation.measure import EvalSource, measure
from engine.evaluation.results import write_results
from engine.evaluation.subject import ReplicatedNet
from engine.optim.reduction import Reduction
from engine.speed.benchmark_figures import Block, Figures, format_table, peak_rss_mib, summarize
from engine.training.setup import Run, open_run, refuse_ftrl_with_warmup
from engine.training.state import Position
from support.errors import InputError
from support.processor import usable_cores

_BLOCKS = 10


# Runs a number of steps; returns their block without the time, which the caller measures.
Work = Callable[[int], Block]


def benchmark(config: BenchmarkConfig) -> Figures:
    """Runs a benchmark, prints the table and writes the JSON file, as `benchmark_image_classifier.py` does.

    Several workers measure together; the figures are their total, by the chief's clock.

    Returns:
        The configuration and the figures. images_per_second and images_per_cpu_second: median, low and high of the
        blocks. waiting_share: share of time waiting for input, in [0, 1], or None. seconds_to_first_batch: from opening
        the data to the end of the first batch, including compilation. peak_rss_mib: peak memory of the process so far.
        With several replicas, communication_share: share of time, in [0, 1], in which the first replica waited for the
        sum of its gradients (None on GPUs); bytes_per_step_expected: bytes that each replica must send in a ring; with
        several workers, bytes_per_step_sent: bytes sent per worker, over all interfaces and programs of this machine.

    Raises:
        InputError: an error that the user can fix.
    """
    with join_cluster(config) as cluster:
        return _measure(config, cluster)


def _measure(config: BenchmarkConfig, cluster: Cluster) -> Figures:
    start = time.monotonic()
    options = config.benchmark
    run = _open_run(config, cluster)
    work = _MODES[options.mode](run, options)
    work(1)
    first_batch = time.monotonic() - start
    if options.warmup_steps > 1:
        work(options.warmup_steps - 1)
    size = _block_size(options.num_steps)
    blocks = [_measure_block(work, size) for _ in range(math.ceil(options.num_steps / size))]
    figures = {
        **_describe(run, options.mode),
        **summarize(blocks),
        **_communication(run, options.mode, blocks),
        'seconds_to_first_batch': round(first_batch, 2),
        'peak_rss_mib': peak_rss_mib(),
    }
    if cluster.is_chief:
        print(format_table(figures), flush=True)
    if cluster.is_chief and options.results_path:
        write_results(options.results_path, figures)
    return figures


def make_work(config: BenchmarkConfig, cluster: Cluster = SINGLE_PROCESS) -> Work:
    """Returns the function that `benchmark` times; in `eval` mode a call runs one step or a tenth of --num_steps."""
    return _MODES[config.benchmark.mode](_open_run(config, cluster), config.benchmark)


def _open_run(config: BenchmarkConfig, cluster: Cluster) -> Run:
    refuse_ftrl_with_warmup(config.optimizer, config.schedule)
    config = _with_dataset(config)
    return open_run(config, cluster, lambda: _open_dataset(config))


def _open_dataset(config: BenchmarkConfig) -> Dataset:
    """Opens the split that the mode reads; `step` mode reads none and keeps only its classes and channels."""
    data, evaluates = config.data, config.benchmark.mode == 'eval'
    dataset = dataset_factory.get_dataset(
        data.dataset_name or '',
        data.dataset_dir,
        config.evaluation.eval_split_name if evaluates else data.dataset_split_name,
        data.labels_offset,
        'eval_split_name' if evaluates else 'dataset_split_name',
        record_names=records.names_from(data),
    )
    if config.benchmark.mode == 'step':
        return dataclasses.replace(dataset, examples=SyntheticExamples(dataset.num_examples))
    return dataset


def _with_dataset(config: BenchmarkConfig) -> BenchmarkConfig:
    """Returns the config with a data set: by default imagenet if a folder is given, else synthetic."""
    data, mode = config.data, config.benchmark.mode
    name = data.dataset_name or ('synthetic' if data.dataset_dir is None else 'imagenet')
    if mode == 'input' and name == 'synthetic':
        raise InputError('--mode=input: synthetic data has no host stage to measure; name a --dataset_dir')
    if name != data.dataset_name:
        logging.info('no --dataset_name was given: measuring on %s', name)
    return replace_options(config, dataset_name=name)


def _input_mode(run: Run, _: BenchmarkOptions) -> Work:
    """Returns work that takes batches from the host stage alone."""
    data, batches = run.config.data, run.make_input(run.steps_left(Position()))
    share, worker = data.batch_size // run.cluster.count, batches.worker
    on_host = input_pipeline.training_batches(
        batches.dataset, run.preprocessing, share, data.seed, 0, worker=worker, data_service=data.data_service
    )
    iterator, taken = iter(on_host), 0

    def work(num_steps: int) -> Block:
        nonlocal taken
        images = num_steps * data.batch_size
        with batches.naming_failures(range(taken, taken + images)):
            for _ in range(num_steps):
                next(iterator)
        taken += images
        return Block(images)

    return work


def _train_mode(run: Run, _: BenchmarkOptions) -> Work:
    """Returns work that makes training steps on the run's data set."""
    steps_left = run.steps_left(Position())
    run_steps, batches = run.make_steps(end=steps_left), run.make_input(steps_left)
    iterator, position = batches.make_iterator(first_image=0), Position()

    def work(num_steps: int) -> Block:
        nonlocal position
        before, position = position, position.after(num_steps, run.config.data.examples_per_step)
        positions = range(before.stream, position.stream)
        with distribution.naming_lost_workers(run.cluster), batches.naming_failures(positions):
            report = run_steps(iterator, before, num_steps)
        return Block(len(positions), waited=report.waited, communicated=report.communicated)

    return work


def _eval_mode(run: Run, options: BenchmarkOptions) -> Work:
    """Returns work that evaluates the first batches of the split, the same for each block, with initial weights."""
    config, strategy = run.config, run.strategy
    with strategy.scope():
        model = run.spec.make_model(mixed_precision=config.net.mixed_precision)
    net = ReplicatedNet(model, run.spec.make_preprocessing(), strategy, config.devices)

    @functools.cache
    def make_source(num_batches: int) -> EvalSource:
        batch_size = config.data.batch_size
        return EvalSource(run.dataset, strategy, batch_size=batch_size, max_batches=num_batches, cluster=run.cluster)

    def work(num_steps: int) -> Block:
        # Only two sources: each has a fixed number of batches, and a new one needs compilation.
        source = make_source(1 if num_steps == 1 else _block_size(options.num_steps))
        (counted,) = measure([net], source, config.evaluation.recall_at)
        return Block(counted['num_examples'])

    return work


_MODES: dict[str, Callable[[Run, BenchmarkOptions], Work]] = {
    'input': _input_mode,
    'step': _train_mode,
    'train': _train_mode,
    'eval': _eval_mode,
}


def _block_size(num_steps: int) -> int:
    return math.ceil(num_steps / _BLOCKS)


def _measure_block(work: Work, num_steps: int) -> Block:
    sent, cpu_start, start = _bytes_sent(), time.process_time(), time.monotonic()
    block = work(num_steps)
    return dataclasses.replace(
        block,
        seconds=time.monotonic() - start,
        cpu_seconds=time.process_time() - cpu_start,
        bytes_sent=_bytes_sent() - sent,
    )


def _bytes_sent() -> int:
    """Returns the bytes sent by this machine since boot, over all interfaces including loopback."""
    counters = psutil.net_io_counters()
    return counters.bytes_sent if counters else 0


def _communication(run: Run, mode: str, blocks: Sequence[Block]) -> Figures:
    """Returns the communication figures of the replicas."""
    config, cluster, replicas = run.config, run.cluster, run.strategy.num_replicas_in_sync
    steps = sum(block.images for block in blocks) // config.data.examples_per_step
    if replicas == 1 or mode not in ('step', 'train'):
        return {'communication_share': None, 'bytes_per_step_expected': 0, 'bytes_per_step_sent': 0}
    sizes = [math.prod(variable.shape) for variable in run.spec.make_model().trainable_variables]
    share = sum(block.communicated for block in blocks) / sum(block.seconds for block in blocks)
    sent = sum(block.bytes_sent for block in blocks) / steps / cluster.local_count
    reduction = Reduction(replicas, config.optimizer.gradient_dtype)
    return {
        'communication_share': None if distribution.is_on_gpus(run.strategy) else round(share, 4),
        'bytes_per_step_expected': round(reduction.bytes_sent(sum(sizes))),
        'bytes_per_step_sent': round(sent) if cluster.count > 1 else 0,
    }


def _describe(run: Run, mode: str) -> Figures:
    """Describes the measured run and the machine."""
    config, dataset, spec, strategy = run.config, run.dataset, run.spec, run.strategy
    return {
        'mode': mode,
        'model_name': spec.model_name,
        'preprocessing_name': spec.preprocessing_name,
        'image_size': spec.image_size,
        'mixed_precision': config.net.mixed_precision,
        'dataset_name': 'synthetic' if dataset.examples.are_synthetic else dataset.name,
        'dataset_split_name': dataset.split,
        'batch_size': config.data.batch_size,
        'gradient_accumulation_steps': config.data.gradient_accumulation_steps,
        'workers': run.cluster.count,
        'replicas': strategy.num_replicas_in_sync,
        'devices': list(strategy.extended.worker_devices),
        'cores': usable_cores(),
        'tensorflow': tf.__version__,
    }
