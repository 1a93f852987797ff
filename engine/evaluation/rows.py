"""Writes one row per example of an evaluation: label, prediction, rank, probabilities, as CSV, JSON lines or Parquet.

with open_rows(config.output, dataset, [subject]) as observers:
    measure([subject], source, recall_at, observers)
"""

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from configs.evaluation import PREDICTION_ENDINGS, EvalOutputOptions, check_predictions_path
from datasets.dataset_factory import Dataset
from engine.classifiers.model_spec import ModelSpec
from engine.evaluation.dataset import example_ids
from engine.evaluation.metrics import Observer, ScoredBatch
from support import optional_packages
from support.atomic import atomic_file
from support.errors import InputError, first_line, io_errors
from support.tables import csv_cell

Row = dict[str, Any]
_ROW_GROUP = 10_000  # rows of a group in Parquet; with 1,000 logits each, 40 MB


class Named(Protocol):
    """The interface of a classifier whose rows are written: path and classes."""

    path: str
    spec: ModelSpec


class Rows:
    """An observer that writes one row per example and classifier, without keeping batches in memory.

    A row has id (file, or shard and record), label, label_name, prediction, prediction_name, correct (1 or 0), rank of
    the label (1 is best; ties count in its favour, as in Recall@k), the label's probability, and the indices, names and
    probabilities of the top k; with several classifiers also the path. If the label is outside the classes or a score
    is not finite, rank and probability are empty.
    """

    def __init__(
        self, path: str, writer: 'Writer', dataset: Dataset, subjects: Sequence[Named], top_k: int, with_logits: bool
    ):
        self._path, self._writer, self._dataset, self._subjects = path, writer, dataset, subjects
        self._top_k, self._with_logits = min(top_k, dataset.num_classes), with_logits

    def observe(self, batch: ScoredBatch) -> None:
        """Writes the rows of a batch, grouped by example."""
        of_subjects = [self._rows(subject, batch, index) for index, subject in enumerate(self._subjects)]
        with _naming_failures(self._path):
            self._writer.write([row for of_example in zip(*of_subjects, strict=True) for row in of_example])

    def _rows(self, subject: Named, batch: ScoredBatch, index: int) -> list[Row]:
        scores, labels = batch.scores[index], batch.targets(index)
        order = np.argsort(-scores, axis=-1, kind='stable')[:, : self._top_k]
        ranks = batch.ranks(index).tolist()
        of_top = batch.probabilities(index, order)
        of_labels = batch.probabilities(index, np.where(batch.ranks(index) > 0, labels, 0)[:, np.newaxis])[:, 0]
        correct = batch.are_correct(index).tolist()
        names = self._dataset.label_names or subject.spec.label_names
        rows = []
        for i, name in enumerate(example_ids(self._dataset, batch.numbers)):
            label, top = int(labels[i]), order[i].tolist()
            row: Row = {'path': subject.path} if len(self._subjects) > 1 else {}
            row |= {
                'id': name,
                'label': label,
                'label_name': _name(names, label),
                'prediction': top[0],
                'prediction_name': _name(names, top[0]),
                'correct': int(correct[i]),
                'rank': ranks[i] or None,
                'probability': _number(of_labels[i]) if ranks[i] else None,
                'top_k': top,
                'top_k_names': [_name(names, each) for each in top],
                'top_k_probabilities': [_number(value) for value in of_top[i]],
            }
            if batch.right is not None:
                row['real_labels'] = np.flatnonzero(batch.right[i]).tolist()
            if self._with_logits:
                row['logits'] = [_number(value) for value in scores[i]]
            rows.append(row)
        return rows


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else ''


def _number(value: Any) -> float | None:
    """Returns a number rounded to float32's digits; None if it is not finite."""
    return float(f'{value:.8g}') if np.isfinite(value) else None


class Writer(Protocol):
    """Writes rows into an open file."""

    def write(self, rows: Sequence[Row]) -> None:
        """Appends rows, which all have the same keys."""

    def close(self) -> None:
        """Completes the file."""


class _Text:
    """Base of the writers of text files."""

    def __init__(self, file: Any):
        self._file = file

    def close(self) -> None:
        """Does nothing: the owner of the file closes it."""


class _JsonLines(_Text):
    """Writes one JSON object per line."""

    def write(self, rows: Sequence[Row]) -> None:
        self._file.write(''.join(f'{json.dumps(row)}\n' for row in rows).encode())


class _Csv(_Text):
    """Writes CSV with a header; lists are JSON, and texts are safe for spreadsheets, see `csv_cell`."""

    def __init__(self, file: Any):
        super().__init__(file)
        self._has_header = False

    def write(self, rows: Sequence[Row]) -> None:
        buffer = io.StringIO(newline='')
        writer = csv.writer(buffer, lineterminator='\n')
        if not self._has_header:
            writer.writerow(rows[0])
            self._has_header = True
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
        self._file.write(buffer.getvalue().encode(errors='backslashreplace'))  # for names that are not UTF-8


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value)
    return csv_cell(value) if isinstance(value, str) else value


class _Parquet:
    """Writes a Parquet file with one column per key."""

    def __init__(self, file: Any):
        self._arrow = optional_packages.load('pyarrow', '--predictions_path of a .parquet file')
        self._parquet = optional_packages.load('pyarrow.parquet', '--predictions_path of a .parquet file')
        self._file = file
        self._writer: Any = None  # created with the first rows, which define the columns
        self._tables: list[Any] = []  # batches of the next row group: small groups make a large, slow file

    def write(self, rows: Sequence[Row]) -> None:
        schema = self._arrow.schema([(name, self._type(name)) for name in rows[0]])
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._file, schema)
        in_utf8 = [{key: _in_utf8(value) for key, value in row.items()} for row in rows]
        self._tables.append(self._arrow.Table.from_pylist(in_utf8, schema=schema))
        if sum(table.num_rows for table in self._tables) >= _ROW_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        self._writer.write_table(self._arrow.concat_tables(self._tables))
        self._tables = []

    def _type(self, name: str) -> Any:
        arrow = self._arrow
        whole, real = arrow.int32(), arrow.float32()
        types: Mapping[str, Any] = {
            **dict.fromkeys(('label', 'prediction', 'correct', 'rank'), whole),
            'probability': arrow.float64(),  # whose logarithm is the loss: float32 ends at 1e-45
            **dict.fromkeys(('top_k', 'real_labels'), arrow.list_(whole)),
            'top_k_names': arrow.list_(arrow.string()),
            'top_k_probabilities': arrow.list_(real),
            'logits': arrow.list_(real),
        }
        return types.get(name, arrow.string())

    def close(self) -> None:
        if self._tables:
            self._write_group()
        if self._writer is not None:
            self._writer.close()


def _in_utf8(value: Any) -> Any:
    """Returns a value with all text in valid UTF-8, as file names may not be."""
    if isinstance(value, str):
        return value.encode(errors='backslashreplace').decode()
    if isinstance(value, list):
        return [_in_utf8(item) for item in value]
    return value


WRITERS: dict[str, type[Any]] = dict(zip(PREDICTION_ENDINGS, (_Csv, _JsonLines, _Parquet), strict=True))


@contextlib.contextmanager
def open_rows(options: EvalOutputOptions, dataset: Dataset, subjects: Sequence[Named]) -> Iterator[list[Observer]]:
    """Yields a list with the observer that writes `--predictions_path` atomically; empty without the flag.

    Raises:
        InputError: the file cannot be written.
    """
    path = options.predictions_path
    if path is None:
        yield []
        return
    check_predictions_path(path)
    make_writer = next(make for ending, make in WRITERS.items() if path.lower().endswith(ending))
    with contextlib.ExitStack() as stack:
        with _naming_failures(path):
            part = stack.enter_context(atomic_file(path))
            file = tf.io.gfile.GFile(part, 'wb') if '://' in part else open(part, 'wb')  # noqa: SIM115  # by the stack
            stack.callback(_close, file, path)
            writer = make_writer(file)
        yield [Rows(path, writer, dataset, subjects, options.predictions_top_k, options.predictions_logits)]
        with _naming_failures(path):
            writer.close()
            stack.close()


def _close(file: Any, path: str) -> None:
    with _naming_failures(path):  # on a full disk, closing fails once more
        file.close()


@contextlib.contextmanager
def _naming_failures(path: str) -> Iterator[None]:
    try:
        yield
    except io_errors() as error:
        raise InputError(f'--predictions_path={path}: {first_line(error)}') from error
