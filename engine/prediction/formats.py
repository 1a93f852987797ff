"""Formats predictions as text, CSV and JSON, one at a time.

for piece in FORMATS['json'](predictions):
    print(piece, end='')
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from datasets.files import shown
from engine.prediction.predictor import Prediction
from support.tables import csv_cell

CSV_HEADER = ('path', 'rank', 'index', 'label', 'probability', 'error')


def _as_text(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yields each image's path and, below it, one line per class with index, probability and label."""
    for prediction in predictions:
        lines = [f'  {guess.index:>5}  {guess.probability:.4f}  {shown(guess.label)}' for guess in prediction.top_k]
        if prediction.error is not None:
            lines = [f'  error: {shown(prediction.error)}']
        yield '\n'.join([shown(prediction.path), *lines, ''])


def _as_csv(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yields one row per image and rank, and one row per image with an error."""
    yield _csv_rows([CSV_HEADER])
    for prediction in predictions:
        rows: list[tuple[Any, ...]] = [
            (csv_cell(prediction.path), rank, guess.index, csv_cell(guess.label), _number(guess.probability), '')
            for rank, guess in enumerate(prediction.top_k, 1)
        ]
        yield _csv_rows(rows or [(csv_cell(prediction.path), '', '', '', '', csv_cell(prediction.error or ''))])


def _csv_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    buffer = io.StringIO(newline='')
    csv.writer(buffer, lineterminator='\n').writerows(rows)
    return buffer.getvalue().encode(errors='backslashreplace').decode()  # for names that are not UTF-8


def _as_json(predictions: Iterable[Prediction]) -> Iterator[str]:
    """Yields a list of objects, one per line; `os.fsencode` turns a path into the file's name, even if not UTF-8."""
    before = '[\n'
    for prediction in predictions:
        value: dict[str, Any] = {
            'path': prediction.path,
            'top_k': [
                {'index': guess.index, 'label': guess.label, 'probability': _number(guess.probability)}
                for guess in prediction.top_k
            ],
        }
        if prediction.error is not None:
            value['error'] = prediction.error
        yield before + json.dumps(value)
        before = ',\n'
    yield '\n]\n' if before == ',\n' else '[]\n'


def _number(probability: float) -> float:
    """Returns a probability rounded to float32's digits."""
    return float(f'{probability:.7g}')


FORMATS: dict[str, Callable[[Iterable[Prediction]], Iterator[str]]] = {
    'text': _as_text,
    'csv': _as_csv,
    'json': _as_json,
}
