"""The evaluations of a run, and the best of them.

history = EvaluationHistory({'metric': 'accuracy', 'split': None, 'averages': False}, checked_rows(rows))
history.best_step
"""

import dataclasses
from typing import Any

Measured = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class EvaluationHistory:
    """The evaluations of a run, in the order of their steps.

    A decision at a step depends only on evaluations up to this step. So a run that resumes from an earlier checkpoint
    repeats the later evaluations and decides the same.

    Attributes:
        how: Criteria of comparison: `metric` (higher is better) or None; `split`; whether `averages` are evaluated.
        measured: For each evaluation: step, num_examples, accuracy, recall_at_<k>, loss, split and averages. Rows with
            another split or another value of averages stay in the file but are not compared.
    """

    how: dict[str, Any]
    measured: tuple[Measured, ...] = ()

    def until(self, step: int) -> 'EvaluationHistory':
        """Returns a copy without the evaluations after a step."""
        return dataclasses.replace(self, measured=tuple(row for row in self.measured if row['step'] <= step))

    def adding(self, measured: Measured) -> 'EvaluationHistory':
        """Returns a copy with a new evaluation, which replaces those of the same or later steps."""
        row = {**measured, **self._place}
        return dataclasses.replace(self, measured=(*self.until(measured['step'] - 1).measured, row))

    @property
    def metric(self) -> str:
        """The metric that selects the best checkpoint; '' if there is none."""
        return self.how['metric'] or ''

    @property
    def _place(self) -> dict[str, Any]:
        return {name: value for name, value in self.how.items() if name != 'metric'}

    @property
    def compared(self) -> list[Measured]:
        """The evaluations of the split and the weights in `how`."""
        return [row for row in self.measured if self._place.items() <= row.items()]

    @property
    def last_step(self) -> int:
        """Step of the last evaluation, -1 without one."""
        return max((row['step'] for row in self.compared), default=-1)

    @property
    def best_step(self) -> int | None:
        """The first step with the highest value of the metric; None without evaluations."""
        rows = [row for row in self.compared if self.metric in row]
        return max(rows, key=lambda row: row[self.metric])['step'] if rows else None

    @property
    def evaluations_since_best(self) -> int:
        """Number of evaluations after the best one."""
        best = self.best_step
        return 0 if best is None else sum(row['step'] > best for row in self.compared)


def checked_rows(rows: Any) -> tuple[Measured, ...]:
    """Returns the evaluations in the JSON value of evaluations.json.

    Raises:
        ValueError, TypeError or KeyError: the value is invalid.
    """
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
