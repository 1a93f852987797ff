"""Several workers over loopback: they compute what one does, and a lost one costs nothing but time."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from configs.options import to_flagfile
from engine import checkpoints, evaluation
from engine.distributed.tasks import free_ports
from tests.processes import BEGUN, INDEX, ROOT, Run
from tests.runs import SMALL_RUN, assert_same_values, eval_config, flip, saved_values, small_config
from tests.scripts import run_python

pytestmark = [pytest.mark.usefixtures('no_process_is_left'), pytest.mark.timeout(400)]

STEPS = 120
# On a busy machine a worker may be silent for seconds; where one is to be found hanging, it may as well be sooner.
TIMEOUT, SHORT_TIMEOUT = '--worker_timeout_secs=60', '--worker_timeout_secs=3'
# Nothing that hides a difference: no shuffled labels, few steps, all that a step can do.
STEP_OPTIONS = {
    'max_number_of_steps': 10,
    'weight_decay': 0.01,
    'label_smoothing': 0.1,
    'clip_gradient_norm': 0.5,
    'moving_average_decay': 0.9,
    'eval_every_steps': 0,
}


class WorkersRun(Run):
    """A folder, and the workers that train in it together."""

    def __init__(self, server, train_dir: Path, digits_dir: Path, **options):
        super().__init__(server, train_dir, digits_dir, **{'max_number_of_steps': STEPS, **options})

    def start_workers(self, count: int = 2, *flags: str) -> list:
        """Starts `count` workers; their output goes to one file, as to one terminal."""
        return self.start_each([flags] * count)

    def start_each(self, flags_of_each: Sequence[Sequence[str]]) -> list:
        """Starts a worker with each of some flags."""
        hosts = ','.join(f'127.0.0.1:{port}' for port in free_ports('127.0.0.1', len(flags_of_each)))
        return [
            self.start(f'--worker_hosts={hosts}', f'--task={index}', TIMEOUT, *flags)
            for index, flags in enumerate(flags_of_each)
        ]

    def finish_workers(self, count: int = 2, *flags: str) -> list[int]:
        """Trains until all have ended by themselves; returns their exit statuses."""
        return self.end(self.start_workers(count, *flags))

    def end(self, processes: Sequence) -> list[int]:
        for process in processes:
            process.join(120)
        assert all(process.exitcode is not None for process in processes), self.output()
        return [process.exitcode for process in processes]

    def wait_for_save(self, process, after: int = 0) -> None:
        """Waits until there is a checkpoint of a later step."""
        assert self.wait_for(lambda: self.last() > after, process), self.output()


@pytest.fixture
def make_run(server, tmp_path: Path, digits_dir: Path) -> Callable[..., WorkersRun]:
    return lambda name, **options: WorkersRun(server, tmp_path / name, digits_dir, **options)


@pytest.fixture(scope='module')
def alone(server, tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> WorkersRun:
    """The run that one worker makes, on as many devices: it has the same bits.

    One device differs by rounding, which one day decides which of two equal pixels max pooling takes, and from then on
    the runs differ: on processors with AVX2, after 84 steps in conv1's gradient. So one device is compared for ten.
    """
    run = WorkersRun(server, tmp_path_factory.mktemp('alone') / 'run', digits_dir)
    assert run.finish('--num_clones=2') == 0, run.output()
    return run


@pytest.fixture(scope='module')
def uninterrupted(server, tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> WorkersRun:
    """The run that two workers make."""
    run = WorkersRun(server, tmp_path_factory.mktemp('uninterrupted') / 'run', digits_dir)
    assert run.finish_workers() == [0, 0], run.output()
    return run


@pytest.fixture(scope='module')
def begun_once(server, tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> WorkersRun:
    run = WorkersRun(server, tmp_path_factory.mktemp('begun') / 'run', digits_dir)
    assert run.finish_workers(2, f'--max_number_of_steps={BEGUN}') == [0, 0], run.output()
    return run


@pytest.fixture
def begun(begun_once: WorkersRun, make_run: Callable[..., WorkersRun]) -> WorkersRun:
    """A run of two workers that has come to the first evaluation."""
    run = make_run('begun')
    shutil.copytree(begun_once.train_dir, run.train_dir)
    return run


def largest_difference(run: Run, other: Run) -> float:
    """Returns the largest difference between the last checkpoints of two runs, over the largest value of a variable."""
    values, others = (saved_values(checkpoints.find_checkpoint(str(each.train_dir))) for each in (run, other))
    assert set(values) == set(others)
    return max(
        float(np.abs(value.astype(np.float64) - others[name]).max() / max(np.abs(others[name]).max(), 1e-3))
        for name, value in values.items()
    )


# --------------------------------------------------------------------- the same as one


def test_two_workers_make_the_run_of_one(alone: WorkersRun, uninterrupted: WorkersRun) -> None:
    """After 120 steps of rmsprop with dropout, augmentation, averages, evaluations."""
    assert uninterrupted.last() == STEPS
    assert not uninterrupted.differences(alone)


def test_every_worker_prints_with_its_number_and_the_chief_alone_the_results(uninterrupted: WorkersRun) -> None:
    lines = uninterrupted.output().splitlines()
    for index in (0, 1):
        assert any(line.startswith(f'[worker {index}] global step {STEPS}:') for line in lines)
    assert sum(line.startswith('eval/Accuracy[') for line in lines) == len(uninterrupted.evaluations())
    assert sum('saved ' in line for line in lines if line.startswith('[worker 1]')) == 0


@pytest.mark.full
@pytest.mark.parametrize(
    'options',
    [
        {'optimizer': 'sgd'},
        {'optimizer': 'momentum'},
        {'optimizer': 'rmsprop', 'learning_rate': 0.003},
        {'optimizer': 'momentum', 'gradient_accumulation_steps': 2, 'batch_size': 16},
        {'optimizer': 'momentum', 'batch_size': 2},
    ],
    ids=['sgd', 'momentum', 'rmsprop', 'accumulation', 'own batch'],
)
def test_a_step_of_two_workers_is_that_of_one(make_run: Callable[..., WorkersRun], options: dict) -> None:
    together, alone = (make_run(kind, **{**SMALL_RUN, **STEP_OPTIONS, **options}) for kind in ('together', 'alone'))
    assert alone.finish() == 0, alone.output()
    assert together.finish_workers() == [0, 0], together.output()
    assert largest_difference(together, alone) < 1e-5


@pytest.mark.full
def test_two_workers_and_two_devices_of_one_make_the_same_bits(make_run: Callable[..., WorkersRun]) -> None:
    options = {**SMALL_RUN, **STEP_OPTIONS, 'optimizer': 'rmsprop', 'learning_rate': 0.003, 'best_metric': 'none'}
    together, devices = (make_run(kind, **options) for kind in ('together', 'devices'))
    assert devices.finish('--num_clones=2') == 0, devices.output()
    assert together.finish_workers() == [0, 0], together.output()
    assert_same_values(*(checkpoints.find_checkpoint(str(run.train_dir)) for run in (together, devices)))


@pytest.mark.full
def test_batch_normalisation_is_synchronised(make_run: Callable[..., WorkersRun]) -> None:
    net = {'model_name': 'alexnet_bn', 'train_image_size': 67, 'depth_multiplier': 1 / 16, 'sync_batch_norm': True}
    options = {**SMALL_RUN, **net, 'max_number_of_steps': 3, 'eval_every_steps': 0, 'batch_size': 8}
    together, alone = (make_run(kind, **options) for kind in ('together', 'alone'))
    assert alone.finish() == 0, alone.output()
    assert together.finish_workers() == [0, 0], together.output()
    assert largest_difference(together, alone) < 1e-3


@pytest.mark.full
def test_the_number_of_workers_may_change(begun: WorkersRun, make_run: Callable[..., WorkersRun]) -> None:
    """From two to one, and then to four; as the number of devices of one may."""
    assert begun.finish(f'--max_number_of_steps={STEPS // 2}') == 0, begun.output()
    assert begun.finish_workers(4) == [0] * 4, begun.output()
    devices = make_run('devices')
    for count, steps in ((2, BEGUN), (1, STEPS // 2), (4, STEPS)):
        flags = (f'--num_clones={count}', f'--max_number_of_steps={steps}')
        assert devices.finish(*flags) == 0, devices.output()
    assert not begun.differences(devices)
    config = (begun.train_dir / 'config.cfg').read_text()
    assert '--batch_size=32\n' in config
    assert 'worker_hosts' not in config


# --------------------------------------------------------------------- lost workers


@pytest.mark.quick('1')
@pytest.mark.parametrize('victim', [0, 1])
def test_a_killed_worker(begun: WorkersRun, uninterrupted: WorkersRun, make_fault, victim: int) -> None:
    """The other worker notices the kill, and the restarted run ends with the same bits."""
    fault, moments = make_fault(f'kill -9 of worker {victim}'), random.Random(victim)
    processes = begun.start_workers()
    begun.wait_for_save(processes[0], after=begun.last())
    time.sleep(moments.uniform(0, 0.3))
    processes[victim].kill()
    killed = time.monotonic()
    statuses = begun.end(processes)
    fault.inject()
    assert statuses == [-signal.SIGKILL if index == victim else os.EX_TEMPFAIL for index in (0, 1)]
    assert time.monotonic() - killed < 30  # no timeout has run out: that is 60 s
    assert f'[worker {1 - victim}] error: worker {victim} at 127.0.0.1:' in begun.output()
    assert 'has ended, so all others end too; start all again' in begun.output()
    assert begun.finish_workers() == [0, 0], begun.output()
    fault.survived(begun.differences(uninterrupted))


@pytest.mark.full
@pytest.mark.parametrize('victim', [0, 1])
def test_a_hanging_worker(begun: WorkersRun, uninterrupted: WorkersRun, make_fault, victim: int) -> None:
    fault = make_fault(f'worker {victim} hangs')
    processes = begun.start_workers(2, SHORT_TIMEOUT)
    begun.wait_for_save(processes[0], after=begun.last())
    os.kill(processes[victim].pid, signal.SIGSTOP)
    fault.inject()
    processes[1 - victim].join(30)
    assert processes[1 - victim].exitcode == os.EX_TEMPFAIL, begun.output()
    expected = f'[worker {1 - victim}] error: worker {victim} at 127.0.0.1:'
    (line,) = [line for line in begun.output().splitlines() if line.startswith(expected)]
    assert 'has not been heard of for 3 s (--worker_timeout_secs)' in line
    os.kill(processes[victim].pid, signal.SIGCONT)
    assert begun.end(processes)[victim] == os.EX_TEMPFAIL
    assert begun.finish_workers() == [0, 0], begun.output()
    fault.survived(begun.differences(uninterrupted))


@pytest.mark.quick('15-143')
@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_worker_ends_all(
    begun: WorkersRun, uninterrupted: WorkersRun, make_fault, number: int, status: int
) -> None:
    fault = make_fault(f'{signal.Signals(number).name} to a worker')
    processes = begun.start_workers(2, '--save_interval_steps=0')
    assert begun.wait_for(lambda: f'global step {BEGUN + 10}:' in begun.output(), processes[0]), begun.output()
    os.kill(processes[1].pid, number)
    fault.inject()
    assert begun.end(processes) == [status, status], begun.output()
    stopped = begun.last()
    assert stopped > BEGUN
    for index in (0, 1):
        assert f'[worker {index}] stopped at step {stopped}; the same command resumes from there' in begun.output()
    assert begun.finish_workers() == [0, 0], begun.output()
    fault.survived(begun.differences(uninterrupted))


@pytest.mark.full
def test_sigusr1_to_any_worker_saves(begun: WorkersRun) -> None:
    processes = begun.start_workers(2, '--save_interval_steps=0')
    assert begun.wait_for(lambda: f'global step {BEGUN + 10}:' in begun.output(), processes[0]), begun.output()
    os.kill(processes[1].pid, signal.SIGUSR1)
    begun.wait_for_save(processes[0], after=BEGUN)
    os.kill(processes[0].pid, signal.SIGTERM)
    assert begun.end(processes) == [143, 143], begun.output()


@pytest.mark.full
def test_a_bad_record_of_one_worker_ends_all(
    make_run: Callable[..., WorkersRun], digits_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / 'digits'
    shutil.copytree(digits_dir, copy)
    (path,) = copy.glob('*train*')
    flip(path)
    run = make_run('run', dataset_dir=str(copy), cache='off')
    assert run.finish_workers() == [1, 1], run.output()
    errors = [line for line in run.output().splitlines() if '] error: ' in line]
    assert len(errors) == 2
    assert all(f'{path}, record ' in error for error in errors)
    assert any('has failed: ' in error for error in errors)


@pytest.mark.full
def test_all_go_back_together_from_what_is_not_finite(make_run: Callable[..., WorkersRun]) -> None:
    run = make_run('run', learning_rate=1e30, recover_from_nonfinite=1, save_interval_steps=1, eval_every_steps=0)
    assert run.finish_workers() == [1, 1], run.output()
    for index in (0, 1):
        warnings = {line for line in run.output().splitlines() if line.startswith(f'[worker {index}] warning: ')}
        (going_back,) = warnings
        assert 'returning to step 1 and skipping the 32 images since then (recovery 1 of 1)' in going_back
    assert run.steps() == [0, 1]


@pytest.mark.full
def test_early_stopping_ends_all(make_run: Callable[..., WorkersRun]) -> None:
    run = make_run('run', eval_every_steps=20, early_stopping_patience=1, learning_rate=0.0)
    assert run.finish_workers() == [0, 0], run.output()
    assert run.last() == 40
    assert run.finish_workers() == [0, 0], run.output()
    for index in (0, 1):
        assert f'[worker {index}] nothing to do: {run.train_dir}/model.ckpt-40 was stopped early, 40' in run.output()


# --------------------------------------------------------------------- the other scripts, and the launcher


@pytest.mark.full
def test_evaluation_by_two_workers_counts_every_example_once(uninterrupted: WorkersRun, tmp_path: Path) -> None:
    path, checkpoint = tmp_path / 'together.json', str(uninterrupted.train_dir)
    flags = ['--launch_workers=2', '--batch_size=14', f'--results_path={path}', f'--eval_dir={tmp_path}']
    done = run_python('eval_image_classifier.py', f'--checkpoint_path={checkpoint}', *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('evaluated 40 of 40') == 1  # on the split that the run was evaluated on
    alone = evaluation.evaluate(eval_config(checkpoint, eval_dir=str(tmp_path)))
    assert {**json.loads(path.read_text()), 'images_per_second': 0} == {**alone, 'images_per_second': 0}


@pytest.mark.full
def test_the_launcher_trains_two_workers_and_ends_both_when_one_is_killed(tmp_path: Path, digits_dir: Path) -> None:
    config = to_flagfile(small_config(digits_dir, tmp_path / 'run', max_number_of_steps=10**6, save_interval_steps=50))
    (tmp_path / 'run.cfg').write_text(config)
    command = [sys.executable, 'train_image_classifier.py', f'--flagfile={tmp_path / "run.cfg"}', '--launch_workers=2']
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as launcher:
        assert launcher.stderr is not None
        lines = []
        for line in launcher.stderr:
            lines.append(line)
            if line.startswith('[worker 0] saved '):
                break
        assert lines[-1].startswith('[worker 0] saved '), lines
        victim = psutil.Process(launcher.pid).children()[1]
        victim.kill()
        lines += launcher.stderr.read().splitlines()
    assert launcher.returncode == 137
    assert any(line.startswith('[worker 0] error: worker 1 at 127.0.0.1:') for line in lines), lines
    assert f'worker 1 (process {victim.pid}) ended with status 137 (killed)' in lines


@pytest.mark.full
def test_the_benchmark_prints_what_two_workers_send(tmp_path: Path) -> None:
    path = tmp_path / 'figures.json'
    flags = ['--mode=step', '--model_name=lenet', '--num_steps=10', '--warmup_steps=2', f'--results_path={path}']
    done = run_python('benchmark_image_classifier.py', *flags, '--launch_workers=2')
    assert done.returncode == 0, done.stderr
    figures = json.loads(path.read_text())
    assert (figures['workers'], figures['replicas']) == (2, 2)
    assert 0 < figures['communication_share'] < 1
    # Other processes may send too, and what is sent has a frame.
    assert figures['bytes_per_step_sent'] > 0.9 * figures['bytes_per_step_expected'] > 0
    assert re.search(r'sent by each worker +\d+\.\d MB a step \(gradients in a ring: \d+\.\d\)', done.stdout)


# --------------------------------------------------------------------- clusters that cannot be


ERRORS = {
    'seed': (['--seed=1'], [], '--seed  1         0'),
    'optimizer': ([], ['--optimizer=sgd'], '--optimizer  rmsprop   sgd'),
    'batch': (['--batch_size=33'], ['--batch_size=33'], '--batch_size=33: must be a multiple of the 2 replicas'),
    'clones': (['--num_clones=2'], ['--num_clones=2'], '--num_clones=2: without GPUs each of several workers is one'),
    'examples': (
        ['--dataset_split_name=train[:1]'],
        ['--dataset_split_name=train[:1]'],
        'digits, split train[:1], has 1 examples, fewer than the 2 workers; start fewer',
    ),
}


@pytest.mark.parametrize('name', ERRORS)
def test_clusters_that_cannot_be_say_why(make_run: Callable[..., WorkersRun], name: str) -> None:
    chief_flags, other_flags, message = ERRORS[name]
    run = make_run('run')
    assert run.end(run.start_each([chief_flags, other_flags])) == [1, 1], run.output()
    lines = [line for line in run.output().splitlines() if not line.startswith('E0000')]  # TensorFlow's own
    assert sum(message in line for line in lines) == 2, run.output()
    assert 'Traceback' not in run.output()
    assert not (run.train_dir / f'model.ckpt-0{INDEX}').exists()


def test_workers_with_other_data_are_refused(
    make_run: Callable[..., WorkersRun], digits_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / 'digits'
    shutil.copytree(digits_dir, copy)
    (path,) = copy.glob('*train*')
    path.write_bytes(path.read_bytes()[:-4000])
    run = make_run('run')
    processes = run.start_each([[f'--dataset_dir={folder}'] for folder in (digits_dir, copy)])
    assert run.end(processes) == [1, 1], run.output()
    assert 'Traceback' not in run.output()
