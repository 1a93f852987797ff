"""Keeps the best checkpoint in `train_dir/best`, by `train_dir/evaluations.json`, and decides on early stopping.

best = make_best(run)
best.go_back_to(step)
best.take(results, variables)
best.is_exhausted
"""

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
from engine.runs.evaluations import EvaluationHistory, Measured, checked_rows
from engine.runs.files import HISTORY
from engine.training.setup import Run
from support.errors import InputError, first_line

FILE_NAME = 'best.json'
_NO_METRIC = 'none'


def load_history(train_dir: str, how: dict[str, Any]) -> EvaluationHistory:
    """Reads the evaluations from `train_dir`; there are none without a file.

    Raises:
        InputError: the file is damaged.
    """
    path = os.path.join(train_dir, HISTORY)
    measured = load_json(path, checked_rows, 'delete it, and evaluations begin anew')
    return EvaluationHistory(how, measured or ())


def save_history(train_dir: str, history: EvaluationHistory) -> None:
    """Writes the evaluations atomically to `train_dir`.

    Raises:
        InputError: the file cannot be written.
    """
    rows = ',\n'.join(json.dumps(row) for row in history.measured)
    try:
        write_text(os.path.join(train_dir, HISTORY), f'[\n{rows}\n]\n')
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--train_dir={train_dir}: {HISTORY}: {first_line(error)}') from error


class BestCheckpoint:
    """Keeps the checkpoint with the highest metric; the first of several equal ones.

    Its folder works as a `train_dir` for evaluation, prediction and export, and is not subject to rotation. After
    training goes back to an earlier step, the kept checkpoint stays until a better one is found: its result is valid.
    """

    def __init__(
        self,
        train_dir: str,
        spec: ModelSpec,
        history: EvaluationHistory,
        patience: int | None,
        cluster: Cluster = SINGLE_PROCESS,
    ):
        """Continues from the evaluations so far.

        Args:
            history: The evaluations so far; without a metric, no checkpoint is kept.
            patience: Number of evaluations after the best one that end training; None: no early stopping.
            cluster: The workers. All know the evaluations; the chief keeps the checkpoint.
        """
        self._train_dir, self._spec, self._history, self._patience = train_dir, spec, history, patience
        self._folder, self._cluster = os.path.join(train_dir, BEST), cluster

    def go_back_to(self, step: int) -> None:
        """Drops the evaluations after a step."""
        self._history = self._history.until(step)

    def needs_evaluation(self, step: int) -> bool:
        """Returns whether a step is not yet evaluated, or is the best and its checkpoint is missing."""
        history = self._history
        if history.best_step != step:
            return history.last_step < step
        return self._cluster.on_chief(lambda: self._held_value() is None)

    @property
    def is_exhausted(self) -> bool:
        """Whether `patience` evaluations have passed without a better one."""
        return self._patience is not None and self._history.evaluations_since_best >= self._patience

    def take(self, results: Measured, variables: Mapping[str, tf.Tensor]) -> None:
        """Records an evaluation, and saves the variables if it is the best.

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
            # Last, because an evaluation in the file is not repeated.
            save_history(self._train_dir, history)
        self._history = history
        if self.is_exhausted:
            logging.info(
                '%s has not improved since step %s, for %d evaluations: training stops early',
                history.metric, history.best_step, history.evaluations_since_best,
            )  # fmt: skip

    def _held_value(self) -> float | None:
        """Returns the kept checkpoint's metric; None if there is none or it was measured differently."""
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
    """Returns the run's BestCheckpoint, with the evaluations so far.

    Raises:
        InputError: the metric is not measured, or early stopping lacks evaluations or a metric.
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
        measured = run.cluster.on_chief(lambda: load_history(options.train_dir, how).measured)
        history = EvaluationHistory(how, tuple(measured))
    return BestCheckpoint(options.train_dir, run.spec, history, patience, run.cluster)
