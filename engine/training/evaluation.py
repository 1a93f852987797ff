"""Evaluation during training: an action between steps.

evaluate = make_evaluation(run, best, signals)      # None where the options ask for none
actions = make_actions(run, batches, evaluate, progress, saver)
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from datasets import dataset_factory, decoded
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.evaluation.evaluate import eval_dir, report, write_summaries
from engine.evaluation.evaluator import DEFAULT_BATCH_SIZE, EvaluationStopped, Evaluator, Results
from engine.evaluation.summaries import SummaryWriter
from engine.training.actions import Action, Interval, Moment, check_variables
from engine.training.best_checkpoint import BestCheckpoint
from engine.training.setup import Run, cache_mode
from engine.training.signals import TrainingSignals
from engine.training.state import Position, TrainState


class Evaluate(Action):
    """Accuracy, Recall@k and loss of the weights as they are, or of their moving averages where those are kept.

    Attributes:
        results: Of the last evaluation; None before the first.
    """

    def __init__(
        self,
        interval: Interval,
        evaluator: Evaluator,
        state: TrainState,
        writer: SummaryWriter,
        num_examples: int,
        best: BestCheckpoint,
        should_stop: Callable[[], bool],
        cluster: Cluster = SINGLE_PROCESS,
    ):
        self.interval, self._cluster = interval, cluster
        self._evaluator, self._state, self._best, self._should_stop = evaluator, state, best, should_stop
        self._writer, self._num_examples = writer, num_examples
        self.results: Results | None = None

    def begin(self, position: Position, last_step: float) -> None:
        """Repeats the evaluation of the checkpoint that training resumes from, if it was cut short."""
        super().begin(position, last_step)
        self._best.go_back_to(position.step)
        self.ends_training = self._best.is_exhausted
        is_due = position.step == last_step or self.interval.next_step(position.step - 1) == position.step
        is_lacking = is_due and position.step > 0 and self._best.needs_evaluation(position.step)
        self._writer.begin_at(position.step + (0 if is_lacking else 1))
        if is_lacking:
            self._measure(position)

    def act(self, moment: Moment) -> None:
        self._measure(moment.position)

    def _measure(self, position: Position) -> None:
        variables = {**self._state.saved_variables(), **position.counters()}
        values = {name: tf.convert_to_tensor(value) for name, value in variables.items()}
        check_variables(values, position)  # logits that are not numbers would be counted as the first class
        try:
            with _averages_as_weights(self._state):
                measured = self._evaluator(self._should_stop)
        except EvaluationStopped:
            logging.info('the evaluation was cut short; it comes first when training goes on')
            return
        self.results = {**measured, 'step': position.step, 'checkpoint_path': ''}
        if self._cluster.is_chief:
            report(self.results, self._num_examples)
            write_summaries(self._writer, self.results)
        self._best.take(self.results, values)
        self.ends_training = self._best.is_exhausted


@contextlib.contextmanager
def _averages_as_weights(state: TrainState) -> Iterator[None]:
    """Lets the net compute with its moving averages, if there are any, and puts the weights back."""
    if state.averages is None:
        yield
        return
    kept = {name: variable.numpy() for name, variable in state.variables.items()}
    try:
        for name, variable in state.variables.items():
            variable.assign(tf.convert_to_tensor(state.averages.averages[name + state.averages.SUFFIX]))
        yield
    finally:
        for name, variable in state.variables.items():
            variable.assign(kept[name])


def make_evaluation(run: Run, best: BestCheckpoint, signals: TrainingSignals) -> Evaluate | None:
    """Makes the evaluation of a run, if its options ask for one, and opens its data; a signal cuts it short.

    Raises:
        InputError: as `get_dataset` and `decoded.with_cache`; or workers whose data differ.
    """
    config, cluster, dataset, checks = run.config, run.cluster, run.dataset, run.config.evaluation
    if not checks.is_wanted:
        return None
    measured = cluster.after_chief(
        lambda: dataset_factory.get_dataset(
            dataset.name,
            dataset.dataset_dir or None,
            checks.eval_split_name,
            dataset.labels_offset,
            'eval_split_name',
            record_names=dataset.record_names,
        )
    )
    cluster.check_same({'examples to evaluate': measured.identity()})
    measured = decoded.with_cache(measured, cache_mode(config.data), run.preprocessing.source_channels, math.inf)
    evaluator = Evaluator(
        run.state.model,
        measured,
        run.preprocessing,
        run.strategy,
        batch_size=DEFAULT_BATCH_SIZE,
        recall_at=checks.recall_at,
        xla=distribution.use_xla(config.devices, run.strategy),
        fast_convolutions=distribution.use_fast_convolutions(config.devices, run.strategy),
        cluster=cluster,
    )
    epochs = checks.eval_every_epochs * dataset.num_examples / config.data.examples_per_step
    has_averages = run.state.averages is not None
    return Evaluate(
        Interval(steps=checks.eval_every_steps or epochs),
        evaluator,
        run.state,
        SummaryWriter(eval_dir(config.checkpoint.train_dir, measured.split, has_averages)),
        measured.num_examples,
        best,
        signals.is_set,
        cluster,
    )
