"""What `benchmarks/record_run.py` keeps of a run."""

import sys
from pathlib import Path

import pytest

from benchmarks import record_run
from engine import evaluation
from tests.runs import eval_config


@pytest.mark.full
@pytest.mark.parametrize('decay', [None, 0.9])
def test_a_run_is_recorded_as_it_was_evaluated_while_it_trained(
    train_digits, tmp_path: Path, decay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else was evaluated later, without the averages for instance."""
    options = {'eval_every_steps': 2, 'save_summaries_secs': 600, 'log_every_n_steps': 1, 'save_interval_steps': 4}
    run = tmp_path / 'run'
    train_digits(run, max_number_of_steps=5, moving_average_decay=decay, **options)
    for path in run.glob('model.ckpt-5.*'):
        path.unlink()
    train_digits(run, max_number_of_steps=6, moving_average_decay=decay, **options)
    for split in ('test', 'train[:10]'):
        evaluation.evaluate(eval_config(run, dataset_split_name=split))
    assert list(record_run.read_evaluations(run)) == [2, 4, 6]
    assert list(record_run.read_curves(run)['losses/cross_entropy']) == [1, 2, 3, 4, 5, 6]
    monkeypatch.setattr(sys, 'argv', ['record_run.py', str(run), str(tmp_path / 'kept'), '--dataset_dir=DIGITS'])
    record_run.main()
    assert '--dataset_dir=DIGITS\n' in (tmp_path / 'kept.cfg').read_text()
    assert '<svg' in (tmp_path / 'kept.svg').read_text()
