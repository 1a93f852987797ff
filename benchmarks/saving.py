"""What a checkpoint costs training: the pause, the time until it is written, the steps beside it, the memory.

PYTHONPATH=. python benchmarks/saving.py --model_name=alexnet_v2
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import psutil
import tensorflow as tf

from configs.config import TrainConfig
from configs.options import make_config
from engine import checkpoints
from engine.cluster.cluster import SINGLE_PROCESS
from engine.position import Position
from engine.setup import open_run
from engine.train_state import TrainState

SAVES, STEPS_BETWEEN = 5, 4


def prepare(model_name: str, batch_size: int) -> tuple[TrainState, Callable[[], float]]:
    """Returns what is saved, and a function that makes a step on synthetic data and returns its seconds."""
    config = make_config(TrainConfig, model_name=model_name, dataset_name='synthetic', batch_size=batch_size)
    run = open_run(config, SINGLE_PROCESS)
    run_steps = run.make_steps(end=1000)
    iterator = run.make_input(num_steps=1000).make_iterator(first_image=0)
    return run.state, lambda: run_steps(iterator, Position(), 1).seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model_name', default='alexnet_v2')
    parser.add_argument('--batch_size', type=int, default=32)
    flags = parser.parse_args()
    state, step = prepare(flags.model_name, flags.batch_size)
    alone = statistics.median([step() for _ in range(10)][2:])
    variables, memory = state.saved_variables(), psutil.Process()
    size = sum(int(tf.size(value)) * value.dtype.size for value in variables.values())
    before, highest = memory.memory_info().rss, 0
    pauses, durations, beside, direct = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, checkpoints.Saver(folder, 2) as saver:
        for number in range(SAVES):
            start = time.monotonic()
            saver.save(number, variables, lambda _: None)
            pauses.append(time.monotonic() - start)
            while saver.saved() is None:
                beside.append(step())
                highest = max(highest, memory.memory_info().rss)
            durations.append(time.monotonic() - start)
            for _ in range(STEPS_BETWEEN):
                step()
            start = time.monotonic()
            checkpoints.save(folder, SAVES + number, variables, 2)
            direct.append(time.monotonic() - start)
    print(f'{size / 1e6:.0f} MB of variables; a step alone: {alone:.2f} s')
    print(f'saving beside training: a pause of {statistics.median(pauses) * 1e3:.1f} ms')
    print(f'  written after {statistics.median(durations):.2f} s; a step meanwhile: {statistics.median(beside):.2f} s')
    print(f'  memory: {(highest - before) / 1e6:.0f} MB more')
    print(f'saving while training waits: {statistics.median(direct):.2f} s')


if __name__ == '__main__':
    main()
