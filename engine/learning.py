"""The training loop.

    result = train(make_config(TrainConfig, dataset_name='digits', train_dir='/tmp/digits', num_epochs=12))

`train` is one road: what is trained on what, where it starts (`start.py`), the loop (`loop.py`). The step itself is in
`train_step.py`, its batches in `train_input.py`, what happens between steps in `actions.py`.
"""

import dataclasses
import math
import shlex

import tensorflow as tf
from absl import logging

from configs.config import TrainConfig
from configs.errors import InputError
from configs.options import replace_options
from configs.progress import Progress
from datasets import dataset_factory, decoded, records
from datasets.dataset_factory import Dataset
from engine import checkpoints, distribution, run_dir
from engine.actions import Evaluate
from engine.actions_factory import make_actions
from engine.bad_images import BadImages
from engine.best_checkpoint import BestCheckpoint, make_best
from engine.cluster import joining
from engine.cluster.cluster import Cluster
from engine.evaluator import Results
from engine.kernels import describe_kernels, set_precision
from engine.loop import Loop
from engine.model_spec import ModelSpec
from engine.position import Position
from engine.recovery import NonFiniteError, Recovery
from engine.reduction import Reduction
from engine.schedules import make_schedule, scaled
from engine.signals import TrainingSignals
from engine.start import Start
from engine.train_input import cache_mode, make_iterator
from engine.train_state import TrainState, make_state
from engine.train_step import ReplicaStep, RunSteps, make_steps
from preprocessing.augmentation import make_augmentation
from preprocessing.preprocessing_factory import Preprocessing

_EPOCHS_OF_EMBEDDED = 15.0


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Where training ended.

    Attributes:
        step: The last step.
        checkpoint_path: Its checkpoint; empty if a signal came before the first step.
        results: What the last evaluation in this process measured; None without one.
        stopped_by: Number of the signal that ended it early, or None.
    """

    step: int
    checkpoint_path: str
    results: Results | None
    stopped_by: int | None = None


def train(config: TrainConfig) -> TrainResult:
    """Trains as the config says, from the start or from where `train_dir` has come to.

    Of several workers, which all call this, the chief alone reads and writes `train_dir`.

    Raises:
        InputError: whatever the user can put right; or another worker is lost.
    """
    # ---------------------------------------------------------------- what is trained, on what, where, by whom
    refuse_ftrl_with_warmup(config)
    config = with_default_dataset(config)
    with joining.join_as_told(config) as cluster:
        strategy = distribution.make_strategy(config.devices, cluster)
        refuse_odd_batches(config, distribution.batch_per_replica(strategy, config.data.batch_size))
        set_precision(config.net.mixed_precision, strategy)
        refuse_parts_with_sync(config, strategy)
        logging.info(
            'training %s on %s: opening %s, then building the net',
            config.net.model_name, distribution.describe_devices(strategy, cluster), config.data.dataset_name,
        )  # fmt: skip
        dataset = open_dataset(config, cluster)
        spec = make_spec(config, dataset)
        with TrainingSignals() as signals, run_dir.held(config.checkpoint.train_dir, cluster):
            return _train(config, cluster, strategy, dataset, spec, signals)


def open_dataset(config: TrainConfig, cluster: Cluster) -> Dataset:
    """Opens the data that is trained on.

    Raises:
        InputError: as `get_dataset`; workers whose data differ, or more workers than examples.
    """
    data = config.data
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
    if dataset.num_examples < cluster.count:
        raise InputError(
            f'{dataset.name}, split {dataset.split}, has {dataset.num_examples} examples, fewer than the '
            f'{cluster.count} workers; start fewer'
        )
    return dataset


def _train(
    config: TrainConfig,
    cluster: Cluster,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    spec: ModelSpec,
    signals: TrainingSignals,
) -> TrainResult:
    # ---------------------------------------------------------------- where it starts
    # In this order: a run in train_dir goes on; else weights come from --checkpoint_path; else they are new.
    data, options, train_dir = config.data, config.checkpoint, config.checkpoint.train_dir
    preprocessing = spec.make_preprocessing(config.augment)
    kernels = describe_kernels(strategy)
    cluster.on_chief(lambda: run_dir.check_goes_on(train_dir, config, spec, dataset, kernels))
    with strategy.scope():
        state = make_state(config, spec)
    start = Start(config, cluster, strategy, state)
    position = start.restore() or start.begin()
    last_step = position.step + steps_left(config, dataset, position)
    best = make_best(config, spec, cluster)
    best.go_back_to(position.step)
    if position.step and is_over(config, best, position, last_step):
        latest = cluster.on_chief(lambda: checkpoints.checkpoint_of_step(train_dir, position.step)) or ''
        reached = 'was stopped early' if best.is_exhausted else 'has reached the last step'
        logging.info('nothing to do: %s %s, %d', latest, reached, position.step)
        return TrainResult(position.step, latest, None)

    # ---------------------------------------------------------------- the compiled step and its input
    # The schedule counts in batches of today's size, however large those of an earlier part of the run were.
    end = last_step - position.step + position.images_seen / data.examples_per_step
    run_steps = make_run_steps(config, strategy, state, dataset, preprocessing, end)
    passes = (last_step - position.step) * data.examples_per_step / dataset.num_examples
    skips = data.on_bad_image == 'skip'
    cached = decoded.with_cache(dataset, cache_mode(config), preprocessing.source_channels, passes, keeps_bad=skips)
    bad_images = BadImages(config, cached, preprocessing, cluster) if skips else None
    skipped = None if bad_images is None else bad_images.skipped

    # ---------------------------------------------------------------- the loop
    shown_end = None if math.isinf(last_step) else int(last_step)
    with (
        Progress('training', shown_end, first=position.step) as progress,
        checkpoints.Saver(train_dir, options.max_checkpoints_to_keep, options.keep_checkpoint_every_n_hours) as saver,
    ):
        actions = make_actions(config, state, cached, preprocessing, strategy, progress, saver, best, signals, cluster)
        if cluster.is_chief:
            # Only now that nothing of the config was refused.
            run_dir.describe(train_dir, config, spec, dataset, kernels)
            log_plan(config, dataset, spec, strategy, last_step)
        loop = Loop(config, cached, preprocessing, run_steps, actions, signals, last_step, cluster, bad_images)
        recover = Recovery(options.recover_from_nonfinite, saver, train_dir, start.restore, cluster)
        while True:
            try:
                batches = make_iterator(strategy, config, cached, preprocessing, position.stream, cluster, skipped)
                step = loop.run(batches, position)
                break
            except NonFiniteError as error:
                position = recover(error, position.recoveries)
    results = next((action.results for action in actions if isinstance(action, Evaluate)), None)
    log_end(step, config, signals.received, cluster)
    latest = cluster.on_chief(lambda: checkpoints.latest_checkpoint(train_dir)) or ''
    return TrainResult(step, latest, results, signals.received)


def is_over(config: TrainConfig, best: BestCheckpoint, position: Position, last_step: float) -> bool:
    """Returns whether the run is finished: stopped early, or its last step is made and evaluated."""
    if best.is_exhausted:
        return True
    return position.step >= last_step and not (config.evaluation.is_wanted and best.lacks(position.step))


def refuse_ftrl_with_warmup(config: TrainConfig) -> None:
    """Refuses what can only give NaN: ftrl divides by the learning rate, which a warm-up begins at 0."""
    if config.optimizer.optimizer == 'ftrl' and config.schedule.warmup_epochs:
        raise InputError(
            f'--warmup_epochs={config.schedule.warmup_epochs}: begins with a learning rate of 0, by which '
            '--optimizer=ftrl divides; leave it out, or choose another optimizer'
        )


def refuse_odd_batches(config: TrainConfig, per_replica: int) -> None:
    """Refuses to mix the images of pairs where a replica's batch leaves one alone."""
    if config.augment.mixes and per_replica % 2:
        raise InputError(
            f'--batch_size={config.data.batch_size}: --mixup_alpha and --cutmix_alpha mix pairs, and {per_replica} '
            'examples on a replica are odd; make them even'
        )


def refuse_parts_with_sync(config: TrainConfig, strategy: tf.distribute.Strategy) -> None:
    """Refuses what TensorFlow cannot do: replicas that speak with each other inside a loop, here over the parts."""
    parts = config.data.gradient_accumulation_steps
    if parts > 1 and config.net.sync_batch_norm and strategy.num_replicas_in_sync > 1:
        raise InputError(
            f'--gradient_accumulation_steps={parts}: does not go with --sync_batch_norm over several replicas; leave '
            'one of them out'
        )


def with_default_dataset(config: TrainConfig) -> TrainConfig:
    """Returns the config with a data set: imagenet as in slim, or without any folder the embedded digits, evaluated."""
    data = config.data
    if data.dataset_name is not None:
        return config
    if data.dataset_dir is not None:
        return replace_options(config, dataset_name='imagenet')
    logging.info(
        'no --dataset_dir was given: using the embedded %s (configs/alexnet_v2_digits.cfg learns them better)',
        dataset_factory.EMBEDDED,
    )
    every = {} if config.evaluation.is_wanted else {'eval_every_epochs': 5.0}
    return replace_options(config, dataset_name=dataset_factory.EMBEDDED, **every)


def make_spec(config: TrainConfig, dataset: Dataset) -> ModelSpec:
    """Returns the net and preprocessing that the config says for a data set."""
    return ModelSpec.for_dataset(
        dataset,
        config.net.model_name,
        preprocessing_name=config.data.preprocessing_name,
        image_size=config.net.train_image_size,
        depth_multiplier=config.net.depth_multiplier,
        use_grayscale=config.data.use_grayscale,
        global_pool=config.net.global_pool,
        channels=config.data.channels,
    )


def make_run_steps(
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    state: TrainState,
    dataset: Dataset,
    preprocessing: Preprocessing,
    end: float,
) -> RunSteps:
    """Returns the compiled function that makes several steps; the learning rate's schedule ends at step `end`."""
    batch_size, replicas = config.data.examples_per_step, strategy.num_replicas_in_sync
    options = scaled(config.schedule, batch_size)
    schedule = make_schedule(options, dataset.num_examples / batch_size, None if math.isinf(end) else int(end))
    replica_step = ReplicaStep(
        state,
        make_augmentation(preprocessing, dataset.num_examples),
        schedule,
        Reduction(replicas, config.optimizer.gradient_dtype, config.devices.all_reduce),
        batch_size=batch_size,
        num_batches=config.data.gradient_accumulation_steps,
        seed=config.data.seed,
        label_smoothing=config.loss.label_smoothing,
        sync_batch_norm=config.net.sync_batch_norm,
        xla=use_xla(config, strategy, state),
        fast_convolutions=distribution.use_fast_convolutions(config.devices, strategy),
    )
    return make_steps(strategy, replica_step, schedule, batch_size, distribution.batches_taken())


def use_xla(config: TrainConfig, strategy: tf.distribute.Strategy, state: TrainState) -> bool:
    """Returns whether forward and backward are compiled by XLA.

    Raises:
        InputError: `--xla=on`, and the replicas have to speak with each other in between.
    """
    speaks = config.net.sync_batch_norm and strategy.num_replicas_in_sync > 1 and bool(state.moving_statistics)
    if speaks and config.devices.xla == 'on':
        raise InputError('--xla=on: XLA compiles no --sync_batch_norm over several replicas; leave one of them out')
    return distribution.use_xla(config.devices, strategy) and not speaks


def steps_left(config: TrainConfig, dataset: Dataset, position: Position) -> float:
    """Returns how many steps remain, infinity if training goes on until it is stopped.

    The length is the shorter of `--max_number_of_steps` and `--num_epochs`; with neither, 15 epochs of the embedded
    data set, and no end on any other, as in slim.
    """
    steps, epochs = config.length.max_number_of_steps, config.length.num_epochs
    if steps is None and epochs is None and dataset.name == dataset_factory.EMBEDDED:
        epochs = _EPOCHS_OF_EMBEDDED
    images = math.inf if epochs is None else epochs * dataset.num_examples - position.images_seen
    by_epochs = images if math.isinf(images) else math.ceil(images / config.data.examples_per_step - 1e-9)
    by_steps = math.inf if steps is None else steps - position.step
    return max(min(by_epochs, by_steps), 0)


def log_plan(
    config: TrainConfig, dataset: Dataset, spec: ModelSpec, strategy: tf.distribute.Strategy, last_step: float
) -> None:
    """Says what is about to happen."""
    data, replicas = config.data, strategy.num_replicas_in_sync
    logging.info(
        '%s on %s, split %s: %d examples of %d classes, %d px, %s preprocessing',
        spec.model_name, dataset.name, dataset.split, dataset.num_examples, spec.num_classes, spec.image_size,
        spec.preprocessing_name,
    )  # fmt: skip
    added = f' {data.gradient_accumulation_steps} of which make a step,' if data.gradient_accumulation_steps > 1 else ''
    logging.info(
        'batches of %d (%d on each of %d devices),%s %.1f steps an epoch; checkpoints go to %s',
        data.batch_size, data.batch_size // replicas, replicas, added, dataset.num_examples / data.examples_per_step,
        config.checkpoint.train_dir,
    )  # fmt: skip
    logging.info('computed by %s', describe_kernels(strategy))
    if not math.isinf(last_step):
        logging.info('training ends at step %d', last_step)
    else:
        logging.info('no --max_number_of_steps or --num_epochs was given: training goes on until it is stopped')


def log_end(step: int, config: TrainConfig, stopped_by: int | None, cluster: Cluster) -> None:
    """Says how to go on; where `train_dir` is, the chief."""
    train_dir, split = config.checkpoint.train_dir, config.evaluation.eval_split_name
    if stopped_by is not None:
        logging.info(
            'stopped at step %d; the same command goes on from there (%s)',
            step,
            shlex.join([f'--train_dir={train_dir}']),
        )
    elif not cluster.is_chief:
        logging.info('finished at step %d', step)
    else:
        command = ['python', 'eval_image_classifier.py', f'--checkpoint_path={train_dir}']
        if split is not None:
            command.append(f'--dataset_split_name={split}')
        logging.info('finished at step %d; evaluate it with: %s', step, shlex.join(command))
