"""The state of training as saved in a checkpoint: weights, optimizer slots, moving averages, and the position.

with strategy.scope():
    state = make_state(config, spec)
restore_run(checkpoint, state, labels_offset)     # or warm_start(options, state, labels_offset), or neither
position = Position.load(checkpoint, batch_size=32).after(steps=10, batch_size=32)
"""

import dataclasses
import re

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from configs.training import CheckpointOptions, DataOptions, TrainConfig
from engine import checkpoints
from engine.classifiers.model_spec import ModelSpec
from engine.optim.loss_scale import LossScale
from engine.optim.moving_averages import ExponentialMovingAverage
from engine.optim.optimizers import Optimizer, make_optimizer
from nets.layers import BatchNormalization, L2Regularizer
from nets.variables import slim_variables
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class Position:
    """The progress of training.

    Attributes:
        step: Number of steps made.
        images_seen: Number of examples trained on; determines the learning rate and the end of training.
        images_skipped: Number of examples of the training stream skipped, see `engine.training.recovery`.
        recoveries: Number of recoveries from non-finite values.
    """

    step: int = 0
    images_seen: int = 0
    images_skipped: int = 0
    recoveries: int = 0

    @property
    def stream(self) -> int:
        """Position in the training stream; determines the order of examples and all random numbers."""
        return self.images_seen + self.images_skipped

    def after(self, steps: int, batch_size: int) -> 'Position':
        """Returns the position `steps` steps later."""
        return dataclasses.replace(self, step=self.step + steps, images_seen=self.images_seen + steps * batch_size)

    def counters(self) -> dict[str, np.int64]:
        """Returns the counters to store in a checkpoint by name, without the rare ones that are 0."""
        kept = {checkpoints.STEP_KEY: self.step, checkpoints.IMAGES_SEEN_KEY: self.images_seen}
        rare = {checkpoints.IMAGES_SKIPPED_KEY: self.images_skipped, checkpoints.RECOVERIES_KEY: self.recoveries}
        kept |= {name: value for name, value in rare.items() if value}
        return {name: np.int64(value) for name, value in kept.items()}

    @classmethod
    def load(cls, checkpoint: checkpoints.Checkpoint, batch_size: int) -> 'Position':
        """Reads the position from a checkpoint; slim's checkpoints have only the step.

        Raises:
            DamagedCheckpointError: the checkpoint cannot be read.
        """
        step = checkpoint.step
        return cls(
            step,
            checkpoint.read_int(checkpoints.IMAGES_SEEN_KEY, step * batch_size),
            checkpoint.read_int(checkpoints.IMAGES_SKIPPED_KEY, 0),
            checkpoint.read_int(checkpoints.RECOVERIES_KEY, 0),
        )


@dataclasses.dataclass(frozen=True)
class TrainState:
    """All state that training changes, and the constants that belong to it.

    Attributes:
        model: Maps float32 images to float32 logits.
        variables: All variables of the net, by slim's names.
        trainable: The trained variables, in the order of the net.
        weight_decays: L2 factors by variable name.
        optimizer: The optimizer, built for `trainable`.
        averages: Moving averages of `variables`, or None.
        loss_scale: The loss scale for float16, or None.
    """

    model: keras.Model
    variables: dict[str, keras.Variable]
    trainable: dict[str, keras.Variable]
    weight_decays: dict[str, float]
    optimizer: Optimizer
    averages: ExponentialMovingAverage | None = None
    loss_scale: LossScale | None = None

    @property
    def moving_statistics(self) -> list[tuple[keras.Variable, float]]:
        """Moving statistics of batch normalisation, each with its decay.

        With `--freeze_batch_norm`, only those of trained layers.
        """
        layers = [layer for layer in _batch_norms(self.model) if layer.trainable]
        return [(kept, layer.momentum) for layer in layers for kept in (layer.moving_mean, layer.moving_variance)]

    def saved_variables(self) -> dict[str, tf.Variable]:
        """Returns weights, optimizer slots, moving averages and loss scale by their names in slim's checkpoints."""
        saved = {name: variable.value for name, variable in self.variables.items()} | self.optimizer.slots
        if self.averages:
            saved |= self.averages.averages
        if self.loss_scale:
            saved |= self.loss_scale.variables
        return saved


def make_state(config: TrainConfig, spec: ModelSpec) -> TrainState:
    """Builds the net with initial weights, optimizer slots and moving averages.

    Raises:
        InputError: `--trainable_scopes` leaves nothing to train, or `--weight_decay_exclude` matches nothing.
    """
    model = spec.make_model(
        mixed_precision=config.net.mixed_precision,
        weight_decay=config.net.weight_decay,
        dropout_keep_prob=config.net.dropout_keep_prob,
        seed=config.data.seed,
    )
    variables = slim_variables(model)
    trainable = _trainable(variables, config.checkpoint.trainable_scopes)
    weight_decays = {
        name: variable.regularizer.weight_decay
        for name, variable in variables.items()
        if isinstance(variable.regularizer, L2Regularizer)
    }
    weight_decays = _without(weight_decays, config.net.weight_decay_exclude)
    optimizer = make_optimizer(config.optimizer)
    optimizer.build(trainable, weight_decays)
    decay = config.loss.moving_average_decay
    averages = ExponentialMovingAverage(decay, variables) if decay else None
    loss_scale = LossScale() if config.net.mixed_precision == 'float16' else None
    if config.checkpoint.trainable_scopes:
        _freeze_batch_norm(model, config.checkpoint)
    return TrainState(model, variables, trainable, weight_decays, optimizer, averages, loss_scale)


def _batch_norms(model: keras.Model) -> list[BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, BatchNormalization)]


def _freeze_batch_norm(model: keras.Model, options: CheckpointOptions) -> None:
    """With `--freeze_batch_norm`, freezes batch normalisation outside the trained scopes; else logs that it moves.

    Raises:
        InputError: `--freeze_batch_norm` is given, but there is no batch normalisation outside the trained scopes.
    """
    patterns = [re.compile(scope) for scope in options.trainable_scopes]
    names = {id(variable): name for name, variable in slim_variables(model).items()}
    frozen = [
        layer
        for layer in _batch_norms(model)
        if not any(pattern.match(names[id(variable)]) for variable in layer.variables for pattern in patterns)
    ]
    if options.freeze_batch_norm and not frozen:
        raise InputError(
            f'--freeze_batch_norm: {model.name} has no batch normalisation outside --trainable_scopes; leave it out'
        )
    if options.freeze_batch_norm:
        for layer in frozen:
            layer.trainable = False
    elif frozen:
        logging.info(
            'batch normalisation outside --trainable_scopes keeps updating its moving statistics, as in slim; '
            '--freeze_batch_norm freezes them'
        )


def _without(weight_decays: dict[str, float], excluded: tuple[str, ...]) -> dict[str, float]:
    """Returns the L2 factors of the variables whose names no regular expression of `excluded` matches anywhere."""
    for pattern in excluded:
        if not any(re.search(pattern, name) for name in weight_decays):
            raise InputError(
                f'--weight_decay_exclude={pattern}: matches no variable that decays; there are '
                f'{", ".join(weight_decays) or "none"}'
            )
    return {
        name: decay
        for name, decay in weight_decays.items()
        if not any(re.search(pattern, name) for pattern in excluded)
    }


def _trainable(variables: dict[str, keras.Variable], scopes: tuple[str, ...]) -> dict[str, keras.Variable]:
    """Returns the trainable variables whose names match a scope, a regular expression, from the start; default all."""
    try:
        patterns = [re.compile(scope) for scope in scopes or ('',)]
    except re.error as error:
        raise InputError(f'--trainable_scopes={",".join(scopes)}: not a regular expression: {error}') from error
    chosen = {
        name: variable
        for name, variable in variables.items()
        if variable.trainable and any(pattern.match(name) for pattern in patterns)
    }
    if not chosen:
        raise InputError(
            f'--trainable_scopes={",".join(scopes)}: matches no variable; there are {", ".join(variables)}'
        )
    return chosen


def restore_latest(options: CheckpointOptions, data: DataOptions, state: TrainState) -> Position | None:
    """Restores the newest readable checkpoint of `train_dir`; returns its position, or None if there is no checkpoint.

    Raises:
        InputError: no checkpoint can be read, or a checkpoint belongs to another net.
    """
    train_dir = options.train_dir
    candidates, damaged = checkpoints.newest_first(train_dir), []
    for prefix in checkpoints.incomplete_checkpoints(train_dir):
        logging.warning('%s has no .index file: it is incomplete and left untouched', prefix)
    for prefix in candidates:
        try:
            checkpoint = checkpoints.Checkpoint(prefix)
            restore_run(checkpoint, state, data.labels_offset)
            if options.checkpoint_path:
                logging.info('--checkpoint_path is ignored: --train_dir has a checkpoint')
            position = Position.load(checkpoint, data.batch_size)
        except checkpoints.DamagedCheckpointError as error:
            logging.warning('%s; trying the checkpoint before it', error)
            damaged.append(prefix)
            continue
        for other in damaged:
            if checkpoints.lies_in(other, train_dir):
                logging.warning('%s is now %s', other, checkpoints.set_aside(other))
            else:
                logging.warning('%s is not moved: it is outside --train_dir=%s', other, train_dir)
        return position
    if damaged:
        raise InputError(
            f'--train_dir={train_dir}: none of its {len(candidates)} checkpoints can be read; move them away to begin '
            'anew'
        )
    return None


def restore_run(checkpoint: checkpoints.Checkpoint, state: TrainState, labels_offset: int) -> None:
    """Restores weights, slots and averages; `Position.load` reads the position.

    Raises:
        DamagedCheckpointError: the checkpoint is damaged.
        InputError: the checkpoint belongs to another net or another optimizer.
    """
    optional = state.loss_scale.variables if state.loss_scale else ()
    plan = checkpoints.restore(checkpoint, state.saved_variables(), optional=optional, labels_offset=labels_offset)
    left = [name for name in plan.training_state if not checkpoints.is_counter(name)]
    if left:
        logging.warning(
            '%s has more than this run goes on with, and later checkpoints will not: %s. That is for another '
            '--optimizer, --mixed_precision, --trainable_scopes or --moving_average_decay',
            *(checkpoint.prefix, checkpoints.describe_state(left)),
        )
    logging.info('resuming from %s', checkpoint.prefix)


def warm_start(options: CheckpointOptions, state: TrainState, labels_offset: int) -> None:
    """Restores weights, not averages, from `--checkpoint_path`, as in slim; the run's averages start at the weights."""
    weights = {name: variable.value for name, variable in state.variables.items()}
    assert options.checkpoint_path is not None
    checkpoints.warm_start(
        options.checkpoint_path,
        weights,
        options.checkpoint_exclude_scopes,
        options.ignore_missing_vars,
        labels_offset,
        options.checkpoint_scope,
    )
    if state.averages:
        for name, variable in state.variables.items():
            state.averages.averages[name + state.averages.SUFFIX].assign(variable.value)
