"""Statistics of an evaluation: equal to scikit-learn's, from outcomes or from the rows of a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from engine import evaluation
from engine.evaluation.metrics import ScoredBatch
from engine.evaluation.outcomes import Collector, Outcomes, make_outcomes
from engine.evaluation.report.__main__ import main
from engine.evaluation.saved_rows import read_rows
from engine.evaluation.statistics import compare_pairs, compute, wilson
from support.errors import InputError
from tests.runs import eval_config


def outcomes_of(scores: np.ndarray, labels: np.ndarray, output: str = 'logits') -> Outcomes:
    """Returns the outcomes of scores in batches of 7."""
    collector = Collector()
    for first in range(0, len(labels), 7):
        rows = slice(first, first + 7)
        collector.observe(ScoredBatch(np.arange(len(labels))[rows], labels[rows], (scores[rows],), (output,)))
    return collector.outcomes()


def example(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits of a net that is often right, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)) + 2 * np.eye(classes)[labels]
    return logits.astype(np.float32), labels


def of_scikit_learn(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    found = {
        'accuracy': metrics.accuracy_score(labels, predictions),
        'mean_class_accuracy': metrics.balanced_accuracy_score(labels, predictions),
    }
    for average in ('macro', 'micro', 'weighted'):
        values = metrics.precision_recall_fscore_support(labels, predictions, average=average, zero_division=0)
        found |= {
            f'{name}_{average}': value for name, value in zip(('precision', 'recall', 'f1'), values, strict=False)
        }
    return found


@pytest.mark.filterwarnings('ignore:y_pred contains classes not in y_true')
@pytest.mark.filterwarnings('ignore:A single label was found')
@pytest.mark.parametrize(
    ('count', 'classes'),
    [(1, 6), (50, 6), (360, 10), (30, 100), (40, 20_000)],
)
def test_values_are_those_of_scikit_learn(count, classes):
    """Also if most classes are absent, or are predicted only."""
    logits, labels = example(count, classes)
    found = compute(outcomes_of(logits, labels), (1, 5))
    predictions = logits.argmax(axis=-1)
    for name, value in of_scikit_learn(labels, predictions).items():
        assert found.values[name] == pytest.approx(value, rel=1e-12), name
    for k in (1, 5):
        expected = metrics.top_k_accuracy_score(labels, logits, k=min(k, classes), labels=range(classes))
        assert found.values[f'recall_at_{k}'] == pytest.approx(expected if k <= classes else 1.0)
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    loss = metrics.log_loss(labels, probabilities, labels=range(classes))
    assert found.values['cross_entropy'] == pytest.approx(loss, rel=1e-5)
    occurring = sorted({*labels, *predictions})
    expected = metrics.confusion_matrix(labels, predictions, labels=occurring)
    np.testing.assert_array_equal(found.confusion[occurring][:, occurring].toarray(), expected)
    assert found.confusion.sum() == count
    assert [each.index for each in found.classes] == occurring
    assert [each.support for each in found.classes] == expected.sum(axis=1).tolist()


def test_ece_is_the_weighted_gap_between_confidence_and_accuracy():
    logits, labels = example(500, 10)
    found = compute(outcomes_of(logits, labels), ())
    probabilities = scipy.special.softmax(logits, axis=-1)
    confidences, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidences > low) & (confidences <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
    assert found.values['ece'] == pytest.approx(expected, rel=1e-5)
    assert sum(each.count for each in found.calibration) == 500


def test_probabilities_count_as_they_are():
    logits, labels = example(100, 5)
    probabilities = scipy.special.softmax(logits, axis=-1)
    of_logits, of_probabilities = outcomes_of(logits, labels), outcomes_of(probabilities, labels, 'probabilities')
    np.testing.assert_allclose(of_logits.probabilities, of_probabilities.probabilities, rtol=1e-5)
    np.testing.assert_allclose(of_logits.confidences, of_probabilities.confidences, rtol=1e-5)


@pytest.mark.parametrize(
    ('successes', 'count'), [(0, 10), (10, 10), (1, 1), (0, 1), (6168, 10_000), (999_999, 1_000_000)]
)
def test_wilson_is_that_of_scipy(successes, count):
    expected = scipy.stats.binomtest(successes, count).proportion_ci(0.95, method='wilson')
    assert wilson(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_bootstrap_intervals_are_as_wide_as_theory_says():
    """Of weighted recall, which is a mean of independent examples: 1.96 standard errors on each side."""
    logits, labels = example(2000, 10)
    found = compute(outcomes_of(logits, labels), ())
    low, high = found.intervals['recall_weighted']
    share = found.values['accuracy']
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 2000), rel=0.1)
    assert low < share < high
    assert set(found.intervals) == set(found.values)
    assert compute(outcomes_of(logits, labels), ()).intervals == found.intervals
    assert not compute(outcomes_of(logits, labels), (), with_intervals=False).intervals


@pytest.mark.parametrize(('count', 'classes'), [(360, 10), (2000, 1000)])
def test_every_interval_holds_its_value(count, classes):
    """Of few examples for each class too, where resampling is biased by more than it spreads."""
    found = compute(outcomes_of(*example(count, classes)), (1, 5))
    for name, value in found.values.items():
        low, high = found.intervals[name]
        assert low <= value <= high, name
        assert low >= 0.0
        assert high <= 1.0 or name == 'cross_entropy'


def test_mcnemar_counts_what_only_one_has_right():
    labels = np.zeros(20, int)
    predictions = [np.r_[np.zeros(15, int), np.ones(5, int)], np.r_[np.ones(3, int), np.zeros(17, int)]]
    both = [
        make_outcomes(
            numbers=range(20),
            labels=labels,
            predictions=each,
            correct=each == labels,
            ranks=each + 1,
            probabilities=[0.5] * 20,
            confidences=[0.5] * 20,
        )
        for each in predictions
    ]
    (found,) = compare_pairs(['a', 'b'], both)
    assert (found.first, found.second, found.only_first, found.only_second) == ('a', 'b', 3, 5)
    assert found.p_value == pytest.approx(scipy.stats.binomtest(3, 8).pvalue)
    assert compare_pairs(['a', 'b'], both[:1] * 2)[0].p_value == 1.0


def test_no_examples_give_nan():
    found = compute(outcomes_of(np.zeros((0, 3), np.float32), np.zeros(0, int)), (1,))
    assert np.isnan(list(found.values.values())).all()
    assert (found.num_examples, found.intervals, list(found.classes)) == (0, {}, [])


def test_ties_scores_that_are_not_finite_and_labels_that_are_no_class():
    scores = np.zeros((4, 3), np.float32)
    scores[1, 2], scores[2, 1] = np.nan, np.inf
    found = outcomes_of(scores, np.array([1, 0, 1, 3]))
    assert found.predictions.tolist() == [0, 0, 1, 0]  # as tf.argmax
    assert found.correct.tolist() == [False, True, True, False]
    assert found.ranks.tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(found.probabilities, [1 / 3, np.nan, np.nan, np.nan])
    result = compute(found, (1,))
    assert result.num_not_finite == 2
    assert np.isnan([result.values['cross_entropy'], result.values['ece']]).all()
    assert (result.values['accuracy'], result.values['recall_at_1']) == (0.5, 0.25)


@pytest.mark.parametrize('ending', ['csv', 'jsonl', 'parquet'])
def test_rows_alone_give_the_same_statistics(trained, tmp_path, capsys, ending):
    """Of one file, and of two that are compared."""
    rows, again = tmp_path / f'p.{ending}', tmp_path / 'again.json'
    options = {'recall_at': (1, 3), 'eval_dir': str(tmp_path), 'predictions_path': str(rows)}
    results = evaluation.evaluate(eval_config(trained.checkpoint_path, **options))
    assert main([str(rows), '--recall_at=1,3', f'--results_path={again}']) == 0
    read = json.loads(again.read_text())
    for name, value in read.items():
        if name in ('intervals', 'per_class', 'calibration', 'confusion', 'path'):
            continue
        assert value == pytest.approx(results[name], rel=1e-6), name
    assert read['confusion'] == results['confusion']
    assert [each['interval'] for each in read['per_class']] == [each['interval'] for each in results['per_class']]
    assert read['intervals']['f1_macro'] == pytest.approx(results['intervals']['f1_macro'], rel=1e-9)
    (saved,) = read_rows(str(rows))
    labels, predictions = saved.outcomes.labels, saved.outcomes.predictions
    for name, value in of_scikit_learn(labels, predictions).items():
        assert results[name] == pytest.approx(value, rel=1e-12)
    assert 'f1_macro' in capsys.readouterr().out


def test_rows_of_two_files_are_compared(trained, tmp_path, capsys):
    rows, json_path = tmp_path / 'p.parquet', tmp_path / 'r.json'
    both = (trained.checkpoint_path, str(Path(trained.checkpoint_path).parent))
    config = eval_config('', compare=both, predictions_path=str(rows), results_path=str(json_path))
    evaluation.compare(config)
    (difference,) = json.loads(json_path.read_text())['differences']
    assert difference == {'first': both[0], 'second': both[1], 'only_first': 0, 'only_second': 0, 'p_value': 1.0}
    assert main([str(rows)]) == 0
    assert "McNemar's p" in capsys.readouterr().out


def row_of(**changed):
    """A line of JSON that --predictions_path could write, with changed values."""
    row = {'id': 'a', 'label': 1, 'label_name': 'b', 'prediction': 1, 'prediction_name': 'b', 'correct': 1, 'rank': 1}
    return json.dumps({**row, 'probability': 0.5, 'top_k_probabilities': [0.5], **changed}) + '\n'


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('p.csv', 'a,b\n1,2\n', 'p.csv has no column'),
        ('p.csv', '', 'p.csv has no rows'),
        ('p.jsonl', '{"label": ', 'p.jsonl: row 1 cannot be read: '),
        ('p.jsonl', '3\n', 'p.jsonl: a line is not a JSON object'),
        ('p.jsonl', '{"id": "a", "label": "cat"}\n', 'p.jsonl: row 1 is not as --predictions_path writes it: '),
        ('p.jsonl', '[' * 100_000, 'p.jsonl: row 1 cannot be read: maximum recursion depth'),
        ('p.jsonl', row_of(label=10**9), 'row 1 .*: label is 1000000000; must be -1048576 to 1048576'),
        ('p.jsonl', row_of(label=10**30), 'row 1 .*: label is 1000000000'),
        ('p.jsonl', row_of(prediction=-3), 'row 1 .*: prediction is -3; must be 0 to 1048576'),
        ('p.jsonl', row_of(correct=7), 'row 1 .*: correct is 7; must be 0 to 1'),
        ('p.jsonl', row_of(rank=-1), 'row 1 .*: rank is -1; must be 0 to 1048576'),
        ('p.jsonl', row_of(probability=-0.5), 'row 1 .*: probability is -0.5; must be 0 to 1, or empty'),
        ('p.jsonl', row_of(top_k_probabilities=[1e999]), 'row 1 .*: top_k_probabilities is inf; must be 0 to 1'),
        ('p.parquet', 'PAR1', 'p.parquet: '),
        ('p.csv', None, 'p.csv: '),
    ],
)
def test_files_that_are_no_rows(tmp_path, capsys, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_rows(str(path))
    assert main([str(path)]) == 1
    assert capsys.readouterr().err.startswith('error: ')


def test_undefined_intervals_are_left_out(tmp_path, capsys):
    path = tmp_path / 'p.jsonl'
    path.write_text(row_of(probability=None, rank=None, top_k_probabilities=[None]))
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[1:] for line in printed.splitlines() if line.startswith(('ece', 'cross'))] == [['nan']] * 2
