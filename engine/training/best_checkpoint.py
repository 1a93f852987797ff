"""The best checkpoint, in `train_dir/best`, by the results in `train_dir/evaluations.json`; and when to stop early.

best = make_best(run)
best.go_back_to(step)
best.take(results, variables)
best.is_exhausted
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from datasets.text_files import load_json, write_text
from engine import checkpoints
from engine.checkpoints.files import BEST
from engine.classifiers.model_spec import ModelSpec
from engine.distributed.cluster import SINGLE_PROCESS, Cluster
from engine.evaluation.metrics import clip_recall_at
from engine.training.setup import Run
from support.errors import InputError, first_line

FILE_NAME, HISTORY = 'best.json', 'evaluations.json'
_NO_METRIC = 'none'
Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluationHistory:
    """The evaluations of a run, in the order of their steps.

    Whatever is decided at a step follows from what was measured up to it. So a run that resumes from an earlier
    checkpoint measures again what came after it, and decides the same.

    Attributes:
        how: What is compared: `metric`, the higher the better, or None; `split`; whether of moving `averages`.
        measured: For each evaluation step, num_examples, accuracy, recall_at_<k>, loss, and split and averages.
            Those of another split, or averaged or not otherwise, stay in the file and are compared with nothing.
    """

    how: dict[str, Any]
    measured: tuple[Measured, ...] = ()

    @classmethod
    def load(cls, train_dir: str, how: dict[str, Any]) -> 'EvaluationHistory':
        """Reads it; it is empty where there is none.

        Raises:
            InputError: the file is damaged.
        """
        path = os.path.join(train_dir, HISTORY)
        measured = load_json(path, _checked_rows, 'delete it, and evaluations begin anew')
        return cls(how, measured or ())

    def save(self, train_dir: str) -> None:
        """Writes it whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        rows = ',\n'.join(json.dumps(row) for row in self.measured)
        try:
            write_text(os.path.join(train_dir, HISTORY), f'[\n{rows}\n]\n')
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'--train_dir={train_dir}: {HISTORY}: {first_line(error)}') from error

    def until(self, step: int) -> 'EvaluationHistory':
        """Returns it without what was measured after a step."""
        return dataclasses.replace(self, measured=tuple(row for row in self.measured if row['step'] <= step))

    def adding(self, measured: Measured) -> 'EvaluationHistory':
        """Returns it with one evaluation more, which replaces any of the same step or later."""
        row = {**measured, **self._place}
        return dataclasses.replace(self, measured=(*self.until(measured['step'] - 1).measured, row))

    @property
    def metric(self) -> str:
        """By which the best is chosen; empty if none is."""
        return self.how['metric'] or ''

    @property
    def _place(self) -> dict[str, Any]:
        return {name: value for name, value in self.how.items() if name != 'metric'}

    @property
    def _compared(self) -> list[Measured]:
        return [row for row in self.measured if self._place.items() <= row.items()]

    @property
    def last_step(self) -> int:
        """Step of the last evaluation, -1 without one."""
        return max((row['step'] for row in self._compared), default=-1)

    @property
    def best_step(self) -> int | None:
        """First step of the highest value; None where nothing was measured."""
        rows = [row for row in self._compared if self.metric in row]
        return max(rows, key=lambda row: row[self.metric])['step'] if rows else None

    @property
    def evaluations_since_best(self) -> int:
        """Number of evaluations after the best one."""
        best = self.best_step
        return 0 if best is None else sum(row['step'] > best for row in self._compared)


def _checked_rows(rows: Any) -> tuple[Measured, ...]:
    if not isinstance(rows, list):
        raise TypeError('not a list of evaluations')
    for row in rows:
        if type(row['step']) is not int:
            raise ValueError(f'the step {row["step"]!r} is no whole number')
        for name, value in row.items():
            is_metric = name.startswith(('accuracy', 'recall_at_'))
            if is_metric and not (isinstance(value, int | float) and 0 <= value <= 1):
                raise ValueError(f'{name} is {value!r} at step {row["step"]}, not from 0 to 1')
    return tuple(rows)


class BestCheckpoint:
    """Keeps the checkpoint of the evaluation with the highest metric; the first of several equal ones.

    Its folder is a `train_dir` of its own for evaluation, prediction and export, and no rotation touches it. Where
    training has gone back, what it holds stays until something better is measured: it was measured too.
    """

    def __init__(
        self,
        train_dir: str,
        spec: ModelSpec,
        history: EvaluationHistory,
        patience: int | None,
        cluster: Cluster = SINGLE_PROCESS,
    ):
        """Opens it.

        Args:
            history: Its evaluations so far; with no metric, no checkpoint is kept.
            patience: So many evaluations after the best one exhaust it; None never does.
            cluster: All its workers know the evaluations, and the chief keeps the checkpoint.
        """
        self._train_dir, self._spec, self._history, self._patience = train_dir, spec, history, patience
        self._folder, self._cluster = os.path.join(train_dir, BEST), cluster

    def go_back_to(self, step: int) -> None:
        """Forgets what was measured after a step."""
        self._history = self._history.until(step)

    def needs_evaluation(self, step: int) -> bool:
        """Returns whether a step has not been evaluated, or was the best and its checkpoint is not there."""
        history = self._history
        if history.best_step != step:
            return history.last_step < step
        return self._cluster.on_chief(lambda: self._held_value() is None)

    @property
    def is_exhausted(self) -> bool:
        """Whether too many evaluations have brought nothing better."""
        return self._patience is not None and self._history.evaluations_since_best >= self._patience

    def take(self, results: Measured, variables: Mapping[str, tf.Tensor]) -> None:
        """Notes an evaluation, and saves the variables if it is the best.

        Raises:
            InputError: the folder cannot be written to.
        """
        names = [name for name in results if name.startswith(('accuracy', 'recall_at_')) or name == 'num_examples']
        names += ['loss'] if math.isfinite(results.get('loss', math.nan)) else []
        step = results['step']
        history = self._history.adding({'step': step, **{name: results[name] for name in names}})
        if self._cluster.is_chief:
            if history.best_step == step:
                held, value = self._held_value(), results[history.metric]
                if held is None or value > held:
                    self._save(step, value, variables)
            # Last: an evaluation that stands in the file is not made again.
            history.save(self._train_dir)
        self._history = history
        if self.is_exhausted:
            logging.info(
                '%s has not improved since step %s, for %d evaluations: training stops early',
                history.metric, history.best_step, history.evaluations_since_best,
            )  # fmt: skip

    def _held_value(self) -> float | None:
        """Returns the metric of the checkpoint that is there; None without one, or if it was measured otherwise."""
        try:
            return load_json(os.path.join(self._folder, FILE_NAME), self._value_of, 'a better one replaces it')
        except InputError:
            return None

    def _value_of(self, held: Any) -> float | None:
        is_there = checkpoints.is_complete(os.path.join(self._folder, held['checkpoint']))
        value = float(held['value'])
        return value if is_there and held['measured'] == self._history.how and 0 <= value <= 1 else None

    def _save(self, step: int, value: float, variables: Mapping[str, tf.Tensor]) -> None:
        try:
            tf.io.gfile.makedirs(self._folder)
            self._spec.save(self._folder)
            checkpoints.delete_parts(self._folder)
            prefix = checkpoints.save(self._folder, step, variables, max_to_keep=1)
            held = {'checkpoint': os.path.basename(prefix), 'value': value, 'measured': self._history.how}
            write_text(os.path.join(self._folder, FILE_NAME), json.dumps(held) + '\n')
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'{self._folder}: {first_line(error)}') from error


def make_best(run: Run) -> BestCheckpoint:
    """Returns the keeper of the best checkpoint.

    Raises:
        InputError: a metric that is not measured; a patience without evaluations or a metric.
    """
    checks, options = run.config.evaluation, run.config.checkpoint
    patience, metric = checks.early_stopping_patience, options.best_metric
    recalls = (f'recall_at_{k}' for k in clip_recall_at(checks.recall_at, run.spec.num_classes))
    metrics = ('accuracy', *recalls)
    if metric not in (*metrics, _NO_METRIC):
        raise InputError(f'--best_metric={metric}: must be one of {", ".join((*metrics, _NO_METRIC))}')
    if patience is not None and not checks.is_wanted:
        raise InputError(
            f'--early_stopping_patience={patience}: counts evaluations; give --eval_every_epochs or --eval_every_steps'
        )
    if patience is not None and metric == _NO_METRIC:
        raise InputError(f'--early_stopping_patience={patience}: needs a --best_metric: {", ".join(metrics)}')
    how = {
        'metric': None if metric == _NO_METRIC else metric,
        'split': checks.eval_split_name,
        'averages': bool(run.config.loss.moving_average_decay),
    }
    history = EvaluationHistory(how)
    if checks.is_wanted:
        measured = run.cluster.on_chief(lambda: EvaluationHistory.load(options.train_dir, how).measured)
        history = EvaluationHistory(how, tuple(measured))
    return BestCheckpoint(options.train_dir, run.spec, history, patience, run.cluster)
