"""Results of evaluations during training, kept in `train_dir/evaluations.json`: the best step, and when to stop early.

how = {'metric': 'accuracy', 'split': 'validation', 'averages': False}
history = EvaluationHistory.load('/tmp/tfmodel', how).until(step)
history = history.adding(results)
history.best_step, history.evaluations_since_best
"""

import dataclasses
import json
import os
from typing import Any

import tensorflow as tf

from datasets.text_files import load_json, write_text
from support.errors import InputError, first_line

FILE_NAME = 'evaluations.json'
Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluationHistory:
    """The evaluations of a run, in the order of their steps.

    Whatever is decided at a step follows from what was measured up to it. So a run that goes on from an earlier
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
        path = os.path.join(train_dir, FILE_NAME)
        measured = load_json(path, _checked_rows, 'delete it, and evaluations begin anew')
        return cls(how, measured or ())

    def save(self, train_dir: str) -> None:
        """Writes it whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        rows = ',\n'.join(json.dumps(row) for row in self.measured)
        try:
            write_text(os.path.join(train_dir, FILE_NAME), f'[\n{rows}\n]\n')
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'--train_dir={train_dir}: {FILE_NAME}: {first_line(error)}') from error

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
