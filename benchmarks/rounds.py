"""Contestants that take turns: each is a separate process that sleeps between its turns.

    contestants = [Contestant('ours', 'with_engine.py', 'step', {'batch_size': 32}, per_turn=6, unit=32), ...]
    speeds = measure(contestants, place, 'step')
    speeds['ours']              # images a second, one value per round

The order of turns is random in each round, so that other load on the machine affects all alike. Only the contestants
of one table run at the same time, so that they fit into memory.
"""

import contextlib
import dataclasses
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAUSE_SECONDS = 0.2  # between turns: waiting threads spin a little longer
_OF_PEERS = ('with_dali.py', 'with_torch.py')
# Lets contestants import this project's packages, and hides GPUs.
_ENVIRONMENT = {'PYTHONPATH': ROOT, 'TF_CPP_MIN_LOG_LEVEL': '2', 'CUDA_VISIBLE_DEVICES': '-1'}


@dataclasses.dataclass(frozen=True)
class Place:
    """Files and settings of a run of `bench.py`.

    Attributes:
        peers: Python interpreter that has PyTorch, Pillow and DALI.
        work_dir: Folder for files and logs.
        imagenet_dir: TFRecords of ImageNet, or of part of it.
        cifar10_dir: TFRecords of CIFAR-10.
        raw_dir: Raw ILSVRC images.
        rounds: Number of rounds.
    """

    peers: str
    work_dir: str
    imagenet_dir: str
    cifar10_dir: str
    raw_dir: str
    rounds: int

    def path(self, name: str) -> str:
        """Returns the path of a file in `work_dir`."""
        return os.path.join(self.work_dir, name)


@dataclasses.dataclass
class Contestant:
    """A process that works on request.

    Attributes:
        name: Its name in the table.
        script: Script in this folder; determines whether the peers' interpreter runs it.
        work: The script's work.
        options: Options of the work.
        per_turn: Steps, passes or calls in a turn.
        unit: Units in one of these: the images of a batch, for instance.
        warmup: Number that is not measured.
        cores: Cores it may use; all if empty.
        environment: Additional environment variables.
        log_path: Log file of its output.
        speeds: Units per second in each turn.
        waited: Seconds spent waiting for input in each turn.
    """

    name: str
    script: str
    work: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    per_turn: int = 1
    unit: float = 1.0
    warmup: int = 3
    cores: Sequence[int] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    log_path: str = dataclasses.field(init=False, default='')
    speeds: list[float] = dataclasses.field(init=False, default_factory=list)
    waited: list[float] = dataclasses.field(init=False, default_factory=list)

    def start(self, place: Place, log_name: str) -> None:
        """Starts the process."""
        self.log_path = os.path.join(place.work_dir, 'logs', f'{log_name}.log')
        os.makedirs(os.path.dirname(self.log_path), exist_ok=True)
        reading_end, writing_end = os.pipe()  # not standard output, where libraries print
        with open(self.log_path, 'w') as log:
            self._process = subprocess.Popen(
                [
                    place.peers if self.script in _OF_PEERS else sys.executable,
                    os.path.join(ROOT, 'benchmarks', self.script),
                    self.work,
                    f'--options={json.dumps(self.options)}',
                    f'--answers={writing_end}',
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env={
                    **os.environ,
                    **_ENVIRONMENT,
                    'TORCHINDUCTOR_CACHE_DIR': os.path.abspath(place.path('inductor')),
                    **self.environment,
                },
                pass_fds=[writing_end],
                preexec_fn=(lambda: os.sched_setaffinity(0, self.cores)) if self.cores else None,
            )
        os.close(writing_end)
        self._answers = os.fdopen(reading_end)

    def warm_up(self) -> bool:
        """Waits until the process is ready and runs the warm-up; returns False if it cannot run at all."""
        return self._answered('ready') is not None and self._run(self.warmup) is not None

    def run(self) -> float:
        """Runs one turn; returns the seconds it spent waiting."""
        waited = self._run(self.per_turn)
        if waited is None:
            sys.exit(f'error: {self.name} has failed; see {self.log_path}')
        return waited

    def take_turn(self) -> None:
        """Measures one turn in wall time."""
        start = time.perf_counter()
        self.waited.append(self.run())
        self.speeds.append(self.per_turn * self.unit / (time.perf_counter() - start))

    @property
    def process(self) -> psutil.Process:
        """The running process."""
        return psutil.Process(self._process.pid)

    def peak_rss_mib(self) -> float:
        """Returns the peak resident set from the kernel; `ru_maxrss` would start with the parent's."""
        with open(f'/proc/{self._process.pid}/status') as status:
            (line,) = (line for line in status if line.startswith('VmHWM'))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def _run(self, count: int) -> float | None:
        assert self._process.stdin is not None
        try:
            print(count, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return None
        return self._answered('done')

    def _answered(self, expected: str) -> float | None:
        word, _, seconds = self._answers.readline().strip().partition(' ')
        return float(seconds or 0) if word == expected else None


@contextlib.contextmanager
def running(contestants: Sequence[Contestant], place: Place, log_name: str) -> Iterator[list[Contestant]]:
    """Starts contestants in sequence, so that they do not disturb each other; yields those that run, then stops all."""
    ready = []
    with contextlib.ExitStack() as stack:
        for number, contestant in enumerate(contestants):
            begun = time.perf_counter()
            contestant.start(place, f'{log_name}.{number:02}')
            stack.callback(contestant.stop)
            if contestant.warm_up():
                ready.append(contestant)
                print(f'{contestant.name}: ready after {time.perf_counter() - begun:.0f} s', file=sys.stderr)
            else:
                contestant.stop()
                print(f'left out: {contestant.name}; see {contestant.log_path}', file=sys.stderr)
        yield ready


def take_turns(contestants: Sequence[Contestant], rounds: int) -> dict[str, list[float]]:
    """Runs all contestants in random order, once per round; returns their speeds."""
    for done in range(rounds):
        for contestant in random.sample(contestants, len(contestants)):
            time.sleep(PAUSE_SECONDS)
            contestant.take_turn()
        print(f'round {done + 1} of {rounds}, load {os.getloadavg()[0]:.1f}', file=sys.stderr)
    return {contestant.name: contestant.speeds for contestant in contestants}


def measure(contestants: Sequence[Contestant], place: Place, log_name: str) -> dict[str, list[float]]:
    """Returns the speeds of the contestants that can run, one value per round."""
    with running(contestants, place, log_name) as ready:
        return take_turns(ready, place.rounds)


def run_script(name: str, *flags: str) -> str:
    """Runs a script of this project; returns its output."""
    done = subprocess.run([sys.executable, name, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'error: {name} {" ".join(flags)} has failed:\n{done.stderr}')
    return done.stdout + done.stderr


def describe_machine() -> dict[str, object]:
    """Returns processor, cores, memory, system, load and date."""
    with open('/proc/cpuinfo') as info:
        models = {line.partition(':')[2].strip() for line in info if line.startswith('model name')}
    return {
        'processor': ', '.join(sorted(models)),
        'cores': len(os.sched_getaffinity(0)),
        'memory_gib': round(psutil.virtual_memory().total / 2**30),
        'system': platform.platform(),
        'load': os.getloadavg()[0],
        'date': time.strftime('%Y-%m-%d'),
    }
