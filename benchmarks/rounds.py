"""Contestants that take turns: each is a process of its own, which sleeps unless it is its turn.

    contestants = [Contestant('ours', 'with_engine.py', 'step', {'batch_size': 32}, per_turn=6, unit=32), ...]
    speeds = measure(contestants, place, 'step')
    speeds['ours']              # images a second, a value a round

Turns go round in random order, so that what else the machine does falls on all alike. The contestants of one table run
at the same time, and no others, so that they fit into memory.
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
PAUSE_SECONDS = 0.2  # between turns: threads that wait for more work burn a core a little longer
_OF_PEERS = ('with_dali.py', 'with_torch.py')
# Contestants that import this project's packages find them; none of them uses a GPU.
_ENVIRONMENT = {'PYTHONPATH': ROOT, 'TF_CPP_MIN_LOG_LEVEL': '2', 'CUDA_VISIBLE_DEVICES': '-1'}


@dataclasses.dataclass(frozen=True)
class Place:
    """Files and settings of a run of `bench.py`.

    Attributes:
        peers: Python interpreter that has PyTorch, Pillow and DALI.
        work_dir: Where files and logs go.
        imagenet_dir: TFRecords of ImageNet, or of a part of it.
        cifar10_dir: TFRecords of CIFAR-10.
        raw_dir: Raw ILSVRC images.
        rounds: How many.
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
    """A process that works when it is told to.

    Attributes:
        name: In the table.
        script: In this folder; it says whether the peers' interpreter runs it.
        work: What the script is to do.
        options: What that depends on.
        per_turn: Steps, passes or calls in a turn.
        unit: What one of them counts: images of a batch, for instance.
        warmup: How many are not measured.
        cores: Where it may run; everywhere if there are none.
        environment: Variables of its own.
        log_path: Where what it prints goes.
        speeds: Units a second, of each turn.
        waited: Seconds of each turn that it waited for its input.
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
        """Starts its process."""
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
        """Waits until it can be told to run, and does what is not measured; False if it cannot run at all."""
        return self._answered('ready') is not None and self._run(self.warmup) is not None

    def run(self) -> float:
        """Lets it do what belongs to a turn; returns how many seconds of it were waits."""
        waited = self._run(self.per_turn)
        if waited is None:
            sys.exit(f'error: {self.name} has failed; see {self.log_path}')
        return waited

    def take_turn(self) -> None:
        """Measures a turn by the clock."""
        start = time.perf_counter()
        self.waited.append(self.run())
        self.speeds.append(self.per_turn * self.unit / (time.perf_counter() - start))

    @property
    def process(self) -> psutil.Process:
        """It, while it runs."""
        return psutil.Process(self._process.pid)

    def peak_rss_mib(self) -> float:
        """Returns the largest resident set so far, as the kernel has it: `ru_maxrss` would begin with the parent's."""
        with open(f'/proc/{self._process.pid}/status') as status:
            (line,) = (line for line in status if line.startswith('VmHWM'))
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """Ends it."""
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
    """Starts one after the other, so that they do not disturb each other; gives those that can run, and ends them."""
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
    """Lets each take a turn in every round; returns their speeds."""
    for done in range(rounds):
        for contestant in random.sample(contestants, len(contestants)):
            time.sleep(PAUSE_SECONDS)
            contestant.take_turn()
        print(f'round {done + 1} of {rounds}, load {os.getloadavg()[0]:.1f}', file=sys.stderr)
    return {contestant.name: contestant.speeds for contestant in contestants}


def measure(contestants: Sequence[Contestant], place: Place, log_name: str) -> dict[str, list[float]]:
    """Returns the speeds of the contestants that can run, a value a round."""
    with running(contestants, place, log_name) as ready:
        return take_turns(ready, place.rounds)


def run_script(name: str, *flags: str) -> str:
    """Runs a script of this project to its end; returns what it has printed."""
    done = subprocess.run([sys.executable, name, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'error: {name} {" ".join(flags)} has failed:\n{done.stderr}')
    return done.stdout + done.stderr


def describe_machine() -> dict[str, object]:
    """Returns processor, cores, memory and system."""
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
