"""Whether several replicas compute what one does, and what a lost worker costs: the tables of docs/distribution.md.

    PYTHONPATH=. python benchmarks/workers.py

Each row is a run of the training script on the embedded digits: by one process, by two devices of one process, by two
processes. Then one of two workers is killed, and both are started again.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'  # workers are CPUs here

import numpy as np
from rounds import describe_machine

from configs import cli
from configs.tables import format_table
from engine.cluster.tasks import free_ports

with cli.quiet_import():
    import tensorflow as tf

ROOT = Path(__file__).parents[1]
STEPS, LOSSES = 10, 5
COMMON = [
    *('--dataset_name=digits', '--model_name=lenet', '--train_image_size=8', '--learning_rate=0.003'),
    *('--cache=memory', '--save_summaries_secs=0', '--log_every_n_steps=1000'),
]
EVERYTHING = '--weight_decay=0.01 --label_smoothing=0.1 --clip_gradient_norm=0.5 --moving_average_decay=0.9'
ROWS = {
    'sgd': '--optimizer=sgd',
    'momentum': '--optimizer=momentum',
    'rmsprop': '--optimizer=rmsprop',
    'rmsprop with L2, label smoothing, clipping, moving averages': f'--optimizer=rmsprop {EVERYTHING}',
    'the same, two batches of 16 a step': (
        f'--optimizer=rmsprop {EVERYTHING} --batch_size=16 --gradient_accumulation_steps=2'
    ),
    'adam': '--optimizer=adam --opt_epsilon=1e-6',
    'lars': '--optimizer=lars',
    'lamb': '--optimizer=lamb',
    'alexnet_bn at 67 px and width 1/16, synchronised': (
        '--optimizer=momentum --model_name=alexnet_bn --train_image_size=67 --depth_multiplier=0.0625 --sync_batch_norm'
    ),
}
WAYS = {'2 devices of a process': ['--num_clones=2'], '2 processes': ['--launch_workers=2']}


def train(train_dir: str, flags: Sequence[str]) -> None:
    """Runs the training script to its end."""
    command = [sys.executable, 'train_image_classifier.py', *COMMON, *flags, f'--train_dir={train_dir}']
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def largest_difference(prefix: str, other: str) -> float:
    """Returns the largest difference of any variable of two checkpoints, over its largest value."""
    readers = [tf.train.load_checkpoint(each) for each in (prefix, other)]
    differences = []
    for name in readers[0].get_variable_to_shape_map():
        value, expected = (np.asarray(reader.get_tensor(name), np.float64) for reader in readers)
        differences.append(np.abs(value - expected).max() / max(np.abs(expected).max(), 1e-30))
    return max(differences)


def compare() -> list[tuple[str, ...]]:
    """Returns a row for each set of flags."""
    table = []
    for name, text in ROWS.items():
        flags = [*text.split(), f'--max_number_of_steps={STEPS}']
        with tempfile.TemporaryDirectory() as folder:
            train(f'{folder}/alone', flags)
            cells = []
            for number, way in enumerate(WAYS.values()):
                train(f'{folder}/{number}', [*flags, *way])
                prefixes = (f'{folder}/{each}/model.ckpt-{STEPS}' for each in (number, 'alone'))
                cells.append(f'{largest_difference(*prefixes):.1e}')
        table.append((name, *cells))
        print(f'| {" | ".join(table[-1])} |', flush=True)
    return table


def lose_a_worker(train_dir: str) -> tuple[float, float]:
    """Kills one of two workers; returns the seconds until the other has ended, and from a new start to a new step."""
    flags = [*COMMON, '--optimizer=momentum', '--max_number_of_steps=1000000', f'--train_dir={train_dir}']
    flags += ['--save_interval_steps=200', '--log_every_n_steps=1']

    def start() -> list[subprocess.Popen]:
        hosts = ','.join(f'127.0.0.1:{port}' for port in free_ports('127.0.0.1', 2))
        return [
            subprocess.Popen(
                [sys.executable, 'train_image_classifier.py', *flags, f'--worker_hosts={hosts}', f'--task={task}'],
                cwd=ROOT,
                stderr=subprocess.PIPE if task == 0 else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for task in range(2)
        ]

    def read_until(worker: subprocess.Popen, pattern: str) -> None:
        assert worker.stderr is not None
        assert any(re.search(pattern, line) for line in worker.stderr), 'it has ended'

    workers = start()
    read_until(workers[0], r'saved .*model\.ckpt-200')
    killed = time.monotonic()
    workers[1].send_signal(signal.SIGKILL)
    assert workers[0].stderr is not None
    workers[0].stderr.read()
    assert workers[0].wait() == os.EX_TEMPFAIL
    noticed = time.monotonic() - killed
    workers[1].wait()
    begun = time.monotonic()
    workers = start()
    read_until(workers[0], 'global step')
    recovered = time.monotonic() - begun
    for worker in workers:
        worker.kill()
        worker.wait()
    return noticed, recovered


def main() -> None:
    """Measures and prints."""
    print(describe_machine(), flush=True)
    rows = compare()
    print(format_table([('', *WAYS), *rows]))
    lost = []
    for _ in range(LOSSES):
        with tempfile.TemporaryDirectory() as folder:
            lost.append(lose_a_worker(folder))
    for what, seconds in zip(
        ('until the other worker has ended', 'from the new start of both to the first step'),
        zip(*lost, strict=True),
        strict=True,
    ):
        print(f'{what}: {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})')


if __name__ == '__main__':
    main()
