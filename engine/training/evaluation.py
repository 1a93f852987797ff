"""Evaluation during training: an action between steps.

evaluate = make_evaluation(run, best, signals)      # None if the options ask for none
actions = make_actions(run, batches, evaluate, progress, saver)
"""

import contextlib
import math
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import logging

from configs.evaluation import EvalOptions
from datasets import dataset_factory, decoded
from engine.evaluation.health import Health
from engine.evaluation.measure import EvalSource, EvaluationStopped, Results, measure
from engine.evaluation.metrics import Observer, clip_recall_at
from engine.evaluation.outcomes import Collector
from engine.evaluation.results import eval_dir, report, write_summaries
from engine.evaluation.statistics import compute
from engine.evaluation.subject import ReplicatedNet
from engine.evaluation.summaries import SummaryWriter
from engine.evaluation.visuals import Visuals
from engine.training.actions import Action, Interval, Moment, check_variables
from engine.training.best_checkpoint import BestCheckpoint
from engine.training.setup import Run, cache_mode
from engine.training.signals import TrainingSignals
from engine.training.state import Position, TrainState


class Evaluate(Action):
    """Measures accuracy, Recall@k and loss of the current weights, or of their moving averages if the run has them.

    Attributes:
        results: Results of the last evaluation; None before the first.
    """

    def __init__(
        self,
        interval: Interval,
        net: ReplicatedNet,
        source: EvalSource,
        recall_at: tuple[int, ...],
        state: TrainState,
        writer: SummaryWriter,
        best: BestCheckpoint,
        should_stop: Callable[[], bool],
        draws: bool = False,
    ):
        self.interval, self._draws = interval, draws
        self._net, self._source, self._recall_at = net, source, recall_at
        self._health = Health(source)
        self._state, self._writer, self._best, self._should_stop = state, writer, best, should_stop
        self.results: Results | None = None

    def begin(self, position: Position, last_step: float) -> None:
        """Evaluates the checkpoint from which training resumes, if its evaluation was interrupted."""
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
        check_variables(values, position)  # NaN logits would count as the first class
        watched, collector = self._health.watch(self._net), Collector()
        visuals = Visuals(self._source.dataset, self._net.preprocessing) if self._draws else None
        observers: list[Observer] = [watched, collector, *([] if visuals is None else [visuals.curves])]
        try:
            with _averages_as_weights(self._state):
                (measured,) = measure([watched], self._source, self._recall_at, observers, self._should_stop)
        except EvaluationStopped:
            logging.info('the evaluation was interrupted; it runs first when training resumes')
            return
        self.results = {**measured, 'step': position.step, 'checkpoint_path': ''}
        if self._source.cluster.is_chief:
            report(self.results, self._source.dataset.num_examples)
            outcomes = collector.outcomes()
            statistics = compute(outcomes, self._recall_at, with_intervals=False)
            if visuals is not None:
                visuals.write(self._writer, position.step, outcomes, statistics)
            write_summaries(self._writer, self.results, statistics)
        self._health.report(
            watched, measured, f'step {position.step}', step=position.step, images_seen=position.images_seen
        )
        self._best.take(self.results, values)
        self.ends_training = self._best.is_exhausted


@contextlib.contextmanager
def _averages_as_weights(state: TrainState) -> Iterator[None]:
    """Replaces the net's weights by its moving averages, if there are any, and restores them at the end."""
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
    """Returns the evaluation of a run with its data opened, or None if not wanted; a signal interrupts it.

    Raises:
        InputError: as `get_dataset` and `decoded.with_cache`, or the workers' data differ.
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
    epochs = checks.eval_every_epochs * dataset.num_examples / config.data.examples_per_step
    has_averages = run.state.averages is not None
    return Evaluate(
        Interval(steps=checks.eval_every_steps or epochs),
        ReplicatedNet(run.state.model, run.preprocessing, run.strategy, config.devices),
        EvalSource(measured, run.strategy, batch_size=EvalOptions().batch_size, cluster=cluster),
        clip_recall_at(checks.recall_at, measured.num_classes, warn=True),
        run.state,
        SummaryWriter(eval_dir(config.checkpoint.train_dir, measured.split, has_averages)),
        best,
        signals.is_set,
        draws=cluster.is_chief and config.log.summarize_images,
    )
