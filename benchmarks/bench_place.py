"""Where a measurement finds what it needs, and how its contestants are started.

entry = Entry('ours', 'with_engine.py', 'step', {'batch_size': 32}, per_turn=6, unit=32)
with running([entry], place, 'step') as contestants:
    take_turns(contestants, rounds=5)

Contestants of one table run at the same time, and no others, so that they fit into memory.
"""

import contextlib
import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rounds import ROOT, Contestant, start_all, stop_all


@dataclasses.dataclass(frozen=True)
class Place:
    """Files and settings of a run of `bench.py`.

    Attributes:
        peers: Python interpreter that has PyTorch and Pillow.
        work_dir: Where files and logs go.
        imagenet_dir: TFRecords of ImageNet, or of a part of it.
        cifar10_dir: TFRecords of CIFAR-10.
        rounds: How many.
    """

    peers: str
    work_dir: str
    imagenet_dir: str
    cifar10_dir: str
    rounds: int

    def path(self, name: str) -> str:
        """Returns the path of a file in `work_dir`."""
        return os.path.join(self.work_dir, name)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant that is not started yet.

    Attributes:
        name: In the table.
        script: In this folder.
        work: What the script is to do.
        options: What that depends on.
        is_peer: Whether the peers' interpreter runs it.
        per_turn: Steps, passes or calls in a turn.
        unit: What one of them counts.
        warmup: How many are not measured.
        cores: Where it may run; everywhere if there are none.
        environment: Variables of its own.
        kind: Of contestant, which says how a turn is measured.
    """

    name: str
    script: str
    work: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_peer: bool = False
    per_turn: int = 1
    unit: float = 1.0
    warmup: int = 3
    cores: Sequence[int] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kind: type[Contestant] = Contestant

    def make(self, place: Place, log_name: str) -> Contestant:
        """Starts its process."""
        script = os.path.join(ROOT, 'benchmarks', self.script)
        return self.kind(
            self.name,
            [
                place.peers if self.is_peer else sys.executable,
                script,
                self.work,
                f'--options={json.dumps(self.options)}',
            ],
            os.path.join(place.work_dir, 'logs', f'{log_name}.log'),
            per_turn=self.per_turn,
            unit=self.unit,
            cores=self.cores,
            environment={'TORCHINDUCTOR_CACHE_DIR': os.path.abspath(place.path('inductor')), **self.environment},
        )


@contextlib.contextmanager
def running(entries: Sequence[Entry], place: Place, log_name: str) -> Iterator[list[Contestant]]:
    """Gives the contestants that could be started and have warmed up, and ends them."""
    makers = [functools.partial(entry.make, place, f'{log_name}.{number:02}') for number, entry in enumerate(entries)]
    contestants = start_all(makers, [entry.warmup for entry in entries])
    try:
        yield contestants
    finally:
        stop_all(contestants)


def run_script(name: str, *flags: str) -> None:
    """Runs a script of this project to its end."""
    done = subprocess.run([sys.executable, name, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'error: {name} {" ".join(flags)} has failed:\n{done.stderr}')
