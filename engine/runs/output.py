"""Runs as a table, as CSV and as JSON, with the options in which they differ.

print(as_table(statuses, width=100))
"""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Sequence
from typing import Any

from configs.options import flat_options
from configs.training import TrainConfig
from engine.runs.status import RunStatus
from support.tables import brief, csv_cell, format_table

_HEADER = (
    'run', 'state', 'step', 'time left', 'train loss', 'accuracy', 'best', 'images/s', 'data wait', 'checkpoint',
)  # fmt: skip
_LONGEST_VALUE = 24  # characters of an option's value in a table
_UNITS = (('s', 0, 60), ('min', 0, 60), ('h', 1, 24))  # each with its decimals, and how many make the next one


def differences(runs: Sequence[RunStatus]) -> dict[str, list[Any]]:
    """Returns the options in which runs differ, other than their folder, each with its value in each run.

    A run whose options are unknown has None.
    """
    known = [run.options for run in runs if run.options is not None]
    names = [name for name in flat_options(TrainConfig) if name != 'train_dir']
    differing = [name for name in names if any(options[name] != known[0][name] for options in known)]
    return {name: [None if run.options is None else run.options[name] for run in runs] for name in differing}


def as_table(runs: Sequence[RunStatus], width: int) -> str:
    """Returns a table with a row for each run, and one of the options in which they differ.

    A table wider than `width` characters continues below, with the names of the runs repeated.
    """
    longest = max(width // 3, 8)
    names = [_shortened(name, longest) for name in _names(runs)]
    parts = _fitted([_HEADER, *(_row(name, run) for name, run in zip(names, runs, strict=True))], width)
    differing = differences(runs)
    if differing:
        rows = [('option', *names), *((name, *map(_shown, runs, values)) for name, values in differing.items())]
        has_more_runs = len(runs) > len(differing)
        parts += _fitted(list(zip(*rows, strict=True)) if has_more_runs else rows, width)
    return '\n\n'.join(parts)


def as_csv(runs: Sequence[RunStatus]) -> str:
    """Returns a row for each run: its status, its metrics, and the options in which the runs differ."""
    metrics = sorted({name for run in runs for name in run.metrics})
    differing = differences(runs)
    rows = []
    for place, run in enumerate(runs):
        row = _flat(run)
        of_run = row.pop('metrics')
        del row['problems']
        row |= {f'eval_{name}': of_run.get(name) for name in metrics}
        row |= {f'option_{name}': _joined(values[place]) for name, values in differing.items()}
        rows.append({name: csv_cell(value) if isinstance(value, str) else value for name, value in row.items()})
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().rstrip('\n')


def as_json(runs: Sequence[RunStatus]) -> str:
    """Returns the runs, and the options in which they differ with one value per run; NaN becomes null."""
    return json.dumps({'runs': [_flat(run) for run in runs], 'differences': differences(runs)}, indent=1)


FORMATS = {'csv': as_csv, 'json': as_json}


def _flat(run: RunStatus) -> dict[str, Any]:
    values = {field.name: getattr(run, field.name) for field in dataclasses.fields(run) if field.name != 'options'}
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _joined(value: Any) -> Any:
    return ','.join(map(str, value)) if isinstance(value, tuple) else value


def _names(runs: Sequence[RunStatus]) -> list[str]:
    """Returns the runs' paths relative to their common folder; characters that cannot be printed are escaped."""
    paths = [os.path.abspath(run.path) for run in runs]
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [_printable(os.path.relpath(path, shared)) for path in paths]


def _printable(text: str) -> str:
    return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f'{text[: longest // 2 - 2]}...{text[-(longest - longest // 2 - 1) :]}'


def _shown(run: RunStatus, value: Any) -> str:
    """Returns an option's value as text, '?' if the run's options are unknown."""
    return '?' if run.options is None else _shortened(_printable(brief(value)), _LONGEST_VALUE)


def _row(name: str, run: RunStatus) -> tuple[str, ...]:
    best = '' if run.best_value is None else f'{run.best_value:.4f} at {run.best_step}'
    return (
        name,
        run.state,
        f'{_text(run.step)}/{run.last_step}' if run.last_step is not None else _text(run.step),
        '' if run.seconds_left is None else _duration(run.seconds_left),
        '' if run.loss is None else f'{run.loss:.4f}',
        f'{run.metrics["accuracy"]:.4f}' if 'accuracy' in run.metrics else '',
        best if run.best_metric == 'accuracy' or not best else f'{run.best_metric} {best}',
        '' if run.images_per_second is None else f'{run.images_per_second:.0f}',
        '' if run.data_wait_share is None else f'{run.data_wait_share:.0%}',
        '' if run.checkpoint_age is None else f'{run.checkpoint_step}, {_duration(run.checkpoint_age)} ago',
    )


def _text(step: int | None) -> str:
    return '-' if step is None else str(step)


def _duration(seconds: float) -> str:
    """Returns a duration in the largest unit of which it is at least 1.5."""
    for unit, digits, following in _UNITS:
        if seconds < 1.5 * following:
            return f'{seconds:.{digits}f} {unit}'
        seconds /= following
    return f'{seconds:.1f} d'


def _fitted(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Returns a table, or, if it is wider than `width`, several that divide its columns and repeat the first."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    groups: list[list[int]] = []
    used = 0
    for place, needed in enumerate(others, start=1):
        if not groups or used + 2 + needed > width:
            groups.append([0])
            used = first
        groups[-1].append(place)
        used += 2 + needed
    return [format_table([[row[place] for place in group] for row in rows], numbers=True) for group in groups]
