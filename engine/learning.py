"""The training loop.

    result = train(make_config(TrainConfig, dataset_name='digits', train_dir='/tmp/digits', num_epochs=12))

`train` is one road: what is trained on what, where it starts, the loop. The step itself is in `train_step.py`, what
happens between steps in `actions.py`.
"""

import dataclasses
import math
import shlex
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from configs.config import TrainConfig
from configs.errors import InputError
from configs.options import replace_options
from configs.progress import Progress
from datasets import dataset_factory, decoded, input_pipeline, service, synthetic
from datasets.dataset_factory import Dataset
from engine import checkpoints, distribution, evaluation, run_dir
from engine.actions import Action, Evaluate, Log, Moment, NextImages, Save, Summarize, non_finite_message
from engine.intervals import Interval
from engine.model_spec import ModelSpec
from engine.schedules import make_schedule
from engine.signals import StopSignals
from engine.train_state import TrainState, make_state, restore_run, warm_start
from engine.train_step import ReplicaStep, RunSteps, StepReport, make_steps
from preprocessing.preprocessing_factory import Preprocessing

_EPOCHS_OF_EMBEDDED = 15.0
_SECONDS_A_CALL = 2.0


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
    results: evaluation.Results | None
    stopped_by: int | None = None


def train(config: TrainConfig) -> TrainResult:
    """Trains as the config says, from the start or from where `train_dir` has come to.

    Raises:
        InputError: whatever the user can put right.
    """
    # ---------------------------------------------------------------- what is trained, on what, where
    refuse_ftrl_with_warmup(config)
    distribution.set_precision(config.net.mixed_precision)
    config = with_default_dataset(config)
    data, train_dir = config.data, config.checkpoint.train_dir
    strategy = distribution.make_strategy(config.devices)
    distribution.batch_per_replica(strategy, data.batch_size)
    dataset = dataset_factory.get_dataset(
        data.dataset_name or '', data.dataset_dir, data.dataset_split_name, data.labels_offset
    )
    spec = make_spec(config, dataset)
    preprocessing = spec.make_preprocessing(config.augment)
    with strategy.scope():
        state = make_state(config, spec)

    # ---------------------------------------------------------------- where it starts
    # In this order: a run in train_dir goes on; else weights come from --checkpoint_path; else they are new.
    run_dir.prepare(train_dir, spec)
    latest = checkpoints.latest_checkpoint(train_dir)
    step, images_seen = 0, 0
    if latest is not None:
        step, images_seen = restore_run(latest, state, config)
    elif config.checkpoint.checkpoint_path:
        warm_start(config, state)
    last_step = step + steps_left(config, dataset, step, images_seen)
    if latest is not None and step >= last_step:
        logging.info('nothing to do: %s has reached the last step, %d', latest, step)
        return TrainResult(step, latest, None)

    # ---------------------------------------------------------------- the compiled step and its input
    # The schedule counts in batches of today's size, however large those of an earlier part of the run were.
    end = last_step - step + images_seen / data.batch_size
    run_steps = make_run_steps(config, strategy, state, dataset, preprocessing, end)
    passes = (last_step - step) * data.batch_size / dataset.num_examples
    dataset = decoded.with_cache(dataset, cache_mode(config), preprocessing.source_channels, passes)
    iterator = make_iterator(strategy, config, dataset, preprocessing, images_seen)

    # ---------------------------------------------------------------- the loop
    shown_end = None if math.isinf(last_step) else int(last_step)
    with StopSignals() as stop_signals, Progress('training', shown_end, first=step) as progress:
        actions = make_actions(config, state, dataset, preprocessing, strategy, progress)
        run_dir.write_config(train_dir, config, spec)  # only now that nothing of the config was refused
        log_plan(config, dataset, spec, strategy, last_step)
        most, moment = 1, None  # the first call compiles
        while step < last_step and not stop_signals.is_set():
            # No call goes beyond what is due next, nor takes so long that a signal is kept waiting.
            stop = int(min(last_step, step + most, *(action.interval.next_step(step) for action in actions)))
            next_images = images_seen + (stop - step) * data.batch_size
            with input_pipeline.naming_failures(dataset, preprocessing, range(images_seen, next_images), data.seed):
                report = run_steps(iterator, step, images_seen, stop - step)
            check_finite(report, step, train_dir)
            step, images_seen = stop, next_images
            moment = Moment(step, images_seen, report, data.batch_size)
            most = max(int(_SECONDS_A_CALL / moment.seconds_per_step), 1)
            for action in actions:
                if action.interval.is_due(step) or (step == last_step and action.at_end):
                    action.run(moment)
        for action in actions:
            if stop_signals.is_set() and moment is not None and action.at_stop and action.last_step != step:
                action.run(moment)
    latest = checkpoints.latest_checkpoint(train_dir)
    results = next((action.results for action in actions if isinstance(action, Evaluate)), None)
    log_end(step, config, stop_signals.received)
    return TrainResult(step, latest or '', results, stop_signals.received)


def refuse_ftrl_with_warmup(config: TrainConfig) -> None:
    """Refuses what can only give NaN: ftrl divides by the learning rate, which a warm-up begins at 0."""
    if config.optimizer.optimizer == 'ftrl' and config.schedule.warmup_epochs:
        raise InputError(
            f'--warmup_epochs={config.schedule.warmup_epochs}: begins with a learning rate of 0, by which '
            '--optimizer=ftrl divides; leave it out, or choose another optimizer'
        )


def with_default_dataset(config: TrainConfig) -> TrainConfig:
    """Returns the config with a data set: imagenet as in slim, or without any folder the embedded digits, evaluated."""
    data, checks = config.data, config.evaluation
    if data.dataset_name is not None:
        return config
    if data.dataset_dir is not None:
        return replace_options(config, dataset_name='imagenet')
    logging.info(
        'no --dataset_dir was given: using the embedded %s (configs/alexnet_v2_digits.cfg learns them better)',
        dataset_factory.EMBEDDED,
    )
    every = {} if checks.eval_every_epochs or checks.eval_every_steps else {'eval_every_epochs': 5.0}
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
    batch_size = config.data.batch_size
    schedule = make_schedule(config.schedule, dataset.num_examples / batch_size, None if math.isinf(end) else int(end))
    replica_step = ReplicaStep(
        state,
        preprocessing,
        schedule,
        batch_size=batch_size,
        num_replicas=strategy.num_replicas_in_sync,
        seed=config.data.seed,
        label_smoothing=config.loss.label_smoothing,
        xla=distribution.use_xla(config.devices, strategy),
    )
    return make_steps(strategy, replica_step, schedule, batch_size)


def cache_mode(config: TrainConfig) -> str:
    """Returns which decoded images are kept: none where another machine decodes them.

    Raises:
        InputError: a cache and a tf.data service are both asked for.
    """
    data = config.data
    if data.data_service is None:
        return data.cache
    if data.cache not in ('auto', 'off'):
        raise InputError(f'--cache={data.cache}: --data_service decodes elsewhere; leave one of them out')
    return 'off'


def make_iterator(
    strategy: tf.distribute.Strategy,
    config: TrainConfig,
    dataset: Dataset,
    preprocessing: Preprocessing,
    first_image: int,
) -> Any:
    """Returns the endless iterator of batches that the compiled step takes, beginning at an image of the stream."""
    data, per_replica = config.data, distribution.batch_per_replica(strategy, config.data.batch_size)
    if isinstance(dataset.examples, synthetic.SyntheticExamples) and data.synthetic_images == 'device':
        return distribution.SameBatch(strategy, synthetic.make_batch(preprocessing, dataset.num_classes, per_replica))
    if data.data_service is not None:
        service.check(data.data_service)
    batches = strategy.distribute_datasets_from_function(
        lambda _: input_pipeline.training_batches(
            dataset, preprocessing, per_replica, data.seed, first_image, data_service=data.data_service
        )
    )
    return iter(batches)


def steps_left(config: TrainConfig, dataset: Dataset, step: int, images_seen: int) -> float:
    """Returns how many steps remain, infinity if training goes on until it is stopped.

    The length is the shorter of `--max_number_of_steps` and `--num_epochs`; with neither, 15 epochs of the embedded
    data set, and no end on any other, as in slim.
    """
    steps, epochs = config.length.max_number_of_steps, config.length.num_epochs
    if steps is None and epochs is None and dataset.name == dataset_factory.EMBEDDED:
        epochs = _EPOCHS_OF_EMBEDDED
    images = math.inf if epochs is None else epochs * dataset.num_examples - images_seen
    by_epochs = images if math.isinf(images) else math.ceil(images / config.data.batch_size - 1e-9)
    by_steps = math.inf if steps is None else steps - step
    return max(min(by_epochs, by_steps), 0)


def log_plan(
    config: TrainConfig, dataset: Dataset, spec: ModelSpec, strategy: tf.distribute.Strategy, last_step: float
) -> None:
    """Says what is about to happen."""
    batch_size, replicas = config.data.batch_size, strategy.num_replicas_in_sync
    logging.info(
        '%s on %s, split %s: %d examples of %d classes, %d px, %s preprocessing',
        spec.model_name, dataset.name, dataset.split, dataset.num_examples, spec.num_classes, spec.image_size,
        spec.preprocessing_name,
    )  # fmt: skip
    logging.info(
        'batches of %d (%d on each of %d devices), %.1f steps an epoch; checkpoints go to %s',
        batch_size, batch_size // replicas, replicas, dataset.num_examples / batch_size, config.checkpoint.train_dir,
    )  # fmt: skip
    if not math.isinf(last_step):
        logging.info('training ends at step %d', last_step)
    else:
        logging.info('no --max_number_of_steps or --num_epochs was given: training goes on until it is stopped')


def log_end(step: int, config: TrainConfig, stopped_by: int | None) -> None:
    """Says how to go on."""
    train_dir, split = config.checkpoint.train_dir, config.evaluation.eval_split_name
    if stopped_by is not None:
        logging.info('stopped at step %d; the same command goes on from there (--train_dir=%s)', step, train_dir)
    else:
        command = f'python eval_image_classifier.py --checkpoint_path={train_dir}'
        if split is not None:
            command += f' {shlex.quote(f"--dataset_split_name={split}")}'
        logging.info('finished at step %d; evaluate it with: %s', step, command)


def make_actions(
    config: TrainConfig,
    state: TrainState,
    dataset: Dataset,
    preprocessing: Preprocessing,
    strategy: tf.distribute.Strategy,
    progress: Progress,
) -> list[Action]:
    """Makes what happens between steps, in the order in which it happens."""
    log, checks, train_dir = config.log, config.evaluation, config.checkpoint.train_dir
    actions: list[Action] = [Log(log, progress), Save(config.checkpoint, state, progress)]
    if checks.eval_every_epochs or checks.eval_every_steps:
        measured = dataset_factory.get_dataset(
            dataset.name, dataset.dataset_dir or None, checks.eval_split_name, dataset.labels_offset, 'eval_split_name'
        )
        split = measured.split
        measured = decoded.with_cache(measured, cache_mode(config), preprocessing.source_channels, math.inf)
        evaluator = evaluation.Evaluator(
            state.model,
            measured,
            preprocessing,
            strategy,
            batch_size=evaluation.DEFAULT_BATCH_SIZE,
            recall_at=checks.recall_at,
            xla=distribution.use_xla(config.devices, strategy),
        )
        epochs = checks.eval_every_epochs * dataset.num_examples / config.data.batch_size
        interval = Interval(steps=checks.eval_every_steps or epochs)
        eval_dir = evaluation.eval_dir(train_dir, split, averages=state.averages is not None)
        actions.append(Evaluate(interval, evaluator, state, eval_dir, measured.num_examples))
    if log.save_summaries_secs or log.save_summaries_steps:
        next_images = NextImages(config, dataset, preprocessing)
        actions.append(Summarize(log, state, preprocessing, next_images, train_dir))
    return actions


def check_finite(report: StepReport, first_step: int, train_dir: str) -> None:
    """Stops training whose loss is not finite; nothing is saved, so the last good checkpoint stays the latest.

    Raises:
        InputError: naming the step, and the steps of the call.
    """
    total = report.cross_entropy + np.float32(report.regularization)
    if np.isfinite(total).all():
        return
    finite = np.isfinite(report.cross_entropy)
    bad = int(np.argmin(finite)) if not finite.all() else len(finite) - 1
    where = f'at step {first_step + bad + 1} (of steps {first_step + 1} to {first_step + len(finite)})'
    latest = checkpoints.latest_checkpoint(train_dir)
    raise InputError(non_finite_message(f'the loss ({report.cross_entropy[bad]})', where, latest))
