"""Training.

    result = train(make_config(TrainConfig, dataset_name='digits', train_dir='/tmp/digits', num_epochs=12))

`train` assembles the run (`setup.py`), finds its starting point, and runs the loop (`loop.py`). The step is in
`step.py`, its batches in `input.py`, the actions between steps in `actions.py`.
"""

import contextlib
import dataclasses
import math
import shlex

from absl import logging

from configs.training import TrainConfig, TrainEvalOptions
from engine import checkpoints
from engine.distributed import distribution
from engine.distributed.joining import join_cluster
from engine.distributed.kernels import describe_kernels
from engine.evaluation.measure import Results
from engine.optim.reduction import broadcast
from engine.training import run_dir
from engine.training.actions import make_actions
from engine.training.best_checkpoint import BestCheckpoint, make_best
from engine.training.evaluation import make_evaluation
from engine.training.loop import Loop
from engine.training.profiling import make_profile
from engine.training.recovery import NonFiniteError, Recovery
from engine.training.setup import Run, open_run, refuse_ftrl_with_warmup, with_default_dataset
from engine.training.signals import TrainingSignals
from engine.training.state import Position, restore_latest, warm_start
from support.progress import Progress


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The result of a training run.

    Attributes:
        step: The last step.
        checkpoint_path: Its checkpoint; empty if a signal arrived before the first step.
        results: Results of the last evaluation in this process, or None.
        stopped_by: Number of the signal that ended training early, or None.
    """

    step: int
    checkpoint_path: str
    results: Results | None
    stopped_by: int | None = None


def train(config: TrainConfig) -> TrainResult:
    """Trains a net from a config; resumes if `train_dir` has a checkpoint.

    All workers call this; only the chief reads and writes `train_dir`.

    Raises:
        InputError: an error that the user can fix, or another worker is lost.
    """
    refuse_ftrl_with_warmup(config.optimizer, config.schedule)
    config = with_default_dataset(config)
    data, options, train_dir = config.data, config.checkpoint, config.checkpoint.train_dir
    with contextlib.ExitStack() as stack:
        # ------------------------------------------------------------ the net, the data, the devices, the workers
        cluster = stack.enter_context(join_cluster(config))
        run = open_run(config, cluster)
        signals = stack.enter_context(TrainingSignals())
        stack.enter_context(run_dir.lock_run_dir(train_dir, cluster))
        cluster.on_chief(lambda: run_dir.check_can_resume(run))

        # ------------------------------------------------------------ the starting point
        # In this order: resume the run in train_dir, else take the weights of --checkpoint_path, else initialise them.
        position = _resume(run) or _begin(run)
        last_step = position.step + run.steps_left(position)
        best = make_best(run)
        best.go_back_to(position.step)
        if position.step and is_over(config.evaluation, best, position, last_step):
            return _finished_before(run, best, position)

        # ------------------------------------------------------------ the compiled step and its input
        # The schedule counts in batches of the current size, even if an earlier part of the run used another size.
        end = last_step - position.step + position.images_seen / data.examples_per_step
        run_steps = run.make_steps(end)
        batches = run.make_input(last_step - position.step, skips_bad_images=data.on_bad_image == 'skip')

        # ------------------------------------------------------------ the loop
        shown_end = None if math.isinf(last_step) else int(last_step)
        with (
            Progress('training', shown_end, first=position.step) as progress,
            checkpoints.Saver(
                train_dir, options.max_checkpoints_to_keep, options.keep_checkpoint_every_n_hours
            ) as saver,
        ):
            evaluate = make_evaluation(run, best, signals)
            actions = [*make_actions(run, batches, evaluate, progress, saver), *make_profile(run, progress)]
            for action in actions:
                stack.callback(action.close)
            if cluster.is_chief:
                # Only now, when the whole config has been accepted.
                run_dir.describe(run)
                log_plan(run, last_step)
            loop = Loop(run, run_steps, batches, actions, signals, last_step)
            recover = Recovery(options.recover_from_nonfinite, saver, train_dir, lambda: _resume(run), cluster)
            while True:
                try:
                    step = loop.train(position)
                    break
                except NonFiniteError as error:
                    position = recover(error, position.recoveries)
        log_end(step, train_dir, config.evaluation.eval_split_name, signals.received, cluster.is_chief)
        latest = cluster.on_chief(lambda: checkpoints.latest_checkpoint(train_dir)) or ''
        return TrainResult(step, latest, evaluate.results if evaluate else None, signals.received)


def _resume(run: Run) -> Position | None:
    """Restores the run's newest checkpoint on all workers; returns its position, or None if there is none."""
    state = run.state  # on all workers, which create it together

    def restore_on_chief() -> dict[str, int] | None:
        position = restore_latest(run.config.checkpoint, run.config.data, state)
        return None if position is None else dataclasses.asdict(position)

    found = run.cluster.on_chief(restore_on_chief)
    if found is None:
        return None
    _broadcast(run)
    return Position(**found)


def _begin(run: Run) -> Position:
    """Starts a new run with the weights of `--checkpoint_path` if given, else with initial weights."""
    options, data, state = run.config.checkpoint, run.config.data, run.state
    if options.checkpoint_path:
        run.cluster.on_chief(lambda: warm_start(options, state, data.labels_offset))
        _broadcast(run)
    return Position()


def _broadcast(run: Run) -> None:
    """Copies the chief's restored values to all workers."""
    if run.cluster.count > 1:
        with distribution.naming_lost_workers(run.cluster):
            broadcast(run.strategy, list(run.state.saved_variables().values()))


def is_over(checks: TrainEvalOptions, best: BestCheckpoint, position: Position, last_step: float) -> bool:
    """Returns whether a run is finished: it was stopped early, or its last step is made and evaluated."""
    if best.is_exhausted:
        return True
    return position.step >= last_step and not (checks.is_wanted and best.needs_evaluation(position.step))


def _finished_before(run: Run, best: BestCheckpoint, position: Position) -> TrainResult:
    """Logs that the run is finished and returns its result."""
    train_dir = run.config.checkpoint.train_dir
    latest = run.cluster.on_chief(lambda: checkpoints.checkpoint_of_step(train_dir, position.step)) or ''
    reached = 'was stopped early' if best.is_exhausted else 'has reached the last step'
    logging.info('nothing to do: %s %s, %d', latest, reached, position.step)
    return TrainResult(position.step, latest, None)


def log_plan(run: Run, last_step: float) -> None:
    """Logs the data, net, batches, kernels and length of the training that begins."""
    data, dataset, spec, replicas = run.config.data, run.dataset, run.spec, run.strategy.num_replicas_in_sync
    logging.info(
        '%s on %s, split %s: %d examples of %d classes, %d px, %s preprocessing',
        spec.model_name, dataset.name, dataset.split, dataset.num_examples, spec.num_classes, spec.image_size,
        spec.preprocessing_name,
    )  # fmt: skip
    added = (
        f' {data.gradient_accumulation_steps} of which make one update,' if data.gradient_accumulation_steps > 1 else ''
    )
    logging.info(
        'batches of %d (%d on each of %d devices),%s %.1f steps per epoch; checkpoints go to %s',
        data.batch_size, data.batch_size // replicas, replicas, added, dataset.num_examples / data.examples_per_step,
        run.config.checkpoint.train_dir,
    )  # fmt: skip
    logging.info('computed by %s', describe_kernels(run.strategy))
    if not math.isinf(last_step):
        logging.info('training ends at step %d', last_step)
    else:
        logging.info('neither --max_number_of_steps nor --num_epochs is given: training runs until you stop it')


def log_end(step: int, train_dir: str, eval_split: str | None, stopped_by: int | None, is_chief: bool) -> None:
    """Logs how to resume or evaluate the run; only the chief logs the evaluation command."""
    if stopped_by is not None:
        logging.info(
            'stopped at step %d; the same command resumes from there (%s)',
            step,
            shlex.join([f'--train_dir={train_dir}']),
        )
    elif not is_chief:
        logging.info('finished at step %d', step)
    else:
        command = ['python', 'eval_image_classifier.py', f'--checkpoint_path={train_dir}']
        if eval_split is not None:
            command.append(f'--dataset_split_name={eval_split}')
        logging.info('finished at step %d; evaluate it with: %s', step, shlex.join(command))
