"""`--predictions_path`: a row for each example, in three formats, by one file or by several."""

import contextlib
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from configs.evaluation import EvalConfig, EvalOutputOptions, check_predictions_path
from configs.options import make_config
from datasets import dataset_factory
from engine import evaluation
from engine.classifiers import load_classifier, softmax
from engine.evaluation import rows as rows_of_evaluation
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.rows import open_rows
from support.errors import InputError
from tests.runs import eval_config

LISTS = ('top_k', 'top_k_names', 'top_k_probabilities', 'logits')


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file, with numbers and lists as such."""
    if path.suffix == '.parquet':
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == '.jsonl':
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline='') as file:
        return [{key: _value(key, text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(key: str, text: str) -> Any:
    if key in LISTS:
        return json.loads(text)
    if key in ('label', 'prediction', 'correct', 'rank'):
        return int(text) if text else None
    return (float(text) if text else None) if key == 'probability' else text


def test_rows_are_the_scores_of_each_example(trained, tmp_path, monkeypatch):
    """All formats agree, and slim's metrics follow from the rows."""
    monkeypatch.setattr(rows_of_evaluation, '_ROW_GROUP', 100)
    rows = {}
    for ending in ('csv', 'jsonl', 'parquet'):
        path = tmp_path / f'p.{ending}'
        options = {'predictions_path': str(path), 'predictions_top_k': 3, 'predictions_logits': True}
        config = eval_config(trained.checkpoint_path, recall_at=(2,), batch_size=77, eval_dir=str(tmp_path), **options)
        results = evaluation.evaluate(config)
        rows[ending] = read(path)
        assert [row['id'] for row in rows[ending]] == [f'digits_test.tfrecord, record {i}' for i in range(360)]
        assert np.mean([row['correct'] for row in rows[ending]]) == results['accuracy']
        assert np.mean([row['rank'] <= 2 for row in rows[ending]]) == results['recall_at_2']
        loss = -np.mean(np.log([row['probability'] for row in rows[ending]]))
        assert loss == pytest.approx(results['loss'], rel=1e-4)
    assert pyarrow.parquet.ParquetFile(tmp_path / 'p.parquet').num_row_groups == 3  # of two, two and one batch
    for row, *others in zip(*rows.values(), strict=True):
        scores = np.array(row['logits'], np.float32)
        assert row['top_k'] == np.argsort(-scores)[:3].tolist()
        assert row['top_k_names'] == [str(index) for index in row['top_k']]
        assert row['prediction'] == row['top_k'][0]
        assert row['correct'] == (row['prediction'] == row['label'])
        probabilities = softmax(scores[np.newaxis])[0]
        assert row['probability'] == pytest.approx(probabilities[row['label']], rel=1e-5)
        assert row['top_k_probabilities'] == pytest.approx(probabilities[row['top_k']], rel=1e-5)
        for other in others:
            assert other.keys() == row.keys()
            for key, value in row.items():
                assert other[key] == (pytest.approx(value, rel=1e-6) if key in ('probability', *LISTS[2:]) else value)


def test_rows_of_several_files(trained, tmp_path):
    path = tmp_path / 'p.jsonl'
    both = (trained.checkpoint_path, str(Path(trained.checkpoint_path).parent))
    evaluation.compare(eval_config('', compare=both, predictions_path=str(path), max_num_batches=1, batch_size=10))
    rows = read(path)
    assert [row['id'] for row in rows[::2]] == [row['id'] for row in rows[1::2]]
    assert [row['path'] for row in rows] == [trained.checkpoint_path] * 20
    assert not {'logits'} & set(rows[0])


@pytest.mark.parametrize('ending', ['csv', 'jsonl', 'parquet'])
def test_ties_labels_that_are_no_class_and_scores_that_are_not_finite(trained, digits_dir, tmp_path, ending):
    dataset = dataset_factory.get_dataset('digits', str(digits_dir), 'test[:3]')
    path = tmp_path / f'p.{ending}'
    subject = load_classifier(trained.checkpoint_path)
    scores = np.zeros((3, 10), np.float32)
    scores[2, 4] = np.nan
    options = make_config(EvalConfig, predictions_path=str(path), predictions_top_k=2).output
    with open_rows(options, dataset, [_Named(subject)]) as (rows,):
        rows.observe(ScoredBatch(np.arange(3), np.array([7, 10, 4]), (scores,), ('logits',)))
    tied, no_class, not_finite = read(path)
    assert (tied['rank'], tied['probability'], tied['correct']) == (1, pytest.approx(0.1), 0)
    assert tied['top_k'] == [0, 1]
    assert (no_class['rank'], no_class['probability'], no_class['label_name']) == (None, None, '')
    assert (not_finite['rank'], not_finite['probability'], not_finite['correct']) == (None, None, 0)


class _Named:
    """A classifier's path and classes, as an evaluation has them."""

    def __init__(self, classifier: Any):
        self.path, self.spec = classifier.path, classifier.spec


@pytest.mark.parametrize(
    ('path', 'message'),
    [
        ('p.txt', '--predictions_path=p.txt: the name must end in .csv, .jsonl, .parquet'),
        ('gs://b/p.parquet', '--predictions_path=gs://b/p.parquet: Parquet is written on this machine only'),
    ],
)
def test_names_that_are_refused(path, message):
    with pytest.raises(InputError, match=message):
        check_predictions_path(path)


def test_a_file_that_cannot_be_written(trained, tmp_path):
    (tmp_path / 'file').write_text('')
    path = tmp_path / 'file' / 'p.csv'
    with pytest.raises(InputError, match=f'--predictions_path={path}: '):
        evaluation.evaluate(eval_config(trained.checkpoint_path, predictions_path=str(path), eval_dir=str(tmp_path)))


@pytest.mark.parametrize('ending', ['csv', 'jsonl', 'parquet'])
def test_a_full_disk_leaves_the_file_as_it_was(trained, tmp_path, ending):
    path = tmp_path / f'p.{ending}'
    path.write_text('before')
    path.with_name(f'.part-{path.name}').symlink_to('/dev/full')  # where it is written before it gets its name
    options = {'predictions_path': str(path), 'predictions_logits': True, 'eval_dir': str(tmp_path / 'events')}
    with pytest.raises(InputError, match=rf'^--predictions_path={path}: \[Errno 28\] No space left on device$'):
        evaluation.evaluate(eval_config(trained.checkpoint_path, **options))
    assert path.read_text() == 'before'


def test_an_evaluation_that_fails_leaves_the_file_as_it_was(trained, digits_dir, tmp_path):
    path = tmp_path / 'p.csv'
    path.write_text('before')
    dataset = dataset_factory.get_dataset('digits', str(digits_dir), 'test[:3]')
    subject = _Named(load_classifier(trained.checkpoint_path))
    options = EvalOutputOptions(predictions_path=str(path))
    with contextlib.suppress(KeyboardInterrupt), open_rows(options, dataset, [subject]) as (rows,):
        scores = np.zeros((3, 10), np.float32)
        rows.observe(ScoredBatch(np.arange(3), np.zeros(3, int), (scores,), ('logits',)))
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ['p.csv']
    assert path.read_text() == 'before'
