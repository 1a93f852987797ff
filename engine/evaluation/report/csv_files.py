"""The tables of a report as complete CSV files; with several subjects, a column has their paths.

tables = csv_tables(content)      # {'per_class.csv': b'...', ...}
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from engine.evaluation.report.content import Content, Subject
from support.tables import csv_cell

Row = Sequence[Any]
NameOf = Callable[[int], str]


def csv_tables(content: Content) -> dict[str, bytes]:
    """Returns the content of the CSV files by name; numbers that are undefined are empty cells."""
    tables: dict[str, Iterable[Row]] = {
        'confusion.csv': _of_subjects(content, _CONFUSION, _confusion),
        'confused_pairs.csv': _of_subjects(content, (*_CONFUSION, 'share'), _confused_pairs),
        'per_class.csv': _of_subjects(content, _PER_CLASS, _per_class),
        'calibration.csv': _of_subjects(content, _CALIBRATION, _calibration),
    }
    if content.curves:
        tables['learning_curves.csv'] = _curves(content)
    if len(content.subjects) > 1:
        tables['differences.csv'] = _differences(content)
    return {name: _written(rows) for name, rows in tables.items()}


_CONFUSION = ('label', 'label_name', 'prediction', 'prediction_name', 'count')
_PER_CLASS = (
    *('class', 'name', 'support', 'predicted', 'correct', 'accuracy', 'accuracy_low', 'accuracy_high'),
    *('precision', 'f1'),
)
_CALIBRATION = ('low', 'high', 'count', 'confidence', 'accuracy')


def _of_subjects(content: Content, heading: Row, rows_of: Any) -> Iterator[Row]:
    several = len(content.subjects) > 1
    yield ('path', *heading) if several else heading
    for subject in content.subjects:
        for row in rows_of(subject, content.name_of):
            yield (subject.path, *row) if several else row


def _cells(subject: Subject) -> Any:
    return subject.statistics.confusion.tocoo()


def _confusion(subject: Subject, name_of: NameOf) -> Iterator[Row]:
    cells = _cells(subject)
    for label, prediction, count in zip(cells.row.tolist(), cells.col.tolist(), cells.data.tolist(), strict=True):
        yield label, name_of(label), prediction, name_of(prediction), count


def _confused_pairs(subject: Subject, name_of: NameOf) -> Iterator[Row]:
    supports = {each.index: each.support for each in subject.statistics.classes}
    wrong = [row for row in _confusion(subject, name_of) if row[0] != row[2]]
    for row in sorted(wrong, key=lambda row: -row[4]):
        yield *row, row[4] / supports[row[0]]


def _per_class(subject: Subject, name_of: NameOf) -> Iterator[Row]:
    for each in subject.statistics.classes:
        yield (
            *(each.index, name_of(each.index), each.support, each.predicted, each.correct, each.accuracy),
            *(*each.interval, each.precision, each.f1),
        )


def _calibration(subject: Subject, name_of: NameOf) -> Iterator[Row]:
    for each in subject.statistics.calibration:
        yield each.low, each.high, each.count, each.confidence, each.accuracy


def _curves(content: Content) -> Iterator[Row]:
    yield 'chart', 'curve', 'step', 'value'
    for curve in content.curves:
        for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
            yield curve.chart, curve.name, step, value


def _differences(content: Content) -> Iterator[Row]:
    """Yields the examples that some subjects classify correctly and others do not."""
    paths = [subject.path for subject in content.subjects]
    yield 'id', 'label', 'label_name', *(f'{kind} {path}' for path in paths for kind in ('correct:', 'prediction:'))
    correct = np.stack([subject.outcomes.correct for subject in content.subjects])
    labels = content.subjects[0].outcomes.labels
    for i in np.flatnonzero(correct.any(axis=0) & ~correct.all(axis=0)).tolist():
        cells = [(int(each.outcomes.correct[i]), int(each.outcomes.predictions[i])) for each in content.subjects]
        yield (
            content.example_ids[i],
            int(labels[i]),
            content.name_of(int(labels[i])),
            *(cell for pair in cells for cell in pair),
        )


def _written(rows: Iterable[Row]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator='\n').writerows([_cell(value) for value in row] for row in rows)
    return stream.getvalue().encode(errors='backslashreplace')


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return csv_cell(value)
    return '' if isinstance(value, float) and math.isnan(value) else value
