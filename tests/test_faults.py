"""What a run survives: real processes, killed, signalled, out of disk, with damaged files; the end must be the same.

The processes are forked from a server that has TensorFlow loaded, which takes seconds otherwise. Each test notes what
it has injected, and `make test` prints the sum of it.
"""

import json
import multiprocessing
import os
import random
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.options import to_flagfile
from engine import checkpoints, evaluation_history, run_lock
from engine.signals import TrainingSignals
from tests.runs import saved_values, small_config

ROOT = Path(__file__).resolve().parents[1]
STEPS = 240
# Everything that has a state or is random: dropout, augmentation, slots, moving averages, evaluations, the best one.
RUN = {
    'preprocessing_name': 'inception',
    'train_image_size': 8,
    'optimizer': 'rmsprop',
    'learning_rate': 0.003,
    'moving_average_decay': 0.9,
    'max_number_of_steps': STEPS,
    'save_interval_steps': 5,
    'max_checkpoints_to_keep': 3,
    'eval_every_steps': 40,
    'eval_split_name': 'test[:40]',
    'devices': 'cpu',
}


def _train_in_child(arguments: Sequence[str], log: str, largest_file: int | None) -> None:
    """Runs the training script as a shell would, its output in a file."""
    with open(log, 'ab') as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if largest_file is not None:  # the nearest to a full disk that needs no file system of its own
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ['train_image_classifier.py', *arguments]
    os.chdir(ROOT)
    runpy.run_path(sys.argv[0], run_name='__main__')


def _wait_in_tensorflow(ready: str) -> None:
    """Waits for ever where Python runs no signal handler."""
    with TrainingSignals():
        Path(ready).touch()
        tf.queue.FIFOQueue(1, [tf.int32]).dequeue()


class Run:
    """A folder, and the processes that train in it one after the other."""

    def __init__(self, server, train_dir: Path, digits_dir: Path, **options):
        self.train_dir = train_dir
        self._server, self._log = server, train_dir.with_name(f'{train_dir.name}.log')
        self._flagfile = train_dir.with_name(f'{train_dir.name}.cfg')
        self._flagfile.write_text(to_flagfile(small_config(digits_dir, train_dir, **{**RUN, **options})))

    def start(self, *flags: str, largest_file: int | None = None):
        arguments = ([f'--flagfile={self._flagfile}', *flags], str(self._log), largest_file)
        process = self._server.Process(target=_train_in_child, args=arguments)
        process.start()
        return process

    def finish(self, *flags: str, largest_file: int | None = None) -> int:
        """Trains until the process ends by itself; returns its exit status."""
        process = self.start(*flags, largest_file=largest_file)
        process.join(120)
        assert process.exitcode is not None, self.output()
        return process.exitcode

    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ''

    def steps(self) -> list[int]:
        return [checkpoints.checkpoint_step(prefix) for prefix in checkpoints.list_checkpoints(str(self.train_dir))]

    def last(self) -> int:
        return max(self.steps(), default=-1)

    def wait_for(self, condition: Callable[[], bool], process) -> None:
        """Waits until something is true, or the process has ended."""
        deadline = time.monotonic() + 60
        while not condition() and process.is_alive():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.001)

    def wait_for_save(self, process) -> None:
        """Waits until the process has saved a checkpoint of its own."""
        before = self.last()
        self.wait_for(lambda: self.last() > before, process)

    def differences(self, other: 'Run') -> list[str]:
        """Lists what is not the same in the end: variables, evaluations, the best checkpoint, files left over."""
        found = []
        for folder in ('.', 'best'):
            ours, theirs = (checkpoints.find_checkpoint(str(run.train_dir / folder)) for run in (self, other))
            if os.path.basename(ours) != os.path.basename(theirs):
                return [f'{ours} is not {theirs}']
            values, expected = saved_values(ours), saved_values(theirs)
            found += sorted(set(values) ^ set(expected))
            found += [name for name in expected if values[name].tobytes() != expected[name].tobytes()]
        history, expected_history = (run.evaluations() for run in (self, other))
        if history != expected_history:
            found.append(f'{history} is not {expected_history}')
        names, expected_names = (
            {path.name for path in run.train_dir.iterdir() if 'tfevents' not in path.name} for run in (self, other)
        )
        return found + sorted(names ^ expected_names)

    def evaluations(self) -> list[dict]:
        return json.loads((self.train_dir / evaluation_history.FILE_NAME).read_text())


@pytest.fixture(scope='module')
def server():
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['engine.learning', 'tests.test_faults'])
    return context


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
def survived(record_property) -> Callable[[str, int, list[str]], None]:
    """A function that notes what was injected, and that nothing differs."""

    def check(fault: str, injected: int, differences: list[str]) -> None:
        record_property('fault', [fault, injected, injected - bool(differences), len(differences)])
        assert not differences

    return check


# ------------------------------------------------------------------------ killed


def kill(process) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_twenty_times_at_any_moment(run, uninterrupted, survived):
    moments, kills, in_saves = random.Random(0), 0, 0
    while kills < 20:
        process = run.start()
        if kills % 3 == 0:  # while it writes
            run.wait_for_save(process)
            run.wait_for(lambda: any(run.train_dir.glob('.part-model*')), process)
            in_saves += 1
        elif kills % 3 == 1:  # wherever it is, after it has come further
            run.wait_for_save(process)
            time.sleep(moments.uniform(0, 0.3))
        else:  # perhaps before it has begun
            time.sleep(moments.uniform(0, 4))
        assert process.exitcode is None or kills > 10, run.output()
        kill(process)
        kills += 1
    assert run.finish() == 0, run.output()
    assert in_saves >= 6
    survived('kill -9, a third of them during a save', kills, run.differences(uninterrupted))


@pytest.mark.slow
def test_killed_with_two_replicas(server, tmp_path, digits_dir, survived):
    whole, killed = (
        Run(server, tmp_path / name, digits_dir, num_clones=2, max_number_of_steps=40) for name in ('whole', 'killed')
    )
    assert whole.finish() == 0, whole.output()
    for _ in range(3):
        process = killed.start()
        killed.wait_for_save(process)
        kill(process)
    assert killed.finish() == 0, killed.output()
    survived('kill -9 with two replicas', 3, killed.differences(whole))


# ------------------------------------------------------------------------ signals


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_end(run, uninterrupted, survived, number, status):
    process = run.start('--save_interval_steps=0')
    run.wait_for(lambda: 'global step 10' in run.output(), process)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == status, run.output()
    stopped = run.last()
    assert 0 < stopped < STEPS
    assert f'stopped at step {stopped}; the same command goes on from there' in run.output()
    assert run.finish() == 0, run.output()
    assert f'continuing from {run.train_dir}/model.ckpt-{stopped}' in run.output()
    survived(number.name, 1, run.differences(uninterrupted))


def test_a_second_signal_ends_at_once(server, tmp_path):
    ready = tmp_path / 'ready'
    process = server.Process(target=_wait_in_tensorflow, args=(str(ready),))
    process.start()
    while not ready.exists():
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    process.join(0.5)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 143


def test_sigusr1_saves_and_goes_on(run, uninterrupted, survived):
    process = run.start('--save_interval_steps=0')
    run.wait_for(lambda: 'global step 10' in run.output(), process)
    os.kill(process.pid, signal.SIGUSR1)
    process.join(60)
    assert process.exitcode == 0, run.output()
    steps = run.steps()
    assert len(steps) == 2, run.output()
    assert 0 < steps[0] < steps[1] == STEPS
    assert run.finish('--max_checkpoints_to_keep=1') == 0
    checkpoints_differ = saved_values(f'{run.train_dir}/model.ckpt-{STEPS}').items()
    expected = saved_values(f'{uninterrupted.train_dir}/model.ckpt-{STEPS}')
    survived('SIGUSR1', 1, [name for name, value in checkpoints_differ if not np.array_equal(value, expected[name])])


# ------------------------------------------------------------------------ files


def truncate(prefix: str) -> None:
    path = Path(f'{prefix}.data-00000-of-00001')
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(prefix: str) -> None:
    path = Path(f'{prefix}.data-00000-of-00001')
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_index(prefix: str) -> None:
    Path(f'{prefix}.index').write_bytes(b'not an index')


def lose_data(prefix: str) -> None:
    Path(f'{prefix}.data-00000-of-00001').unlink()


@pytest.mark.parametrize('damage', [truncate, flip_a_bit, spoil_index, lose_data])
def test_a_damaged_checkpoint_is_passed_over(run, uninterrupted, survived, damage):
    assert run.finish('--max_number_of_steps=20') == 0
    latest = checkpoints.latest_checkpoint(str(run.train_dir))
    damage(latest)
    assert run.finish() == 0, run.output()
    output = run.output()
    assert f'warning: {latest}' in output
    assert f'continuing from {run.train_dir}/model.ckpt-15' in output
    differences = [line for line in run.differences(uninterrupted) if not line.startswith('[')]  # evaluated at 20 too
    survived(f'checkpoint damaged: {damage.__name__}', 1, differences)


def test_only_damaged_checkpoints(run):
    assert run.finish('--max_number_of_steps=10') == 0
    for prefix in checkpoints.list_checkpoints(str(run.train_dir)):
        truncate(prefix)
    assert run.finish() == 1
    assert 'none of its 2 checkpoints can be read; move them away to begin anew' in run.output()


def test_a_full_disk(run, uninterrupted, survived):
    assert run.finish('--max_number_of_steps=20') == 0
    before = sorted(path.name for path in run.train_dir.glob('*model.ckpt*'))
    assert run.finish('--cache=off', largest_file=20_000) == 1
    output = run.output()
    assert f'cannot save {run.train_dir}/model.ckpt-25: ' in output
    assert f'the last good checkpoint is {run.train_dir}/model.ckpt-20' in output
    assert 'Traceback' not in output
    assert sorted(path.name for path in run.train_dir.glob('*model.ckpt*')) == before
    assert not list(run.train_dir.glob('.part*'))
    assert run.finish() == 0, run.output()
    differences = [line for line in run.differences(uninterrupted) if not line.startswith('[')]
    survived('disk full', 1, differences)


# ------------------------------------------------------------------------ two trainers


def test_a_second_trainer_is_refused(run, uninterrupted, survived):
    process = run.start()
    run.wait_for_save(process)
    os.kill(process.pid, signal.SIGSTOP)  # it would end too soon
    assert run.finish() == 1
    assert f'in use by another trainer, process {process.pid} on ' in run.output()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (run.train_dir / run_lock.FILE_NAME).stat().st_size > 0, 'a lock that nobody holds any more'
    assert run.finish() == 0, run.output()
    survived('second trainer, then a stale lock', 1, run.differences(uninterrupted))
