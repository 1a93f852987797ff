"""Progress and metrics of a run, read from its `train_dir`, whether it is running or not.

status = RunReader('/tmp/digits').read()
status.state, status.step, status.metrics['accuracy']
"""

import dataclasses
import json
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.options import flat_values, from_flagfile, make_config
from configs.training import TrainConfig
from engine.runs.evaluations import EvaluationHistory, Measured, checked_rows
from engine.runs.files import CONFIG, DATA, HISTORY, LOCK, last_checkpoint
from engine.runs.history import History, HistoryReader, Series
from engine.runs.length import steps_left
from support.errors import InputError, first_line
from support.folder_lock import LockState, lock_state

_LOG_LINES = 10  # over which speed and data wait are taken
_LARGEST_FILE = 1 << 28


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """The status of a run. Values that its files do not have are None.

    Attributes:
        path: Its `train_dir`.
        state: running: a trainer holds the folder's lock; finished: the last step is saved and evaluated, or early
            stopping ended training; killed: the trainer ended without releasing its lock; stopped: none of these.
        step: The last step that was logged or saved.
        last_step: The step at which training ends.
        seconds_left: Time to the last step, at the pace since training started or resumed; only if it is running.
        loss: Total loss in the last log line.
        images_per_second: Median of the last ten log lines.
        data_wait_share: Share of the time in which steps waited for data, in [0, 1]; median of the same lines.
        evaluated_step: The step of the last evaluation.
        metrics: Its accuracy, recall_at_<k> and loss.
        best_metric: The metric that selects the best evaluation.
        best_value: Its highest value.
        best_step: The step at which it was measured.
        checkpoint_step: The step of the last checkpoint.
        checkpoint_age: Seconds since it was written.
        options: All options of the run; None if config.cfg is missing or damaged.
        problems: A line for each file that could not be read, or only in part.
    """

    path: str
    state: str
    step: int | None
    last_step: int | None
    seconds_left: float | None
    loss: float | None
    images_per_second: float | None
    data_wait_share: float | None
    evaluated_step: int | None
    metrics: dict[str, float]
    best_metric: str
    best_value: float | None
    best_step: int | None
    checkpoint_step: int | None
    checkpoint_age: float | None
    options: dict[str, Any] | None
    problems: tuple[str, ...]


class RunReader:
    """Reads a run's status; after the first `read`, only new events of the event files."""

    def __init__(self, train_dir: str):
        self._train_dir = train_dir
        self._history = HistoryReader(train_dir)
        self._problems: list[str] = []

    def read(self) -> RunStatus:
        """Returns the status of the run now.

        Raises:
            InputError: the folder cannot be read.
        """
        try:
            return self._read()
        except OSError as error:
            raise InputError(f'{error.filename or self._train_dir}: {error.strerror}') from error

    def _read(self) -> RunStatus:
        self._problems = []
        now, history, checkpoint = time.time(), self._history.read(), last_checkpoint(self._train_dir)
        config = self._config()
        saved_step, saved_at = checkpoint or (None, None)
        lines = history.training.get('losses/total_loss')
        logged_step = None if lines is None else int(lines.steps[-1])
        steps = [step for step in (logged_step, saved_step) if step is not None]
        last_step = self._last_step(config)
        evaluations = self._evaluations(config, history)
        measured = evaluations.compared[-1] if evaluations.compared else {}
        best = next((row for row in evaluations.compared if row['step'] == evaluations.best_step), {})
        state = self._state(config, evaluations, saved_step, last_step)
        return RunStatus(
            path=self._train_dir,
            state=state,
            step=max(steps, default=None),
            last_step=last_step,
            seconds_left=_seconds_left(history, last_step, now) if state == 'running' else None,
            loss=None if lines is None else float(lines.values[-1]),
            images_per_second=_recent(history.training.get('images_per_second')),
            data_wait_share=_recent(history.training.get('data_wait_share')),
            evaluated_step=measured.get('step'),
            metrics={name: value for name, value in measured.items() if _is_metric(name)},
            best_metric=evaluations.metric,
            best_value=best.get(evaluations.metric),
            best_step=best.get('step'),
            checkpoint_step=saved_step,
            checkpoint_age=None if saved_at is None else max(now - saved_at, 0.0),
            options=None if config is None else flat_values(config),
            problems=(*history.damaged, *self._problems),
        )

    def _text(self, name: str) -> str | None:
        """Returns the content of a file of the run; None if it is missing or cannot be read."""
        path = os.path.join(self._train_dir, name)
        if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST_FILE:
            return None
        try:
            with open(path, encoding='utf-8') as file:
                return file.read()
        except (OSError, ValueError) as error:
            self._problems.append(f'{path}: cannot be read: {first_line(error)}')
            return None

    def _damaged(self, name: str, error: Exception) -> None:
        path = os.path.join(self._train_dir, name)
        self._problems.append(f'{path}: damaged, or written by another version: {first_line(error)}')

    def _config(self) -> TrainConfig | None:
        text = self._text(CONFIG)
        if text is None:
            return None
        try:
            if '--train_dir=' not in text:
                raise ValueError('no flagfile')
            return make_config(TrainConfig, **from_flagfile(TrainConfig, text))
        except ValueError as error:
            self._damaged(CONFIG, error)
            return None

    def _last_step(self, config: TrainConfig | None) -> int | None:
        if config is None:
            return None
        num_examples, text = math.inf, self._text(DATA)
        try:
            num_examples = math.inf if text is None else int(json.loads(text)['num_examples'])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._damaged(DATA, error)
        steps = steps_left(config.length, config.data.dataset_name or '', num_examples, config.data.examples_per_step)
        return None if math.isinf(steps) else int(steps)

    def _evaluations(self, config: TrainConfig | None, history: History) -> EvaluationHistory:
        """Returns the evaluations during training; without any, those of other processes in its event files."""
        metric = 'accuracy'
        if config is not None and config.checkpoint.best_metric != 'none':
            metric = config.checkpoint.best_metric
        text = self._text(HISTORY)
        if text is not None:
            try:
                rows = checked_rows(json.loads(text))
                return EvaluationHistory({'metric': metric, **_place(config, rows)}, rows)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                self._damaged(HISTORY, error)
        latest = max(history.evaluations.values(), key=_written_at, default={})
        return EvaluationHistory({'metric': metric}, tuple(_rows(latest)))

    def _state(
        self, config: TrainConfig | None, evaluations: EvaluationHistory, saved_step: int | None, last_step: int | None
    ) -> str:
        lock = lock_state(self._train_dir, LOCK)
        if lock is LockState.HELD:
            return 'running'
        if config is not None and saved_step is not None:
            known, patience = evaluations.until(saved_step), config.evaluation.early_stopping_patience
            is_evaluated = known.last_step >= saved_step or not config.evaluation.is_wanted
            is_exhausted = patience is not None and known.evaluations_since_best >= patience
            if is_exhausted or (last_step is not None and saved_step >= last_step and is_evaluated):
                return 'finished'
        return 'killed' if lock is LockState.LEFT else 'stopped'


def _place(config: TrainConfig | None, rows: Sequence[Measured]) -> dict[str, Any]:
    """Returns the split and the weights that a run evaluates; without its options, those of its last evaluation."""
    if config is not None:
        return {
            'split': config.evaluation.eval_split_name,
            'averages': bool(config.loss.moving_average_decay),
        }
    return {name: rows[-1].get(name) for name in ('split', 'averages')} if rows else {}


def _seconds_left(history: History, last_step: int | None, now: float) -> float | None:
    """Estimates the time left from the log lines since training started or resumed, evaluations and saves included."""
    lines = history.training.get('losses/total_loss')
    if lines is None or last_step is None:
        return None
    is_new = lines.wall_times >= history.began
    steps, times = lines.steps[is_new], lines.wall_times[is_new]
    if len(steps) < 2:
        return None
    pace = (times[-1] - times[0]) / (steps[-1] - steps[0])
    return max(float(times[-1] + pace * (last_step - steps[-1]) - now), 0.0)


def _recent(series: Series | None) -> float | None:
    return None if series is None else float(np.median(series.values[-_LOG_LINES:]))


def _is_metric(name: str) -> bool:
    return name == 'loss' or name.startswith(('accuracy', 'recall_at_'))


def _written_at(scalars: dict[str, Series]) -> float:
    return scalars['accuracy'].wall_times[-1] if 'accuracy' in scalars else -math.inf


def _rows(scalars: dict[str, Series]) -> list[Measured]:
    """Returns the evaluations in a folder of event files, like the rows of evaluations.json."""
    rows: dict[int, Measured] = {}
    for tag, series in scalars.items():
        name = 'loss' if tag == 'losses/cross_entropy' else tag
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            if _is_metric(name):
                rows.setdefault(step, {'step': step})[name] = value
    return [rows[step] for step in sorted(rows)]
