"""The training loop.

    result = train(make_config(TrainConfig, dataset_name='digits', train_dir='/tmp/digits', num_epochs=12))

`train` is one road: what is trained on what, where it starts, the loop. The step itself is in `train_step.py`, what
happens between steps in `actions.py`.
"""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from configs.config import CheckpointOptions, TrainConfig
from configs.errors import InputError
from configs.options import replace_options
from configs.progress import Progress
from datasets import dataset_factory, decoded, input_pipeline, service, synthetic
from datasets.dataset_factory import Dataset
from engine import checkpoints, distribution, evaluation, run_dir
from engine.actions import Action, Evaluate, Log, Moment, NextImages, Save, Summarize
from engine.best_checkpoint import BestCheckpoint
from engine.evaluation_history import EvaluationHistory
from engine.intervals import Interval
from engine.metrics import clip_recall_at
from engine.model_spec import ModelSpec
from engine.position import Position
from engine.recovery import NonFiniteError, Recovery, check_finite
from engine.run_lock import RunLock
from engine.schedules import make_schedule
from engine.signals import TrainingSignals
from engine.train_state import TrainState, make_state, restore_run, warm_start
from engine.train_step import ReplicaStep, RunSteps, make_steps
from preprocessing.preprocessing_factory import Preprocessing

_EPOCHS_OF_EMBEDDED = 15.0
_SECONDS_A_CALL = 2.0
_NO_METRIC = 'none'


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
    with TrainingSignals() as signals, RunLock(run_dir.make(train_dir)):
        checkpoints.delete_parts(train_dir)
        return _train(config, strategy, dataset, spec, signals)


def _train(
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    dataset: Dataset,
    spec: ModelSpec,
    signals: TrainingSignals,
) -> TrainResult:
    # ---------------------------------------------------------------- where it starts
    # In this order: a run in train_dir goes on; else weights come from --checkpoint_path; else they are new.
    data, train_dir = config.data, config.checkpoint.train_dir
    preprocessing = spec.make_preprocessing(config.augment)
    run_dir.check_goes_on(train_dir, config, spec, dataset)
    with strategy.scope():
        state = make_state(config, spec)
    restored = restore_latest(config, state)
    if restored is None and config.checkpoint.checkpoint_path:
        warm_start(config, state)
    position = restored or Position()
    last_step = position.step + steps_left(config, dataset, position)
    best = make_best(config, spec)
    best.go_back_to(position.step)
    if restored and is_over(config, best, position, last_step):
        latest = checkpoints.latest_checkpoint(train_dir) or ''
        reached = 'was stopped early' if best.is_exhausted else 'has reached the last step'
        logging.info('nothing to do: %s %s, %d', latest, reached, position.step)
        return TrainResult(position.step, latest, None)

    # ---------------------------------------------------------------- the compiled step and its input
    # The schedule counts in batches of today's size, however large those of an earlier part of the run were.
    end = last_step - position.step + position.images_seen / data.batch_size
    run_steps = make_run_steps(config, strategy, state, dataset, preprocessing, end)
    passes = (last_step - position.step) * data.batch_size / dataset.num_examples
    cached = decoded.with_cache(dataset, cache_mode(config), preprocessing.source_channels, passes)

    # ---------------------------------------------------------------- the loop
    shown_end = None if math.isinf(last_step) else int(last_step)
    with (
        Progress('training', shown_end, first=position.step) as progress,
        make_saver(config.checkpoint) as saver,
    ):
        actions = make_actions(config, state, cached, preprocessing, strategy, progress, saver, best, signals)
        run_dir.describe(train_dir, config, spec, dataset)  # only now that nothing of the config was refused
        log_plan(config, dataset, spec, strategy, last_step)
        loop = Loop(config, cached, preprocessing, run_steps, actions, signals, last_step)
        recover = Recovery(
            config.checkpoint.recover_from_nonfinite, saver, train_dir, lambda: restore_latest(config, state)
        )
        while True:
            try:
                step = loop.run(make_iterator(strategy, config, cached, preprocessing, position.stream), position)
                break
            except NonFiniteError as error:
                position = recover(error, position.recoveries)
    results = next((action.results for action in actions if isinstance(action, Evaluate)), None)
    log_end(step, config, signals.received)
    return TrainResult(step, checkpoints.latest_checkpoint(train_dir) or '', results, signals.received)


@dataclasses.dataclass(frozen=True)
class Loop:
    """Steps, and what is due between them."""

    config: TrainConfig
    dataset: Dataset
    preprocessing: Preprocessing
    run_steps: RunSteps
    actions: Sequence[Action]
    signals: TrainingSignals
    last_step: float

    def run(self, iterator: Any, position: Position) -> int:
        """Trains from a position, of which the iterator gives the batches, to the end; returns the last step.

        Raises:
            NonFiniteError: the loss, or a variable, is not finite any more.
            InputError: whatever the user can put right.
        """
        for action in self.actions:
            action.begin(position, self.last_step)
        most, moment = 1, None  # the first call compiles
        while position.step < self.last_step and not self._is_stopped():
            moment = self._advance(iterator, position, most)
            position = moment.position
            most = max(int(_SECONDS_A_CALL / moment.seconds_per_step), 1)
            requested = self.signals.take_save_request()
            for action in self.actions:
                is_due = action.interval.is_due(position.step) or position.step == self.last_step
                if is_due or (requested and action.on_request):
                    action.run(moment)
        for action in self.actions:
            if moment is not None and action.at_stop:
                action.run(moment)
            action.finish()
        return position.step

    def _is_stopped(self) -> bool:
        return self.signals.is_set() or any(action.ends_training for action in self.actions)

    def _advance(self, iterator: Any, before: Position, most: int) -> Moment:
        """Makes several steps: not beyond what is due next, nor so many that a signal is kept waiting."""
        due = (action.interval.next_step(before.step) for action in self.actions)
        num_steps = int(min(self.last_step, before.step + most, *due)) - before.step
        batch_size, seed = self.config.data.batch_size, self.config.data.seed
        after = before.after(num_steps, batch_size)
        positions = range(before.stream, after.stream)
        with input_pipeline.naming_failures(self.dataset, self.preprocessing, positions, seed):
            report = self.run_steps(iterator, before, num_steps)
        check_finite(report, before, batch_size)
        for action in self.actions:
            action.watch()
        return Moment(after, report, batch_size)


def restore_latest(config: TrainConfig, state: TrainState) -> Position | None:
    """Restores the newest checkpoint of `train_dir` that can be read; returns its position, None where there is none.

    Raises:
        InputError: none of them can be read, or they are of another net.
    """
    train_dir = config.checkpoint.train_dir
    candidates, damaged = checkpoints.newest_first(train_dir), []
    for prefix in checkpoints.incomplete_checkpoints(train_dir):
        logging.warning('%s has no .index file: it is not complete, and left alone', prefix)
    for prefix in candidates:
        try:
            restore_run(prefix, state, config)
            position = Position.load(prefix, config.data.batch_size)
        except checkpoints.DamagedCheckpointError as error:
            logging.warning('%s; trying the checkpoint before it', error)
            damaged.append(prefix)
            continue
        for other in damaged:
            logging.warning('%s is now %s', other, checkpoints.set_aside(other))
        return position
    if damaged:
        raise InputError(
            f'--train_dir={train_dir}: none of its {len(candidates)} checkpoints can be read; move them away to begin '
            'anew'
        )
    return None


def make_best(config: TrainConfig, spec: ModelSpec) -> BestCheckpoint:
    """Returns what keeps the best checkpoint of the evaluations during training.

    Raises:
        InputError: a metric that is not measured; a patience without evaluations or a metric.
    """
    checks, options = config.evaluation, config.checkpoint
    patience, metric = checks.early_stopping_patience, options.best_metric
    recalls = (f'recall_at_{k}' for k in clip_recall_at(checks.recall_at, spec.num_classes))
    metrics = ('accuracy', *recalls)
    if metric not in (*metrics, _NO_METRIC):
        raise InputError(f'--best_metric={metric}: must be one of {", ".join((*metrics, _NO_METRIC))}')
    if patience is not None and not evaluates(config):
        raise InputError(
            f'--early_stopping_patience={patience}: counts evaluations; give --eval_every_epochs or --eval_every_steps'
        )
    if patience is not None and metric == _NO_METRIC:
        raise InputError(f'--early_stopping_patience={patience}: needs a --best_metric: {", ".join(metrics)}')
    how = {
        'metric': None if metric == _NO_METRIC else metric,
        'split': checks.eval_split_name,
        'averages': bool(config.loss.moving_average_decay),
    }
    history = EvaluationHistory.load(options.train_dir, how) if evaluates(config) else EvaluationHistory(how)
    return BestCheckpoint(options.train_dir, spec, history, patience)


def evaluates(config: TrainConfig) -> bool:
    """Says whether there are evaluations during training."""
    return bool(config.evaluation.eval_every_epochs or config.evaluation.eval_every_steps)


def is_over(config: TrainConfig, best: BestCheckpoint, position: Position, last_step: float) -> bool:
    """Says whether nothing is left to do: early stopping has ended the run, or its last step is made and measured."""
    if best.is_exhausted:
        return True
    return position.step >= last_step and not (evaluates(config) and best.lacks(position.step))


def make_saver(options: CheckpointOptions) -> checkpoints.Saver:
    """Returns what writes the checkpoints."""
    return checkpoints.Saver(options.train_dir, options.max_checkpoints_to_keep, options.keep_checkpoint_every_n_hours)


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


def steps_left(config: TrainConfig, dataset: Dataset, position: Position) -> float:
    """Returns how many steps remain, infinity if training goes on until it is stopped.

    The length is the shorter of `--max_number_of_steps` and `--num_epochs`; with neither, 15 epochs of the embedded
    data set, and no end on any other, as in slim.
    """
    steps, epochs = config.length.max_number_of_steps, config.length.num_epochs
    if steps is None and epochs is None and dataset.name == dataset_factory.EMBEDDED:
        epochs = _EPOCHS_OF_EMBEDDED
    images = math.inf if epochs is None else epochs * dataset.num_examples - position.images_seen
    by_epochs = images if math.isinf(images) else math.ceil(images / config.data.batch_size - 1e-9)
    by_steps = math.inf if steps is None else steps - position.step
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
    saver: checkpoints.Saver,
    best: BestCheckpoint,
    signals: TrainingSignals,
) -> list[Action]:
    """Makes what happens between steps, in the order in which it happens."""
    log, checks, train_dir = config.log, config.evaluation, config.checkpoint.train_dir
    save_interval = Interval(steps=config.checkpoint.save_interval_steps, seconds=config.checkpoint.save_interval_secs)
    is_new = checkpoints.latest_checkpoint(train_dir) is None
    at_start = is_new and config.checkpoint.recover_from_nonfinite > 0
    actions: list[Action] = [Log(log, progress), Save(save_interval, saver, state, progress, at_start)]
    if evaluates(config):
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
        actions.append(Evaluate(interval, evaluator, state, eval_dir, measured.num_examples, best, signals.is_set))
    if log.save_summaries_secs or log.save_summaries_steps:
        next_images = NextImages(config, dataset, preprocessing)
        actions.append(Summarize(log, state, preprocessing, next_images, train_dir))
    return actions
