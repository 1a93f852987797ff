"""What `benchmarks/` makes of measured numbers: ratios, verdicts, losses, operations, tables. Nothing is measured."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import guard, ratios
from benchmarks.ratios import Ask
from tests.scripts import ROOT, run_python

BEGIN, END = '<!-- bench: begin -->', '<!-- bench: end -->'
SPEEDS = {'ours': [140.0, 150.0, 130.0], 'eager': [100.0, 100.0, 100.0], 'compiled': [90.0, 125.0, 80.0]}


def test_ratios_are_taken_round_by_round_over_the_best_median() -> None:
    asks = [Ask('best', 'ours', ('eager', 'compiled'), 1.4), Ask('share', 'ours', ('compiled',), factor=0.5)]
    assert ratios.summarize_ratios(SPEEDS, asks) == {
        'best': {'median': 1.4, 'low': 1.3, 'high': 1.5, 'ask': 1.4},
        'share': {'median': 140 / 180, 'low': 0.6, 'high': 130 / 160, 'ask': None},
    }


@pytest.mark.parametrize(
    'ask',
    [
        Ask('absent', 'ours', ('Keras fit',)),
        Ask('absent', 'Keras fit', ('ours',)),
        Ask('absent', 'empty', ('ours',)),
        Ask('one of two is absent', 'ours', ('eager', 'Keras fit')),
    ],
)
def test_what_did_not_run_has_no_ratio(ask: Ask) -> None:
    assert ratios.summarize_ratios({**SPEEDS, 'empty': []}, [ask]) == {}


@pytest.mark.parametrize(('median', 'ask', 'expected'), [(1.4, 1.4, 'reached'), (1.39, 1.4, 'missed'), (9.0, None, '')])
def test_a_verdict_is_that_of_the_median(median: float, ask: float | None, expected: str) -> None:
    assert ratios.verdict({'median': median, 'low': 0.1, 'high': 10.0, 'ask': ask}) == expected


def test_medians_of_guarded_tables_are_recorded() -> None:
    tables: dict[str, dict[str, Any]] = {
        'step float32 32': {'ratios': {'ours / PyTorch': {'median': 1.23456, 'low': 1.1, 'ask': 1.4}}},
        'step without ratios': {'ratios': {}},
        'memory': {'ratios': {'PyTorch / ours': {'median': 1.1, 'ask': 1.0}}},
    }
    assert guard.guarded_ratios(tables, ('step',)) == {
        'step float32 32': {'ours / PyTorch': {'median': 1.235, 'low': 1.1}}
    }


@pytest.mark.parametrize(
    ('measured', 'expected'),
    [
        ({'median': 1.5, 'high': 1.6}, []),
        ({'median': 1.7, 'high': 1.7}, []),
        ({'median': 0.86 * 1.5, 'high': 1.3}, []),
        ({'median': 0.84 * 1.5, 'high': 1.41}, []),
        ({'median': 0.84 * 1.5, 'high': 1.39}, ['step: ours / PyTorch: 1.26, recorded as 1.50: 16% lower']),
        (None, ['step: ours / PyTorch: recorded as 1.50, but not measured now']),
    ],
)
def test_losses_are_named(measured: dict[str, float] | None, expected: list[str]) -> None:
    recorded = {'step': {'ours / PyTorch': {'median': 1.5, 'low': 1.4}}}
    tables = {'step': {'ratios': {'ours / PyTorch': measured} if measured else {}}}
    assert guard.find_losses(recorded, tables) == expected
    if not measured:
        assert guard.find_losses(recorded, {}) == expected


MACHINE = {'processor': 'Xeon', 'cores': 2}
OTHER_MACHINE = {'processor': 'EPYC', 'cores': 2}


def measured(key: str, **medians: float) -> dict[str, dict[str, Any]]:
    """Returns a table with these ratios."""
    spreads = {name: {'median': median, 'low': median, 'high': median} for name, median in medians.items()}
    return {key: {'ratios': spreads}}


def test_a_part_is_recorded_beside_what_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / 'recorded.json')
    assert guard.record(path, {**measured('step 32', fit=1.5), **measured('memory', peak=1.0)}, MACHINE) == []
    assert guard.record(path, measured('evaluation', torch=1.2), MACHINE) == []
    assert guard.record(path, measured('step 32', fit=9.0), OTHER_MACHINE) == []
    recorded = json.loads(Path(path).read_text())
    assert {machine: of_one['ratios'] for machine, of_one in recorded.items()} == {
        'Xeon, 2 cores': {
            'step 32': {'fit': {'median': 1.5, 'low': 1.5}},
            'evaluation': {'torch': {'median': 1.2, 'low': 1.2}},
        },
        'EPYC, 2 cores': {'step 32': {'fit': {'median': 9.0, 'low': 9.0}}},
    }


def test_what_was_recorded_cannot_get_lost(tmp_path: Path) -> None:
    path = tmp_path / 'recorded.json'
    guard.record(str(path), measured('step 32', fit=1.5, eager=2.0), MACHINE)
    before = path.read_text()
    assert guard.record(str(path), measured('step 32', eager=2.1), MACHINE) == ['step 32: fit']
    assert path.read_text() == before


def test_the_check_compares_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / 'recorded.json')
    guard.record(path, {**measured('step 32', fit=1.5), **measured('evaluation', torch=1.2)}, MACHINE)
    assert guard.check(path, measured('step 32', fit=1.4), ['step'], MACHINE) == []
    assert guard.check(path, measured('step 32', fit=1.4), ['step', 'evaluation'], MACHINE) == [
        'evaluation: torch: recorded as 1.20, but not measured now'
    ]
    assert guard.check(path, measured('prediction', onnx=1.4), ['prediction'], MACHINE) == [
        'prediction: nothing is recorded'
    ]
    assert capsys.readouterr().err == ''
    assert guard.check(path, measured('step 32', fit=1.0), ['step'], OTHER_MACHINE) == [
        'step 32: fit: 1.00, recorded as 1.50: 33% lower'
    ]
    assert f'{path} has nothing of EPYC, 2 cores: comparing with Xeon, 2 cores' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('flags', 'status', 'expected'),
    [
        (['--only=steps'], 2, '--only: there is no steps; there are step, memory, evaluation, '),
        (['--check=README.md', '--only=memory'], 2, '--check: guards step, evaluation, prediction; --only has none'),
        (['--check=README.md', '--record'], 2, '--check and --record: what is recorded now cannot be compared with'),
        (['--peers=/none'], 1, 'error: --peers=/none: is not there; install the peers with: make build/peers/'),
        ([f'--peers={sys.executable}', '--check=/none'], 1, 'error: --check=/none: is not there; measure and write it'),
        (
            [f'--peers={sys.executable}', '--imagenet_dir=/none'],
            1,
            'error: --imagenet_dir=/none: has no validation-*, which --only=evaluation reads; name the folder with: '
            'make bench IMAGENET_MINI=FOLDER',
        ),
        ([f'--peers={sys.executable}', '--only=step'], 1, 'has no PyTorch; install the peers with: make build/peers/'),
    ],
)
def test_what_cannot_be_measured_is_said_first(flags: list[str], status: int, expected: str, tmp_path: Path) -> None:
    finished = run_python('benchmarks/bench.py', f'--work_dir={tmp_path}', *flags)
    assert finished.returncode == status
    assert expected in finished.stderr
    assert 'Traceback' not in finished.stderr


def test_operations_are_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    tables = importlib.import_module('bench_tables')
    assert tables.step_gflop(32) == pytest.approx(137.1, abs=0.05)
    assert tables.step_gflop(128) == 4 * tables.step_gflop(32)
    assert round(tables.PRODUCT_GFLOP, 1) == 137.4


def test_tables_are_markdown() -> None:
    values = {'median': 410.4, 'low': 399.6, 'high': 420.0}
    assert ratios.format_speeds({'ours': values}, 'images/s', 0) == (
        '|  | images/s: median (low to high) |\n|---|---|\n| ours | 410 (400 to 420) |'
    )
    assert ratios.format_spread({'median': 1.5, 'low': 1.5, 'high': 1.5}, 1) == '1.5'
    rows: dict[str, dict[str, Any]] = {
        'a / b': {'median': 1.5, 'low': 1.25, 'high': 2.0, 'ask': 1.4},
        'c': {**values, 'ask': None},
    }
    assert ratios.format_ratios(rows).splitlines()[2:] == [
        '| a / b | 1.50 (1.25 to 2.00) | 1.4 | reached |',
        '| c | 410.40 (399.60 to 420.00) | - |  |',
    ]


def test_only_what_is_between_the_markers_is_replaced() -> None:
    text = f'# Title\n\n{BEGIN}\nold\n{END}\n\n<!-- kernels: begin -->\nkept\n<!-- kernels: end -->\n'
    replaced = ratios.replace_between_markers(text, 'new\n')
    assert replaced == text.replace('\nold\n', '\n\nnew\n\n')
    assert ratios.replace_between_markers(replaced, 'new') == replaced
    assert ratios.replace_between_markers(text, 'new', 'kernels') == text.replace('\nkept\n', '\n\nnew\n\n')


@pytest.mark.parametrize(
    'text', ['', BEGIN, END, f'{END} {BEGIN}', f'{BEGIN} {END} {END}', '<!-- kernels: begin --> <!-- kernels: end -->']
)
def test_documents_without_their_markers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match='there must be one <!-- bench: begin -->'):
        ratios.replace_between_markers(text, 'new')
