"""What a run survives: real processes, killed, signalled, out of disk, with damaged files; the end must be the same.

Each test notes what it has injected, and `make test` prints the sum of it.
"""

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

from engine import checkpoints
from engine.training import run_dir
from engine.training.signals import TrainingSignals
from tests.processes import BEGUN, DATA, INDEX, STEPS, Run, wait_for
from tests.runs import DAMAGES, checkpoint_files, steps_in_tensorboard

pytestmark = pytest.mark.usefixtures('no_process_is_left')

# So that a signal finds it training, however late it comes: drawing takes many times what a step takes.
SLOW = ('--save_summaries_steps=1', '--summarize_images', '--summarize_histograms')
SCALARS = ('--save_summaries_secs=600',)
WRITTEN = {'.': 'a checkpoint', 'best': 'the best one'}


def _wait_in_tensorflow(ready: Path, noted: Path) -> None:
    """Waits for ever where Python runs no signal handler."""

    def watch(signals: TrainingSignals) -> None:
        while not signals.is_set():
            time.sleep(0.001)
        noted.touch()

    with TrainingSignals() as signals:
        threading.Thread(target=watch, args=(signals,), daemon=True).start()
        ready.touch()
        tf.queue.FIFOQueue(1, [tf.int32]).dequeue()


def answers(process, number: int) -> bool:
    """Returns whether a process handles or ignores a signal that would end it."""
    lines = Path(f'/proc/{process.pid}/status').read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(('SigIgn:', 'SigCgt:'))]
    return any(mask >> (number - 1) & 1 for mask in masks)


@pytest.fixture(scope='module')
def uninterrupted(server, tmp_path_factory, digits_dir) -> Run:
    run = Run(server, tmp_path_factory.mktemp('uninterrupted') / 'run', digits_dir)
    assert run.finish() == 0, run.output()
    assert run.last() == STEPS
    return run


@pytest.fixture
def run(server, tmp_path, digits_dir) -> Run:
    return Run(server, tmp_path / 'run', digits_dir)


@pytest.fixture
def begun(begun_once, run) -> Run:
    """A run that has come to the first evaluation, the same for each test."""
    shutil.copytree(begun_once.train_dir, run.train_dir)
    return run


@pytest.fixture(scope='module')
def begun_once(server, tmp_path_factory, digits_dir) -> Run:
    run = Run(server, tmp_path_factory.mktemp('begun') / 'run', digits_dir)
    assert run.finish(f'--max_number_of_steps={BEGUN}') == 0, run.output()
    return run


# ------------------------------------------------------------------------ killed


def kill(process) -> bool:
    """Kills it; says whether it had not ended before."""
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)
    return process.exitcode == -signal.SIGKILL


def stop_while_writing(run: Run, folder: str, process) -> None:
    """Stops the process where it has begun to write a checkpoint into a folder of the run."""
    before = run.parts(folder)
    while run.wait_for(lambda: bool(run.parts(folder) - before), process):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.005)  # all its threads stop
        if run.parts(folder) - before:
            return
        os.kill(process.pid, signal.SIGCONT)


def wait_in_best(run: Run, process, moments: random.Random) -> None:
    del moments
    stop_while_writing(run, 'best', process)


def wait_in_save(run: Run, process, moments: random.Random) -> None:
    del moments
    run.wait_for_save(process)
    stop_while_writing(run, '.', process)


def wait_after_save(run: Run, process, moments: random.Random) -> None:
    run.wait_for_save(process)
    time.sleep(moments.uniform(0, 0.15))


def wait_from_start(run: Run, process, moments: random.Random) -> None:
    before, end = run.last(), time.monotonic() + moments.uniform(0, 4)
    run.wait_for(lambda: run.last() > before or time.monotonic() > end, process)


# What a run writes, in the order in which one that begins comes to it.
WRITES = (
    'model.json',
    f'model.ckpt-5{DATA}',
    f'model.ckpt-5{INDEX}',
    'checkpoint',
    f'best/model.ckpt-40{INDEX}',
    'evaluations.json',
    f'-model.ckpt-45{INDEX}',  # removed
    'checkpoint',
)


def test_killed_at_each_write(run, uninterrupted, make_fault):
    fault = make_fault('kill -9, at each write')
    for name in WRITES:
        sign, name = ('-', name[1:]) if name.startswith('-') else ('', name)
        process = run.start(*SCALARS, killed_at=f'{sign}{run.train_dir}/{name}')
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, (name, run.output())
        fault.inject()
    assert run.finish(*SCALARS) == 0, run.output()
    fault.survived(run.differences(uninterrupted))
    assert_steps_rise(run)
    assert steps_in_tensorboard(run.train_dir)['learning_rate'][-1] == STEPS


def assert_steps_rise(run: Run) -> None:
    """Checks that TensorBoard shows each evaluation once, and no point of what was lost."""
    (eval_dir,) = run.train_dir.glob('eval_*')
    for folder in (run.train_dir, eval_dir):
        for tag, steps in steps_in_tensorboard(folder).items():
            if not tag.startswith('_hparams_'):  # which each start writes at step 0
                assert steps == sorted(set(steps)), tag
    assert steps_in_tensorboard(eval_dir)['accuracy'] == [row['step'] for row in run.evaluations()]


@pytest.mark.full
@pytest.mark.timeout(400)
def test_killed_twenty_times_at_any_moment(run, uninterrupted, make_fault):
    moments, differences = random.Random(0), []
    while_written = {folder: make_fault(f'kill -9, {name} half written') for folder, name in WRITTEN.items()}
    otherwise = make_fault('kill -9, at another moment')
    for wait in [wait_in_best] * 5 + [wait_in_save, wait_after_save, wait_from_start] * 5:
        was_killed = False
        while not was_killed:
            before = {folder: run.parts(folder) for folder in WRITTEN if (run.train_dir / folder).exists()}
            process = run.start()
            wait(run, process, moments)
            was_killed = kill(process)
            if not was_killed:  # it was too quick for us and has reached its end: once more from the beginning
                differences += run.differences(uninterrupted)
                shutil.rmtree(run.train_dir)
        left = [folder for folder in WRITTEN if (run.train_dir / folder).exists() and is_new(run, folder, before)]
        for fault in [while_written[folder] for folder in left[-1:]] or [otherwise]:
            fault.inject()
    assert run.finish() == 0, run.output()
    differences += run.differences(uninterrupted)
    for fault in (*while_written.values(), otherwise):
        fault.survived(differences)
    assert sum(fault.injected for fault in (*while_written.values(), otherwise)) == 20
    assert [fault.injected >= 4 for fault in while_written.values()] == [True, True]


def is_new(run: Run, folder: str, before: dict[str, set[tuple[str, int, int]]]) -> bool:
    """Returns whether something half written is there that was not there before."""
    return bool(run.parts(folder) - before.get(folder, set()))


@pytest.mark.full
def test_killed_with_two_replicas(server, tmp_path, digits_dir, make_fault):
    whole, killed = (
        Run(server, tmp_path / name, digits_dir, num_clones=2, max_number_of_steps=40) for name in ('whole', 'killed')
    )
    assert whole.finish() == 0, whole.output()
    fault = make_fault('kill -9 with two replicas')
    for _ in range(3):
        process = killed.start(*SLOW)
        killed.wait_for_save(process)
        assert kill(process), killed.output()
        fault.inject()
    assert killed.finish() == 0, killed.output()
    fault.survived(killed.differences(whole))


# ------------------------------------------------------------------------ signals


def start_and_reach_step_10(run: Run):
    process = run.start('--save_interval_steps=0', *SLOW)
    assert run.wait_for(lambda: 'global step 10' in run.output(), process), run.output()
    return process


@pytest.mark.quick('15-143')
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_go_on_or_end(run, uninterrupted, make_fault, number, status):
    saves, ends = make_fault('SIGUSR1'), make_fault(number.name)
    process = start_and_reach_step_10(run)
    os.kill(process.pid, signal.SIGUSR1)
    saves.inject()
    assert run.wait_for(lambda: f'saved {run.train_dir}/model.ckpt-' in run.output(), process), run.output()
    saved = run.last()
    assert run.wait_for(lambda: f'global step {saved // 10 * 10 + 10}:' in run.output(), process), run.output()
    os.kill(process.pid, number)
    ends.inject()
    process.join(60)
    assert process.exitcode == status, run.output()
    stopped = run.last()
    assert len(run.steps()) == 2, run.output()
    assert 0 < saved < stopped < STEPS
    assert f'stopped at step {stopped}; the same command resumes from there' in run.output()
    assert run.finish() == 0, run.output()
    assert f'resuming from {run.train_dir}/model.ckpt-{stopped}' in run.output()
    differences = run.differences(uninterrupted)
    saves.survived(differences)
    ends.survived(differences)


def test_a_second_signal_ends_at_once(server, tmp_path):
    ready, noted = tmp_path / 'ready', tmp_path / 'noted'
    process = server.Process(target=_wait_in_tensorflow, args=(ready, noted), daemon=True)
    process.start()
    assert wait_for(ready.exists, process)
    time.sleep(0.3)  # so that it does wait in TensorFlow, most likely
    os.kill(process.pid, signal.SIGTERM)
    assert wait_for(noted.exists, process), process.exitcode
    os.kill(process.pid, signal.SIGTERM)  # the same one, from a scheduler and from a launcher
    process.join(1.1)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 143


@pytest.mark.full
def test_sigusr1_does_not_end_a_run_that_starts(run, uninterrupted, make_fault):
    fault = make_fault('SIGUSR1 while it starts')
    process = run.start(f'--max_number_of_steps={BEGUN}')
    assert run.wait_for(lambda: answers(process, signal.SIGUSR1), process), run.output()
    fault.inject()  # one row, many signals
    while 'training ends at step' not in run.output() and process.is_alive():  # until the loop takes them
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.02)
    process.join(60)
    assert process.exitcode == 0, run.output()
    assert run.finish() == 0, run.output()
    fault.survived(run.differences(uninterrupted))


@pytest.mark.full
@pytest.mark.parametrize(
    ('moment', 'statuses'),
    [
        (lambda run, process: answers(process, signal.SIGUSR1), (-signal.SIGTERM, 143)),  # TensorFlow is not loaded
        (lambda run, _: (run.train_dir / run_dir.LOCK).exists(), (143,)),
    ],
    ids=['begins', 'has the lock'],
)
def test_sigterm_ends_a_run_that_starts(run, uninterrupted, make_fault, moment, statuses):
    fault = make_fault('SIGTERM while it starts')
    process = run.start(*SLOW)
    assert run.wait_for(lambda: moment(run, process), process), run.output()
    os.kill(process.pid, signal.SIGTERM)
    fault.inject()
    process.join(60)
    assert process.exitcode in statuses, run.output()
    assert 'Traceback' not in run.output()
    assert 'global step 10' not in run.output()
    assert run.finish() == 0, run.output()
    fault.survived(run.differences(uninterrupted))


# ------------------------------------------------------------------------ files


@pytest.mark.quick('data changed')
@pytest.mark.parametrize('damage', ['data cut', 'data changed', 'index changed', 'data missing'])
def test_a_damaged_checkpoint_is_passed_over(begun, uninterrupted, make_fault, damage):
    fault = make_fault(f'checkpoint damaged: {damage}')
    latest = checkpoints.latest_checkpoint(str(begun.train_dir))
    assert latest is not None
    DAMAGES[damage](latest)
    fault.inject()
    assert begun.finish() == 0, begun.output()
    output = begun.output()
    assert f'warning: {latest}' in output
    assert f'resuming from {begun.train_dir}/model.ckpt-{BEGUN - 5}' in output
    aside = [path for path in begun.train_dir.iterdir() if path.name.startswith(f'damaged-model.ckpt-{BEGUN}.')]
    assert aside
    for path in aside:
        path.unlink()
    fault.survived(begun.differences(uninterrupted))


def assert_refused(run: Run, status: int, output: str, before: dict[str, tuple[int, bytes]]) -> None:
    """Checks that a run has ended in one line, and what it had is unharmed."""
    assert status == 1, output
    lines = output.splitlines()
    assert [line for line in lines if line.startswith('error: ')] == lines[-1:], output
    assert 'Traceback' not in output
    after = checkpoint_files(run.train_dir)
    kept = {name: file for name, file in before.items() if name.startswith('model.ckpt')}
    assert {name: after[name][1] for name in kept if name in after} == {
        name: content for name, (_, content) in kept.items() if name in after
    }
    assert run.last() >= max(checkpoints.checkpoint_step(name.removesuffix(INDEX)) for name in kept)  # others turned
    assert not run.parts()
    assert not run.parts('best')


@pytest.mark.quick('4000-cannot save {train_dir}/model.ckpt-45: ')
@pytest.mark.parametrize(
    ('largest_file', 'what'),
    [
        (0, '--train_dir={train_dir}: '),
        (100, '--train_dir={train_dir}: '),  # a file is cut short
        (4_000, 'cannot save {train_dir}/model.ckpt-45: '),  # no part of it is written: larger than a buffer
        (20_000, 'cannot save {train_dir}/model.ckpt-45: '),
    ],
)
def test_a_full_disk(begun, uninterrupted, make_fault, largest_file, what):
    fault = make_fault(f'disk full at {largest_file} bytes')
    before = checkpoint_files(begun.train_dir)
    status, output = begun.finish_within(largest_file, '--cache=off')
    fault.inject()
    assert_refused(begun, status, output, before)
    assert f'error: {what.format(train_dir=begun.train_dir)}' in output
    if what.startswith('cannot save'):
        assert f'the last good checkpoint is {begun.train_dir}/model.ckpt-{BEGUN}. ' in output
    assert begun.finish() == 0, begun.output()
    fault.survived(begun.differences(uninterrupted))


@pytest.mark.full
def test_a_full_disk_at_one_file(begun, uninterrupted, make_fault):
    fault = make_fault('disk full at one file')
    texts = ('config.cfg', 'data.json', 'model.json', 'checkpoint', 'evaluations.json')
    for name in (*texts, 'best/model.json', 'best/checkpoint', 'best/best.json'):
        path = begun.train_dir / name
        before, written = checkpoint_files(begun.train_dir), path.read_bytes()
        path.with_name(f'.part-{path.name}').symlink_to('/dev/full')  # where it is written before it gets its name
        start = len(begun.output())
        status = begun.finish()
        fault.inject()
        assert_refused(begun, status, begun.output()[start:], before)
        assert path.read_bytes() == written
        assert str(begun.train_dir) in begun.output().splitlines()[-1], name
    assert begun.finish() == 0, begun.output()
    fault.survived(begun.differences(uninterrupted))


# ------------------------------------------------------------------------ two trainers


def test_a_second_trainer_is_refused(run, uninterrupted, make_fault):
    second, stale = make_fault('second trainer'), make_fault('stale lock')
    process = run.start(*SLOW)
    run.wait_for_save(process)
    os.kill(process.pid, signal.SIGSTOP)  # it would end too soon
    second.inject()
    assert run.finish() == 1
    assert f'in use by another trainer, process {process.pid} on ' in run.output()
    assert kill(process), run.output()
    assert (run.train_dir / run_dir.LOCK).stat().st_size > 0, 'a lock that nobody holds any more'
    stale.inject()
    assert run.finish() == 0, run.output()
    differences = run.differences(uninterrupted)
    for fault in (second, stale):
        fault.survived(differences)
