"""Several workers on one machine, with scripts of a few lines as workers: who ends whom, when, with which status."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

import benchmark_image_classifier
import eval_image_classifier
import train_image_classifier
from configs.benchmark import BenchmarkConfig
from configs.evaluation import EvalConfig
from configs.options import make_config
from configs.training import TrainConfig
from engine.distributed import launching
from tests.scripts import ROOT, wait_for_files

# A launcher in a process of its own, as the scripts are one.
LAUNCHER = """
import os, sys
sys.path.insert(0, {root!r})
from engine.distributed.launching import launch
sys.exit(launch({count}, sys.argv[1:], os.environ, ending_secs={ending_secs}, saving_secs={saving_secs}))
"""
# What all workers have: their number, their files, and a way to wait for others without end.
WORKER = """
import os, pathlib, signal, sys, time
flags = dict(flag.lstrip('-').partition('=')[::2] for flag in sys.argv[1:])
task, folder = int(flags['task']), pathlib.Path(flags['folder'])

def note(name, text=''):
    (folder / f'{name}.new').write_text(text)
    (folder / f'{name}.new').rename(folder / name)

def wait_for(*names):
    while not all((folder / name).exists() for name in names):
        time.sleep(0.01)

def say(*words):  # in one piece, as several write to the same pipe
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())

def on(number, call):
    signal.signal(number, lambda *_: call())

"""
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A function that starts workers, which run some lines of Python, and returns their launcher."""
    launchers = []

    def start(
        count: int, lines: str, *flags: str, ending_secs: float = 60.0, saving_secs: float = 60.0, **options
    ) -> subprocess.Popen:
        script = tmp_path / 'worker.py'
        script.write_text(WORKER + lines)
        launcher = LAUNCHER.format(root=str(ROOT), count=count, ending_secs=ending_secs, saving_secs=saving_secs)
        command = [sys.executable, '-c', launcher, str(script), f'--folder={tmp_path}', *flags]
        options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True, **options}
        launchers.append(subprocess.Popen(command, **options))
        return launchers[-1]

    yield start
    for launcher in launchers:
        launcher.kill()
        launcher.communicate()


def finish(launcher: subprocess.Popen) -> tuple[int, str, str]:
    """Waits for a launcher, and returns its status and output, with numbers of processes as PID."""
    stdout, stderr = launcher.communicate(timeout=60)
    return launcher.returncode, stdout, re.sub(r'process \d+', 'process PID', stderr)


def test_all_succeed(start: Start) -> None:
    lines = 'say(task, flags["worker_hosts"], flags["launch_workers"], flags["batch_size"])'
    status, stdout, stderr = finish(start(3, lines, '--launch_workers=3', '--batch_size=6'))
    assert (status, stderr) == (0, '')
    rows = sorted(line.split() for line in stdout.splitlines())
    assert [row[0] for row in rows] == ['0', '1', '2']
    assert {tuple(row[1:]) for row in rows} == {(rows[0][1], '0', '6')}, 'the same addresses for all'
    hosts = rows[0][1].split(',')
    assert len(set(hosts)) == 3
    assert all(re.fullmatch(r'127\.0\.0\.1:\d+', host) for host in hosts)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, str(max(1, len(os.sched_getaffinity(0)) // 2))),
        ({'TF_NUM_INTRAOP_THREADS': '5', 'WORKERS_TOKEN': 'ours'}, '5'),
    ],
)
def test_environment_of_the_workers(start: Start, given: dict[str, str], expected: str) -> None:
    others = dict.fromkeys(('TF_CONFIG', 'RANK', 'WORLD_SIZE', 'OMPI_COMM_WORLD_SIZE', 'SLURM_STEP_ID'), '1')
    lines = f"""
left = {set(others)} & set(os.environ)
say(os.environ['TF_NUM_INTRAOP_THREADS'], os.environ['RANKING'], left, os.environ['WORKERS_TOKEN'])
"""
    environment = {**os.environ, **others, 'RANKING': 'kept', **given}
    status, stdout, stderr = finish(start(2, lines, env=environment))
    assert (status, stderr) == (0, '')
    first, second = stdout.splitlines()
    assert first == second
    assert re.fullmatch(rf'{expected} kept set\(\) {given.get("WORKERS_TOKEN", "[0-9a-f]{32}")}', first)


@pytest.mark.parametrize(
    ('ends', 'status', 'reason'),
    [
        ('sys.exit(3)', 3, ''),
        ('os.kill(os.getpid(), signal.SIGKILL)', 137, ' (killed)'),
        ('os.kill(os.getpid(), signal.SIGSEGV)', 139, ' (segmentation fault)'),
        ('sys.exit(255)', 255, ''),
    ],
)
def test_one_fails_and_the_others_notice(start: Start, ends: str, status: int, reason: str) -> None:
    lines = f"""
if task == 1:
    wait_for('ready0', 'ready2')
    note('failed')
    {ends}
note(f'ready{{task}}')
wait_for('failed')
time.sleep(0.2)
say(task, 'noticed')
"""
    launcher = start(3, lines)
    assert finish(launcher)[0::2] == (status, f'worker 1 (process PID) ended with status {status}{reason}\n')


def test_the_first_status_counts_and_every_failure_is_told(start: Start) -> None:
    lines = """
if task:
    wait_for('failed')
    time.sleep(0.2)
    sys.exit(4)
note('failed')
sys.exit(3)
"""
    told = [f'worker {index} (process PID) ended with status {3 + index}' for index in (0, 1)]
    status, _, stderr = finish(start(2, lines))
    assert (status, stderr.splitlines()) == (3, told)


def test_one_that_hangs_gets_sigterm_then_sigkill(start: Start) -> None:
    lines = """
if task == 0:
    on(signal.SIGTERM, lambda: say('SIGTERM'))
    note('ready')
elif task == 1:
    on(signal.SIGTERM, lambda: sys.exit(0))
    note('ready1')
else:
    wait_for('ready', 'ready1')
    sys.exit(2)
wait_for('the end of time')
"""
    status, stdout, stderr = finish(start(3, lines, ending_secs=0.3, saving_secs=0.3))
    assert (status, stdout) == (2, 'SIGTERM\n')
    assert stderr.splitlines() == [
        'worker 2 (process PID) ended with status 2',
        'worker 0 (process PID) ended with status 137 (killed)',
    ]


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_end_is_forwarded_once_and_saving_may_take_its_time(
    start: Start, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """The chief saves after the other has ended, for longer than a failure would leave it; that is not a failure."""
    lines = f"""
received = []
on({int(number)}, lambda: received.append(1))
note(f'ready{{task}}')
while not received:
    time.sleep(0.01)
if task == 0:
    time.sleep(1)
    say(len(received), 'saved')
sys.exit({status})
"""
    launcher = start(2, lines, ending_secs=0.1, saving_secs=0.1, process_group=0)
    wait_for_files(tmp_path, 'ready0', 'ready1')
    os.killpg(launcher.pid, number)  # as a terminal does, and `timeout`
    assert finish(launcher) == (status, '1 saved\n', '')


def test_a_second_signal_kills(start: Start, tmp_path: Path) -> None:
    lines = """
on(signal.SIGTERM, lambda: note(f'asked{task}'))
note(f'ready{task}')
wait_for('the end of time')
"""
    launcher = start(2, lines)
    for names in (('ready0', 'ready1'), ('asked0', 'asked1')):
        wait_for_files(tmp_path, *names)
        launcher.terminate()
    status, _, stderr = finish(launcher)
    assert status == 137
    assert sorted(stderr.splitlines()) == [
        f'worker {index} (process PID) ended with status 137 (killed)' for index in (0, 1)
    ]


def test_a_request_to_save_is_forwarded(start: Start, tmp_path: Path) -> None:
    lines = """
on(signal.SIGUSR1, lambda: note(f'saved{task}'))
note(f'ready{task}')
wait_for(f'saved{task}')
"""
    launcher = start(2, lines)
    wait_for_files(tmp_path, 'ready0', 'ready1')
    launcher.send_signal(signal.SIGUSR1)
    assert finish(launcher) == (0, '', '')


def test_workers_die_with_their_launcher(start: Start, tmp_path: Path) -> None:
    lines = """
on(signal.SIGTERM, lambda: None)
note(f'ready{task}', str(os.getpid()))
wait_for('the end of time')
"""
    launcher = start(2, lines, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_files(tmp_path, 'ready0', 'ready1')
    workers = [psutil.Process(int((tmp_path / f'ready{index}').read_text())) for index in (0, 1)]
    launcher.kill()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE]


def test_a_flagfile_with_launch_workers_starts_no_launchers(tmp_path: Path) -> None:
    """The flags that are added win over it."""
    script = tmp_path / 'script.py'
    script.write_text(f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from configs import cli
from configs.training import TrainConfig
from engine.distributed import launching, tasks

def main(config):
    if config.cluster.launch_workers:
        return launching.launch(config.cluster.launch_workers, sys.argv, os.environ)
    task = tasks.find_task(config.cluster, os.environ)
    os.write(1, f'{{task.index}} of {{task.count}}, here {{task.local_index}} of {{task.local_count}}\\n'.encode())
    return 0

cli.run(TrainConfig, main)
""")
    (tmp_path / 'run.cfg').write_text('--launch_workers=2\n--cluster=none\n')
    command = [sys.executable, str(script), f'--flagfile={tmp_path}/run.cfg']
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (finished.returncode, finished.stderr) == (0, '')
    assert sorted(finished.stdout.splitlines()) == ['0 of 2, here 0 of 2', '1 of 2, here 1 of 2']


@pytest.mark.parametrize(
    ('script', 'config'),
    [
        (train_image_classifier, TrainConfig),
        (eval_image_classifier, EvalConfig),
        (benchmark_image_classifier, BenchmarkConfig),
    ],
)
def test_scripts_launch(script: ModuleType, config: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'checkpoint').touch()  # all that is looked for before workers are launched
    options = {'checkpoint_path': str(tmp_path), 'launch_workers': 2}
    before = signal.getsignal(signal.SIGUSR1)
    try:
        monkeypatch.setattr(sys, 'argv', ['script.py', '--launch_workers=2'])
        monkeypatch.setattr(launching, 'launch', lambda *arguments: arguments)
        assert script.main(make_config(config, **options)) == (2, sys.argv, os.environ)
    finally:
        signal.signal(signal.SIGUSR1, before)
