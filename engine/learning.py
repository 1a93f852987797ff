"""The training loop.

    result = train(make_config(TrainConfig, dataset_name='digits', train_dir='/tmp/digits', num_epochs=12))

`train` is one road: what is trained on what, where it starts, the loop. The step itself is in `train_step.py`, its
batches in `train_input.py`, what happens between steps in `actions.py`.
"""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from configs.config import TrainConfig
from configs.errors import InputError
from configs.options import replace_options
from configs.progress import Progress
from datasets import dataset_factory, decoded, input_pipeline
from datasets.dataset_factory import Dataset
from engine import checkpoints, distribution, evaluation, run_dir
from engine.actions import Action, Evaluate, Moment
from engine.actions_factory import make_actions
from engine.best_checkpoint import BestCheckpoint, make_best
from engine.model_spec import ModelSpec
from engine.position import Position
from engine.recovery import NonFiniteError, Recovery, check_finite
from engine.schedules import make_schedule
from engine.signals import TrainingSignals
from engine.train_input import cache_mode, make_iterator
from engine.train_state import TrainState, make_state, restore_latest, warm_start
from engine.train_step import ReplicaStep, RunSteps, make_steps
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
    with TrainingSignals() as signals, run_dir.lock(run_dir.make(train_dir)):
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
    data, options, train_dir = config.data, config.checkpoint, config.checkpoint.train_dir
    preprocessing = spec.make_preprocessing(config.augment)
    run_dir.check_goes_on(train_dir, config, spec, dataset)
    with strategy.scope():
        state = make_state(config, spec)
    restored = restore_latest(config, state)
    if restored is None and options.checkpoint_path:
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
        checkpoints.Saver(train_dir, options.max_checkpoints_to_keep, options.keep_checkpoint_every_n_hours) as saver,
    ):
        actions = make_actions(config, state, cached, preprocessing, strategy, progress, saver, best, signals)
        run_dir.describe(train_dir, config, spec, dataset)  # only now that nothing of the config was refused
        log_plan(config, dataset, spec, strategy, last_step)
        loop = Loop(config, cached, preprocessing, run_steps, actions, signals, last_step)
        recover = Recovery(options.recover_from_nonfinite, saver, train_dir, lambda: restore_latest(config, state))
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


def is_over(config: TrainConfig, best: BestCheckpoint, position: Position, last_step: float) -> bool:
    """Says whether nothing is left to do: early stopping has ended the run, or its last step is made and measured."""
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
