"""The best checkpoint so far, in `train_dir/best`, and when no better one is to be expected.

best = BestCheckpoint(train_dir, spec, metric='accuracy', patience=5)
best.go_back_to(step)
best.take(results, variables)
best.is_exhausted
"""

import os
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

from configs.errors import InputError, first_line
from engine import checkpoints
from engine.evaluation_history import EvaluationHistory, Measured
from engine.model_spec import ModelSpec

FOLDER = 'best'
NO_METRIC = 'none'


class BestCheckpoint:
    """Keeps the checkpoint of the evaluation with the highest metric; the first of several equal ones.

    Its folder is a `train_dir` of its own for evaluation, prediction and export, and no rotation touches it.
    """

    def __init__(self, train_dir: str, spec: ModelSpec, metric: str, patience: int | None, metrics: tuple[str, ...]):
        """Opens it.

        Args:
            train_dir: Folder of the run.
            spec: Its net.
            metric: What is compared, or 'none'.
            patience: So many evaluations after the best one exhaust it; None never does.
            metrics: What evaluations measure.

        Raises:
            InputError: a metric that is not measured, or a patience without one.
        """
        if metric not in (*metrics, NO_METRIC):
            raise InputError(f'--best_metric={metric}: must be one of {", ".join((*metrics, NO_METRIC))}')
        if metric == NO_METRIC and patience is not None:
            raise InputError(f'--early_stopping_patience={patience}: needs a --best_metric: {", ".join(metrics)}')
        self._train_dir, self._spec, self._patience = train_dir, spec, patience
        self._keeps = metric != NO_METRIC
        self._history = EvaluationHistory.load(train_dir, metric)

    def go_back_to(self, step: int) -> None:
        """Forgets what was measured after a step."""
        self._history = self._history.until(step)

    @property
    def last_step(self) -> int:
        """Step of the last evaluation, -1 without one."""
        return self._history.last_step

    @property
    def is_exhausted(self) -> bool:
        """Whether too many evaluations have brought nothing better."""
        return self._patience is not None and self._history.evaluations_since_best >= self._patience

    def take(self, results: Measured, variables: Mapping[str, tf.Variable]) -> None:
        """Notes an evaluation, and saves the variables if it is the best.

        Raises:
            InputError: the folder cannot be written to.
        """
        names = [name for name in results if name.startswith(('accuracy', 'recall_at_')) or name == 'num_examples']
        step = results['step']
        history = self._history.adding({'step': step, **{name: results[name] for name in names}})
        if self._keeps and history.best_step == step:
            self._save(step, variables)
        # Last: an evaluation that stands in the file is not made again.
        self._history = history
        history.save(self._train_dir)
        if self.is_exhausted:
            logging.info(
                'no evaluation has raised %s above that of step %s for %d evaluations: training ends here',
                history.metric, history.best_step, history.evaluations_since_best,
            )  # fmt: skip

    def _save(self, step: int, variables: Mapping[str, tf.Variable]) -> None:
        folder = os.path.join(self._train_dir, FOLDER)
        try:
            tf.io.gfile.makedirs(folder)
            self._spec.save(folder)
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'{folder}: {first_line(error)}') from error
        checkpoints.delete_parts(folder)
        checkpoints.save(folder, step, variables, max_to_keep=1)
