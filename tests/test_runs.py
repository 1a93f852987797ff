"""`python -m engine.runs`: how far runs are, how good, and in what they differ."""

import csv
import dataclasses
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.runs import files
from engine.runs.__main__ import main
from engine.runs.history import read_history
from engine.runs.output import _duration, as_csv, as_json, as_table
from engine.runs.status import RunReader, RunStatus
from engine.training import run_dir
from support.folder_lock import FolderLock, LockState, lock_state
from tests.processes import ROOT, RUN, Run
from tests.runs import steps_in_tensorboard, summaries

OPTIONS: dict[str, Any] = {
    'log_every_n_steps': 5,
    'save_summaries_secs': 600,
    'save_interval_steps': 20,
    'eval_every_steps': 15,
    'eval_split_name': 'test[:50]',
}
KILLED: dict[str, Any] = {
    **RUN,
    **OPTIONS,
    'preprocessing_name': None,
    'optimizer': 'momentum',
    'learning_rate': 0.01,
    'max_number_of_steps': 60,
}
COMMAND = [sys.executable, '-m', 'engine.runs']


def status_of(path: Path | str) -> RunStatus:
    return RunReader(str(path)).read()


def evaluations_of(path: Path) -> list[dict[str, Any]]:
    return json.loads((path / files.HISTORY).read_text())


@pytest.fixture(name='folder', scope='module')
def _folder(server, train_digits, digits_dir, tmp_path_factory) -> Path:
    """A folder of runs: one of 45 steps by its epochs, one of 60 that was killed at its second save, and resumed."""
    folder = tmp_path_factory.mktemp('runs')
    train_digits(folder / 'epochs', num_epochs=1.0, **OPTIONS)
    process = Run(server, folder / 'killed', digits_dir, **KILLED).start(
        killed_at=f'{folder}/killed/model.ckpt-40.index'
    )
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    shutil.copytree(folder / 'killed', folder / 'resumed')
    train_digits(folder / 'resumed', **KILLED)
    return folder


@pytest.fixture(name='run')
def _run(folder: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(folder / 'epochs', tmp_path / 'run'))


def test_status_of_finished_and_of_killed_runs(folder):
    epochs, killed, resumed = (status_of(path) for path in files.find_runs(str(folder)))
    assert [run.state for run in (epochs, killed, resumed)] == ['finished', 'killed', 'finished']
    assert [(run.step, run.last_step, run.checkpoint_step) for run in (epochs, resumed)] == [(45,) * 3, (60,) * 3]
    assert (killed.last_step, killed.checkpoint_step) == (60, 20)
    assert killed.step in range(20, 41)  # the last log lines may not have been flushed
    for run in (epochs, killed, resumed):
        rows = evaluations_of(Path(run.path))
        assert (run.evaluated_step, run.best_metric) == (rows[-1]['step'], 'accuracy')
        assert run.metrics == {name: rows[-1][name] for name in ('accuracy', 'recall_at_5', 'loss')}
        best = max(rows, key=lambda row: row['accuracy'])
        assert (run.best_value, run.best_step) == (best['accuracy'], best['step'])
        assert run.images_per_second is not None
        assert run.images_per_second > 0
        assert run.data_wait_share is not None
        assert 0 <= run.data_wait_share <= 1
        assert run.checkpoint_age is not None
        assert 0 <= run.checkpoint_age < 3600
        assert (run.seconds_left, run.problems) == (None, ())


@pytest.mark.parametrize('name', ['epochs', 'resumed'])
def test_history_is_what_tensorboard_shows(folder, name):
    history = read_history(f'{folder}/{name}')
    ((split, evaluated),) = history.evaluations.items()
    for path, found in (('', history.training), (f'eval_{split}', evaluated)):
        written, steps_by_tag = summaries(folder / name / path), steps_in_tensorboard(folder / name / path)
        shown = {tag: steps for tag, steps in steps_by_tag.items() if not tag.startswith('_hparams_')}
        assert {tag: series.steps.tolist() for tag, series in found.items()} == shown
        for tag, series in found.items():
            assert series.values[-1] == written[tag][shown[tag][-1]]


def test_time_left_of_a_run_at_the_pace_of_its_log_lines(run):
    config = run / files.CONFIG
    config.write_text(config.read_text().replace('--num_epochs=1.0', '--num_epochs=1000'))
    assert status_of(run).state == 'stopped'
    with FolderLock(str(run), files.LOCK, flag='train_dir', user='trainer'):
        history = RunReader(str(run))._history.read()
        status = status_of(run)
    assert (status.state, status.step, status.last_step) == ('running', 45, 44907)
    times = history.training['accuracy'].wall_times
    assert history.began <= times[0]
    expected = (times[-1] - times[0]) / 44 * (44907 - 45)
    assert status.seconds_left is not None
    assert status.seconds_left <= expected
    lines = [line.split('  ') for line in as_table([status], 1000).splitlines()]
    assert any(re.fullmatch(r' *[\d.]+ (s|min|h) *', cell) for cell in lines[1])


def test_a_run_that_was_stopped_early_is_finished(run):
    config = run / files.CONFIG
    text = config.read_text().replace('--num_epochs=1.0', '--num_epochs=2.0')
    config.write_text(f'{text}--early_stopping_patience=2\n')
    rows = evaluations_of(run)
    for row, accuracy in zip(rows, (0.5, 0.4, 0.4), strict=True):
        row['accuracy'] = accuracy
    (run / files.HISTORY).write_text(json.dumps(rows))
    status = status_of(run)
    assert (status.state, status.step, status.last_step, status.best_step) == ('finished', 45, 90, 15)
    config.write_text(f'{text}--early_stopping_patience=3\n')
    assert status_of(run).state == 'stopped'


def test_an_evaluation_that_is_still_to_come(run):
    """Killed between the last checkpoint and its evaluation, a run is not finished: training would make up for it."""
    rows = evaluations_of(run)
    (run / files.HISTORY).write_text(json.dumps(rows[:-1]))
    assert status_of(run).state == 'stopped'


def test_evaluations_of_another_process_are_read_from_event_files(run):
    expected = status_of(run)
    (run / files.HISTORY).unlink()
    found = status_of(run)
    assert (found.evaluated_step, found.best_step) == (expected.evaluated_step, expected.best_step)
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-6)


def test_table_names_the_options_that_differ(folder, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    assert main([str(folder)]) == 0
    runs, options = capsys.readouterr().out.split('\n\n')
    header, *rows = runs.splitlines()
    assert header.split()[:3] == ['run', 'state', 'step']
    assert [row.split()[:2] for row in rows] == [['epochs', 'finished'], ['killed', 'killed'], ['resumed', 'finished']]
    assert '45/45' in rows[0]
    assert f'{evaluations_of(folder / "resumed")[-1]["accuracy"]:.4f}' in rows[2]
    found = {line.split()[0]: line.split()[1:] for line in options.splitlines()}
    assert found['option'] == ['epochs', 'killed', 'resumed']
    assert found['learning_rate'] == ['0.03', '0.01', '0.01']
    assert found['num_epochs'] == ['1.0', 'none', 'none']
    assert not {'train_dir', 'batch_size', 'seed', 'eval_every_steps'} & set(found)


def test_with_more_runs_than_options_these_are_the_columns(folder):
    status = status_of(folder / 'epochs')
    assert status.options is not None
    runs = [
        dataclasses.replace(status, path=f'{folder}/{seed}', options={**status.options, 'seed': seed})
        for seed in range(9)
    ]
    unknown = dataclasses.replace(status, path=f'{folder}/lost', options=None)
    *_, options = as_table([*runs, unknown], 1000).split('\n\n')
    assert [line.split() for line in options.splitlines()] == [
        ['option', 'seed'], *([str(seed), str(seed)] for seed in range(9)), ['lost', '?'],
    ]  # fmt: skip


@pytest.mark.parametrize('width', [60, 80, 120])
def test_tables_fit_the_terminal(folder, tmp_path, width):
    runs = []
    for name, of_run in (
        ('epochs', 'epochs'),
        ('killed', 'a name that is far longer than a terminal is wide, or nearly'),
    ):
        runs.append(status_of(shutil.copytree(folder / name, tmp_path / of_run)))
    table = as_table(runs, width)
    assert max(map(len, table.splitlines())) <= width
    assert {'epochs', 'option'} <= {line.split()[0] for line in table.splitlines() if line}
    wide = as_table(runs, 1000)
    assert len(wide.split('\n\n')) == 2
    for header in ('time left', 'train loss', 'images/s', 'data wait'):
        assert (table.count(header), wide.count(header)) == (1, 1)


def test_csv_and_json_agree(folder, capsys):
    assert main([str(folder), '--format=json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert main([str(folder), '--format=csv']) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row['path'] for row in rows] == [f'{folder}/{name}' for name in ('epochs', 'killed', 'resumed')]
    assert found['differences']['moving_average_decay'] == [None, 0.9, 0.9]
    for place, (row, run) in enumerate(zip(rows, found['runs'], strict=True)):
        assert run['problems'] == []
        for name in ('accuracy', 'recall_at_5', 'loss'):
            assert float(row[f'eval_{name}']) == run['metrics'][name]
        for name, value in run.items():
            if name not in ('metrics', 'problems', 'checkpoint_age'):
                assert row[name] == ('' if value is None else str(value))
        for name, values in found['differences'].items():
            assert row[f'option_{name}'] == ('' if values[place] is None else str(values[place]))


def test_a_loss_that_is_not_finite_and_names_that_are_no_text(folder):
    status = status_of(folder / 'epochs')
    odd = dataclasses.replace(status, path='/tmp/=a\x1b[31m\nb', loss=float('nan'), metrics={})
    assert json.loads(as_json([odd]))['runs'][0]['loss'] is None
    (row,) = csv.DictReader(io.StringIO(as_csv([odd])))
    assert row['loss'] == ''
    _, line = as_table([odd], 1000).splitlines()
    assert line.startswith('=a\\x1b[31m\\nb  finished')
    assert 'nan' in line


@pytest.mark.parametrize('format', ['table', 'csv', 'json'])
def test_folders_without_runs_are_named_and_the_others_shown(folder, tmp_path, capsys, format):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('')
    wrong = {
        'missing': f'{tmp_path}/missing: no such folder',
        'file': f'{tmp_path}/file: not a folder',
        'empty': f'{tmp_path}/empty: no run in it, nor in its folders; give the --train_dir of a training',
    }
    paths = [f'{tmp_path}/{name}' for name in wrong]
    assert main([*paths, 'gs://bucket/run', str(folder / 'resumed'), f'--format={format}']) == 1
    output = capsys.readouterr()
    assert output.err.splitlines() == [
        *(f'error: {line}' for line in wrong.values()),
        'error: gs://bucket/run: only runs on this machine are read; copy it, or mount it',
    ]
    assert 'resumed' in output.out
    assert main(paths) == 1
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('name', [files.CONFIG, files.DATA, files.HISTORY, 'events*'])
@pytest.mark.parametrize('content', [b'\xff\xfe\0garbage', b'[3]', b'{"num_examples": "x"}'])
def test_damaged_files_are_named_and_the_rest_is_shown(run, caplog, capsys, name, content):
    (path,) = run.glob(name)
    path.write_bytes(content)
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == 'run'
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (0 if name == 'events*' and len(content) < 12 else 1), messages
    assert all(message.startswith(f'{path}: ') for message in messages)


def test_a_folder_of_an_older_version_or_of_slim(run, tmp_path):
    for path in run.iterdir():
        if path.is_file() and not path.name.startswith('model.ckpt'):
            path.unlink()
    shutil.rmtree(run / 'eval_test_-50')
    status = status_of(run)
    assert (status.state, status.step, status.last_step, status.options) == ('stopped', 45, None, None)
    assert (status.loss, status.metrics, status.problems) == (None, {}, ())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--watch', '--format=csv'], '--format=csv: --watch draws a table; leave one of them out'),
        (['--interval_secs=2'], '--interval_secs=2: has no effect without --watch; leave it out'),
        (['--watch', '--interval_secs=0'], '--interval_secs=0: must be from 0.1 to 86400'),
        (['--watch', '--interval_secs=nan'], '--interval_secs=nan: must be from 0.1 to 86400'),
    ],
)
def test_flags_that_are_refused(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(['x', *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def lines_until(process: subprocess.Popen, pattern: str) -> Iterator[str]:
    """Yields the lines of a process up to one that matches."""
    for line in process.stdout or ():
        yield line
        if re.search(pattern, line):
            return


def test_watch_draws_until_interrupted(folder, tmp_path):
    shutil.copytree(folder / 'resumed', tmp_path / 'first')
    command = [*COMMAND, str(tmp_path), '--watch', '--interval_secs=0.1']
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert re.fullmatch(r'\d\d:\d\d:\d\d\n', next(lines_until(process, 'first')))
            shutil.copytree(folder / 'epochs', tmp_path / 'second')
            assert list(lines_until(process, r'^second +finished'))
            process.send_signal(signal.SIGINT)
            assert process.communicate()[1] == ''
            assert process.returncode == 130
        finally:
            process.kill()


def test_watch_fits_the_terminal(folder):
    main_end, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 8, 70, 0, 0))
    # What readline, or another test, has set in pytest's own environment would be inherited.
    environment = {name: value for name, value in os.environ.items() if name not in ('COLUMNS', 'LINES')}
    command = [*COMMAND, str(folder), '--watch']
    with subprocess.Popen(command, cwd=ROOT, stdout=terminal, env=environment) as process:
        try:
            drawn = b''
            while not drawn.endswith(b'taller\r\n'):
                assert drawn.count(b'\x1b[2J') < 3, drawn  # it was drawn again, and did not fit
                assert select.select([main_end], [], [], 60)[0], drawn
                drawn += os.read(main_end, 1000)
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
        finally:
            process.kill()
            os.close(main_end)
            os.close(terminal)
    clear, text = drawn.decode()[:7], drawn.decode()[7:]
    assert clear == '\x1b[2J\x1b[H'
    lines = text.removesuffix('\r\n').split('\r\n')
    assert len(lines) == 7  # and the cursor's
    assert max(map(len, lines)) <= 70


def test_watch_of_nothing_ends(tmp_path, capsys):
    assert main([str(tmp_path), '--watch']) == 1
    assert capsys.readouterr().err.startswith(f'error: {tmp_path}: no run in it')


def test_a_lock_that_is_looked_at_can_still_be_taken(tmp_path):
    assert lock_state(str(tmp_path), run_dir.LOCK) is LockState.RELEASED
    with FolderLock(str(tmp_path), run_dir.LOCK, flag='train_dir', user='trainer'):
        assert lock_state(str(tmp_path), run_dir.LOCK) is LockState.HELD
    assert lock_state(str(tmp_path), run_dir.LOCK) is LockState.RELEASED
    with (tmp_path / run_dir.LOCK).open('rb') as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as `lock_state` holds it
        timer = threading.Timer(0.01, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        with FolderLock(str(tmp_path), run_dir.LOCK, flag='train_dir', user='trainer'):
            timer.join()


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0, '0 s'), (89, '89 s'), (90, '2 min'), (5399, '90 min'), (5400, '1.5 h'), (86400, '24.0 h'), (1e6, '11.6 d')],
)
def test_durations(seconds, text):
    assert _duration(seconds) == text


def test_the_command_needs_no_tensorflow(folder):
    code = f'from engine.runs.__main__ import main; import sys; main([{str(folder)!r}]); print(*sys.modules)'
    finished = subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert 'engine.runs.status' in finished.stdout.split()
    assert not {'tensorflow', 'keras'} & set(finished.stdout.split())
