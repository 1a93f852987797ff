"""The input pipeline beside others, on the same photographs in the same run: `make bench-input`.

    python benchmarks/input_pipeline.py --dataset_dir=../shared/data/imagenet_mini --peers=build/peers/bin/python

Every contestant is a process of its own that sleeps unless it is its turn; turns go round in random order, so that what
else the machine does falls on all alike. What counts is the CPU time of a turn, that of worker processes included, from
when all buffers are full until they are full again. Peers that are not installed are left out.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil
from conversion import measure_conversion
from photographs import ROOT, prepare

BATCH_SIZE = 32
WARMUP_BATCHES = 20
QUIET_SECONDS = 0.06
QUIET_POLLS = 3

# Name in the table, script, its arguments, and which of the files it reads.
CONTESTANTS = (
    ('host stage', 'with_tensorflow.py', 'host', 'originals'),
    ('host stage, 256-px shards', 'with_tensorflow.py', 'host', 'smaller'),
    ('entropy decoding, from TFRecords', 'with_tensorflow.py', 'entropy', 'originals'),
    ('entropy decoding, from memory', 'with_tensorflow.py', 'entropy_in_memory', 'originals'),
    ('host and device stage, on the CPU', 'with_tensorflow.py', 'whole', 'originals'),
    ("slim's graph an image at a time, TensorFlow 2", 'with_tensorflow.py', 'slims_graph', 'originals'),
    ('TFDS, decoded whole', 'with_tensorflow.py', 'tfds_usual', 'photographs'),
    ('TFDS, SkipDecoding, decode_and_crop', 'with_tensorflow.py', 'tfds_skip_decoding', 'photographs'),
    ('DALI CPU, the same work', 'with_dali.py', 'same_work', 'originals'),
    ('DALI CPU, antialiased (its default)', 'with_dali.py', 'antialiased', 'originals'),
    ('DALI CPU, triangular (its ImageNet recipe)', 'with_dali.py', 'recipe', 'originals'),
    ('PyTorch DataLoader, Pillow', 'with_torch.py', 'pillow', 'photographs'),
)

# Ratios: name, numerator, denominator, and the least that is asked for.
ASKS: tuple[tuple[str, str, str, float | None], ...] = (
    ('host stage / entropy decoding, from TFRecords', 'host stage', 'entropy decoding, from TFRecords', 0.75),
    ('host stage / entropy decoding, from memory', 'host stage', 'entropy decoding, from memory', 0.75),
    ('host stage / DALI, the same work', 'host stage', 'DALI CPU, the same work', 1.6),
    ('host stage / DALI, antialiased', 'host stage', 'DALI CPU, antialiased (its default)', 1.6),
    ('host stage / DALI, its recipe', 'host stage', 'DALI CPU, triangular (its ImageNet recipe)', 1.6),
    ('host stage / PyTorch DataLoader', 'host stage', 'PyTorch DataLoader, Pillow', None),
    ('host stage / TFDS, decoded whole', 'host stage', 'TFDS, decoded whole', None),
    (
        "both stages / slim's graph in TensorFlow 2",
        'host and device stage, on the CPU',
        "slim's graph an image at a time, TensorFlow 2",
        None,
    ),
    ('256-px shards / originals', 'host stage, 256-px shards', 'host stage', 2.5),
)
# Slim itself needs TensorFlow 1.15, which cannot be installed beside this. Both were once measured on one machine: slim
# 419 images a CPU-second, its graph in TensorFlow 2 595.
SLIM_OF_ITS_GRAPH = 419 / 595
SLIM_ASK = 1.8


class Contestant:
    """A process that takes batches when it is told to."""

    def __init__(self, name: str, command: Sequence[str], log_path: str):
        self.name = name
        self.speeds: list[float] = []
        self._log_path = log_path
        environment = {**os.environ, 'PYTHONPATH': ROOT, 'TF_CPP_MIN_LOG_LEVEL': '2', 'CUDA_VISIBLE_DEVICES': '-1'}
        reading_end, writing_end = os.pipe()  # not standard output, where libraries print
        with open(log_path, 'w') as log:
            self._process = subprocess.Popen(
                [*command, f'--answers={writing_end}'],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=environment,
                pass_fds=[writing_end],
            )
        os.close(writing_end)
        self._answers = os.fdopen(reading_end)

    def start(self) -> bool:
        """Waits until it can be told to run, and warms it up; False if it cannot run at all."""
        return self._is_answered('ready') and self._run(WARMUP_BATCHES)

    def take_turn(self, batches: int) -> None:
        """Measures so many batches, from full buffers to full buffers."""
        start = self._settled_cpu_seconds()
        if not self._run(batches):
            sys.exit(f'error: {self.name} has failed; see {self._log_path}')
        self.speeds.append(batches * BATCH_SIZE / (self._settled_cpu_seconds() - start))

    def stop(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _run(self, batches: int) -> bool:
        assert self._process.stdin is not None
        try:
            print(batches, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return False
        return self._is_answered('done')

    def _is_answered(self, expected: str) -> bool:
        return self._answers.readline().strip() == expected

    def _settled_cpu_seconds(self) -> float:
        """Returns the CPU time so far of the process and its children, once it does not grow any more."""
        process = psutil.Process(self._process.pid)
        seconds, quiet = _cpu_seconds(process), 0
        while quiet < QUIET_POLLS:
            time.sleep(QUIET_SECONDS)
            now = _cpu_seconds(process)
            quiet, seconds = (quiet + 1, seconds) if now - seconds <= 0.01 else (0, now)
        return _cpu_seconds(process)


def _cpu_seconds(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def measure(contestants: Sequence[Contestant], rounds: int, batches: int) -> None:
    """Lets each take a turn in every round."""
    for done in range(rounds):
        for contestant in random.sample(contestants, len(contestants)):
            contestant.take_turn(batches)
        print(f'round {done + 1} of {rounds}, load {os.getloadavg()[0]:.1f}', file=sys.stderr)


def start_contestants(files: dict[str, str], peers: str | None, log_dir: str) -> list[Contestant]:
    """Starts one after the other; says which cannot run."""
    started = []
    os.makedirs(log_dir, exist_ok=True)
    for number, (name, script, work, place) in enumerate(CONTESTANTS):
        interpreter = sys.executable if script == 'with_tensorflow.py' else peers
        if interpreter is None:
            continue
        flags = [f'--dataset_dir={files[place]}', f'--batch_size={BATCH_SIZE}']
        command = [interpreter, os.path.join(ROOT, 'benchmarks', script), work, *flags]
        contestant = Contestant(name, command, log_path := os.path.join(log_dir, f'{number:02}.log'))
        if contestant.start():
            started.append(contestant)
        else:
            contestant.stop()
            print(f'left out: {name}; see {log_path}', file=sys.stderr)
    return started


def summarize(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns median, low and high of each contestant's speed, and of each ratio, taken round by round."""
    ratios: dict[str, dict[str, Any]] = {
        name: {**_spread([a / b for a, b in zip(speeds[over], speeds[under], strict=True)]), 'ask': ask}
        for name, over, under, ask in ASKS
        if over in speeds and under in speeds
    }
    whole = ratios.get("both stages / slim's graph in TensorFlow 2")
    if whole:
        implied = {key: whole[key] / SLIM_OF_ITS_GRAPH for key in ('median', 'low', 'high')}
        ratios['both stages / slim, implied'] = {**implied, 'ask': SLIM_ASK}
    return {'images_per_cpu_second': {name: _spread(of_one) for name, of_one in speeds.items()}, 'ratios': ratios}


def _spread(values: list[float]) -> dict[str, float]:
    return {'median': statistics.median(values), 'low': min(values), 'high': max(values)}


def format_tables(results: dict) -> str:
    """Returns the speeds and the ratios as two tables of Markdown."""
    lines = ['| pipeline | images per CPU-second: median (low to high) |', '|---|---|']
    for name, speed in results['images_per_cpu_second'].items():
        lines.append(f'| {name} | {speed["median"]:.0f} ({speed["low"]:.0f} to {speed["high"]:.0f}) |')
    lines += ['', '| ratio | median (low to high) | ask | |', '|---|---|---|---|']
    for name, ratio in results['ratios'].items():
        ask = ratio['ask']
        verdict = '' if ask is None else 'reached' if ratio['median'] >= ask else 'missed'
        spread = f'{ratio["median"]:.2f} ({ratio["low"]:.2f} to {ratio["high"]:.2f})'
        lines.append(f'| {name} | {spread} | {"-" if ask is None else f"{ask:g}"} | {verdict} |')
    return '\n'.join(lines)


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


def main() -> None:
    """Makes the files, measures in turns, prints the tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset_dir', required=True, help="folder of ImageNet's TFRecords, or of a part of them")
    parser.add_argument('--raw_dir', help='folder of raw ILSVRC images, to measure the conversion')
    parser.add_argument('--peers', help='Python interpreter that has DALI and PyTorch')
    parser.add_argument('--work_dir', default='build/bench', help='where files and logs go')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--batches', type=int, default=30, help=f'of {BATCH_SIZE} images, in each turn')
    parser.add_argument('--results_path', help='JSON file for the results')
    flags = parser.parse_args()
    results: dict[str, Any] = {'machine': describe_machine()}
    if flags.raw_dir:
        results['conversion'] = measure_conversion(flags.raw_dir, os.path.join(flags.work_dir, 'conversion'))
    files = prepare(flags.dataset_dir, flags.work_dir)
    contestants = start_contestants(files, flags.peers, os.path.join(flags.work_dir, 'logs'))
    try:
        measure(contestants, flags.rounds, flags.batches)
    finally:
        for contestant in contestants:
            contestant.stop()
    results |= summarize({contestant.name: contestant.speeds for contestant in contestants})
    if 'conversion' in results:
        results['ratios']['conversion, 2 processes / 1'] = results['conversion']['ratio']
    print(format_tables(results))
    if flags.results_path:
        with open(flags.results_path, 'w') as file:
            json.dump(results, file, indent=1)


if __name__ == '__main__':
    main()
