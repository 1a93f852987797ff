"""Reads the rows that `--predictions_path` wrote.

for saved in read_rows('/tmp/p.parquet'):
    statistics.compute(saved.outcomes, recall_at=(1, 5))
"""

import contextlib
import csv
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from configs.evaluation import check_predictions_path
from engine.evaluation.outcomes import Outcomes, make_outcomes
from support import optional_packages
from support.errors import InputError, first_line

_READ = ('path', 'id', 'label', 'label_name', 'prediction', 'prediction_name', 'correct', 'rank', 'probability')
_OF_TOP = 'top_k_probabilities'  # its first is the prediction's
_MOST_CLASSES = 2**20  # of a net; statistics take memory for each class
_ROUNDED = 1.001  # the sum of a softmax in float32 is only nearly 1


@dataclasses.dataclass(frozen=True)
class SavedRows:
    """The rows of one classifier.

    Attributes:
        path: The classifier's path; '' if the file has rows of only one.
        ids: The examples.
        label_names: Names of the classes that occur.
        outcomes: The examples' outcomes; `numbers` are their positions in the file.
    """

    path: str
    ids: tuple[str, ...]
    label_names: Mapping[int, str]
    outcomes: Outcomes


def read_rows(path: str) -> list[SavedRows]:
    """Reads the rows of all classifiers, in the order of their first rows.

    Raises:
        InputError: the file cannot be read, lacks a column, or has values that no evaluation gives.
    """
    check_predictions_path(path)
    found: dict[str, dict[str, list[Any]]] = {}
    names: dict[str, dict[int, str]] = {}
    number = 0
    try:
        for number, row in enumerate(_rows(path), 1):
            with _naming_row(path, number):
                classifier = str(row.get('path') or '')
                columns = found.setdefault(classifier, {name: [] for name in ('id', *_COLUMNS)})
                columns['id'].append(str(row['id']))
                for name, of_row in _COLUMNS.items():
                    columns[name].append(of_row(row))
                of_classifier = names.setdefault(classifier, {})
                for kind in ('label', 'prediction'):
                    of_classifier[int(row[kind])] = str(row[f'{kind}_name'] or '')
    except InputError:
        raise
    except OSError as error:
        raise InputError(f'{path}: {first_line(error)}') from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f'{path}: row {number + 1} cannot be read: {first_line(error)}') from error
    if not found:
        raise InputError(f'{path} has no rows')
    return [
        SavedRows(
            classifier,
            tuple(columns.pop('id')),
            names[classifier],
            make_outcomes(numbers=range(len(columns['labels'])), **columns),
        )
        for classifier, columns in found.items()
    ]


_COLUMNS = {
    'labels': lambda row: _whole(row, 'label', lowest=-_MOST_CLASSES),  # negative after --labels_offset
    'predictions': lambda row: _whole(row, 'prediction'),
    'correct': lambda row: bool(_whole(row, 'correct', highest=1)),
    'ranks': lambda row: 0 if row['rank'] in (None, '') else _whole(row, 'rank'),
    'probabilities': lambda row: _probability(row['probability'], 'probability'),
    'confidences': lambda row: _probability(row[_OF_TOP][0], _OF_TOP),
}


def _whole(row: Mapping[str, Any], name: str, lowest: int = 0, highest: int = _MOST_CLASSES) -> int:
    value = int(row[name])
    if not lowest <= value <= highest:
        raise ValueError(f'{name} is {value}; must be {lowest} to {highest}')
    return value


def _probability(value: Any, name: str) -> float:
    number = np.nan if value in (None, '') else float(value)
    if not (np.isnan(number) or 0 <= number <= _ROUNDED):
        raise ValueError(f'{name} is {number:g}; must be 0 to 1, or empty')
    return number


@contextlib.contextmanager
def _naming_row(path: str, number: int) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise InputError(f'{path} has no column {error}; --predictions_path writes it') from error
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(f'{path}: row {number} is not as --predictions_path writes it: {first_line(error)}') from error


def _rows(path: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file of any of the formats."""
    if path.lower().endswith('.parquet'):
        parquet = optional_packages.load('pyarrow.parquet', 'a .parquet file')
        arrow = optional_packages.load('pyarrow', 'a .parquet file')
        try:
            file = parquet.ParquetFile(path)
            columns = [name for name in (*_READ, _OF_TOP) if name in file.schema_arrow.names]
            for batch in file.iter_batches(columns=columns):
                yield from batch.to_pylist()
        except arrow.ArrowInvalid as error:
            raise InputError(f'{path}: {first_line(error)}') from error
    elif path.lower().endswith('.csv'):
        csv.field_size_limit(sys.maxsize)  # logits of many classes
        with open(path, newline='', encoding='utf-8-sig') as file:
            for row in csv.DictReader(file):
                yield {**row, _OF_TOP: json.loads(row[_OF_TOP] or '')} if _OF_TOP in row else row
    else:
        with open(path, encoding='utf-8') as file:
            for line in file:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise InputError(f'{path}: a line is not a JSON object')
                yield row
