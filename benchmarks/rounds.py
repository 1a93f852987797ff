"""Contestants that take turns: each is a process of its own, which sleeps unless it is its turn.

    contestants = [Contestant('ours', [sys.executable, 'benchmarks/with_engine.py', 'step'], 'ours.log'), ...]
    ready = [contestant for contestant in contestants if contestant.start(warmup=3)]
    take_turns(ready, rounds=5)

Turns go round in random order, so that what else the machine does falls on all alike.
"""

import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psutil

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAUSE_SECONDS = 0.2  # between turns: threads that wait for more work burn a core a little longer


class Contestant:
    """A process that works when it is told to.

    Attributes:
        name: In the table.
        per_turn: Of what it does, how many in a turn.
        unit: How much one of these counts.
        log_path: Where what it prints goes.
        speeds: Units of work a second, of each turn.
        answers: What it has said of each turn.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: str,
        *,
        per_turn: int = 1,
        unit: float = 1.0,
        cores: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ):
        """Starts the process.

        Args:
            name: In the table.
            command: Of the process; `--answers=` is put behind it.
            log_path: Where what it prints goes.
            per_turn: Of what it does, how many in a turn.
            unit: How much one of these counts: images of a batch, for instance.
            cores: Where it may run; all of this process if there are none.
            environment: Variables beside those of this process.
        """
        self.name = name
        self.speeds: list[float] = []
        self.answers: list[dict[str, Any]] = []
        self.per_turn, self.unit, self.log_path = per_turn, unit, log_path
        os.makedirs(os.path.dirname(log_path), exist_ok=True)
        reading_end, writing_end = os.pipe()  # not standard output, where libraries print
        with open(log_path, 'w') as log:
            self._process = subprocess.Popen(
                [*command, f'--answers={writing_end}'],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env={**os.environ, **_ENVIRONMENT, **(environment or {})},
                pass_fds=[writing_end],
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
            )
        os.close(writing_end)
        self._answers = os.fdopen(reading_end)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def start(self, warmup: int) -> bool:
        """Waits until it can be told to run, and does so much that is not measured; False if it cannot run at all."""
        return self._answered('ready') is not None and self._run(warmup) is not None

    def run(self, count: int) -> dict[str, Any]:
        """Lets it do so much; returns what it says of that."""
        answer = self._run(count)
        if answer is None:
            sys.exit(f'error: {self.name} has failed; see {self.log_path}')
        return answer

    def take_turn(self) -> None:
        """Measures a turn by the clock."""
        start = time.perf_counter()
        answer = self.run(self.per_turn)
        self.speeds.append(self.per_turn * self.unit / (time.perf_counter() - start))
        self.answers.append(answer)

    def peak_rss_mib(self) -> float:
        """Returns the largest resident set so far, as the kernel has it: `ru_maxrss` would begin with the parent's."""
        with open(f'/proc/{self.pid}/status') as status:
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

    def _run(self, count: int) -> dict[str, Any] | None:
        assert self._process.stdin is not None
        try:
            print(count, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return None
        return self._answered('done')

    def _answered(self, expected: str) -> dict[str, Any] | None:
        word, _, rest = self._answers.readline().strip().partition(' ')
        return json.loads(rest or '{}') if word == expected else None


# Contestants that import this project's packages find them; none of them uses a GPU.
_ENVIRONMENT = {'PYTHONPATH': ROOT, 'TF_CPP_MIN_LOG_LEVEL': '2', 'CUDA_VISIBLE_DEVICES': '-1'}

ContestantT = TypeVar('ContestantT', bound=Contestant)


def start_all(makers: Sequence[Callable[[], ContestantT]], warmups: Sequence[int]) -> list[ContestantT]:
    """Starts one after the other, so that they do not disturb each other; says which cannot run."""
    started: list[ContestantT] = []
    try:
        for make, warmup in zip(makers, warmups, strict=True):
            begun, contestant = time.perf_counter(), make()
            if contestant.start(warmup):
                started.append(contestant)
                seconds = time.perf_counter() - begun
                print(f'{contestant.name or contestant.log_path}: ready after {seconds:.0f} s', file=sys.stderr)
            else:
                contestant.stop()
                print(f'left out: {contestant.name}; see {contestant.log_path}', file=sys.stderr)
    except BaseException:
        stop_all(started)
        raise
    return started


def take_turns(contestants: Sequence[Contestant], rounds: int) -> None:
    """Lets each take a turn in every round."""
    for done in range(rounds):
        for contestant in random.sample(contestants, len(contestants)):
            time.sleep(PAUSE_SECONDS)
            contestant.take_turn()
        print(f'round {done + 1} of {rounds}, load {os.getloadavg()[0]:.1f}', file=sys.stderr)


def stop_all(contestants: Sequence[Contestant]) -> None:
    """Ends them."""
    for contestant in contestants:
        contestant.stop()


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
