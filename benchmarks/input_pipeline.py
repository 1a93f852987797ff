"""The input pipeline beside others, on the same photographs in the same run: `make bench-input`.

    python benchmarks/input_pipeline.py --dataset_dir=../shared/data/imagenet_mini --peers=build/peers/bin/python

Contestants take turns, see `rounds.py`. What counts is the CPU time of a turn, that of worker processes included, from
when all buffers are full until they are full again. Peers that are not installed are left out.
"""

import argparse
import glob
import json
import os
import sys
import time
from typing import Any

import psutil
from bench_place import Entry, Place, running
from conversion import measure_conversion
from photographs import prepare
from ratios import Ask, spread, summarize_ratios, verdict
from report import format_ratios, format_speeds
from rounds import Contestant, describe_machine, take_turns

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

OF_SLIMS_GRAPH = "both stages / slim's graph in TensorFlow 2"
ASKS = (
    Ask('host stage / entropy decoding, from TFRecords', 'host stage', ('entropy decoding, from TFRecords',), 0.75),
    Ask('host stage / entropy decoding, from memory', 'host stage', ('entropy decoding, from memory',), 0.75),
    Ask('host stage / DALI, the same work', 'host stage', ('DALI CPU, the same work',), 1.6),
    Ask('host stage / DALI, antialiased', 'host stage', ('DALI CPU, antialiased (its default)',), 1.6),
    Ask('host stage / DALI, its recipe', 'host stage', ('DALI CPU, triangular (its ImageNet recipe)',), 1.6),
    Ask('host stage / PyTorch DataLoader', 'host stage', ('PyTorch DataLoader, Pillow',)),
    Ask('host stage / TFDS, decoded whole', 'host stage', ('TFDS, decoded whole',)),
    Ask(
        OF_SLIMS_GRAPH,
        'host and device stage, on the CPU',
        ("slim's graph an image at a time, TensorFlow 2",),
    ),
    Ask('256-px shards / originals', 'host stage, 256-px shards', ('host stage',), 2.5),
)
# Slim itself needs TensorFlow 1.15, which cannot be installed beside this. Both were once measured on one machine: slim
# 419 images a CPU-second, its graph in TensorFlow 2 595.
SLIM_OF_ITS_GRAPH = 419 / 595
SLIM_ASK = 1.8


class Pipeline(Contestant):
    """A process that takes batches; what counts is the CPU time of a turn, that of its workers included."""

    def take_turn(self) -> None:
        """Measures from full buffers to full buffers."""
        start = self._settled_cpu_seconds()
        self.run(self.per_turn)
        self.speeds.append(self.per_turn * self.unit / (self._settled_cpu_seconds() - start))

    def _settled_cpu_seconds(self) -> float:
        """Returns the CPU time so far of the process and its children, once it does not grow any more."""
        process = psutil.Process(self.pid)
        seconds, quiet = _cpu_seconds(process), 0
        while quiet < QUIET_POLLS:
            time.sleep(QUIET_SECONDS)
            now = _cpu_seconds(process)
            quiet, seconds = (quiet + 1, seconds) if now - seconds <= 0.01 else (0, now)
        return _cpu_seconds(process)


def _cpu_seconds(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(time.user + time.system for time in times)


def make_entries(files: dict[str, str], peers: bool, batches: int) -> list[Entry]:
    """Returns the contestants; without peers only those of this interpreter."""
    turn = {'per_turn': batches, 'unit': BATCH_SIZE, 'warmup': WARMUP_BATCHES, 'kind': Pipeline}
    return [
        Entry(
            name,
            script,
            work,
            {'dataset_dir': files[place], 'batch_size': BATCH_SIZE},
            is_peer=script != 'with_tensorflow.py',
            **turn,
        )
        for name, script, work, place in CONTESTANTS
        if peers or script == 'with_tensorflow.py'
    ]


def summarize(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns median, low and high of each contestant's speed, and of each ratio, taken round by round."""
    ratios = summarize_ratios(speeds, ASKS)
    whole = ratios.get(OF_SLIMS_GRAPH)
    if whole:
        implied = {key: whole[key] / SLIM_OF_ITS_GRAPH for key in ('median', 'low', 'high')}
        ratios['both stages / slim, implied'] = {**implied, 'ask': SLIM_ASK}
    return {'images_per_cpu_second': {name: spread(of_one) for name, of_one in speeds.items()}, 'ratios': ratios}


def format_tables(results: dict) -> str:
    """Returns the speeds and the ratios as two tables of Markdown."""
    ratios = results['ratios']
    speeds = format_speeds(results['images_per_cpu_second'], 'pipeline', 'images per CPU-second')
    return f'{speeds}\n\n{format_ratios(ratios, {name: verdict(ratio) for name, ratio in ratios.items()})}'


def main() -> None:
    """Makes the files, measures in turns, prints the tables and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--dataset_dir',
        type=os.path.expanduser,
        required=True,
        help="folder of ImageNet's TFRecords, or of a part of them",
    )
    parser.add_argument(
        '--raw_dir', type=os.path.expanduser, help='folder of raw ILSVRC images, to measure the conversion'
    )
    parser.add_argument('--peers', type=os.path.expanduser, help='Python interpreter that has DALI and PyTorch')
    parser.add_argument('--work_dir', type=os.path.expanduser, default='build/bench', help='where files and logs go')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--batches', type=int, default=30, help=f'of {BATCH_SIZE} images, in each turn')
    parser.add_argument('--results_path', type=os.path.expanduser, help='JSON file for the results')
    flags = parser.parse_args()
    if not glob.glob(os.path.join(flags.dataset_dir, 'train-*')):
        sys.exit(f'error: --dataset_dir={flags.dataset_dir}: has no train-*; name the folder: IMAGENET_MINI=FOLDER')
    if flags.peers and not os.path.isfile(flags.peers):
        print(f'--peers={flags.peers} is not there: DALI and PyTorch are left out', file=sys.stderr)
        flags.peers = None
    results: dict[str, Any] = {'machine': describe_machine()}
    if flags.raw_dir:
        results['conversion'] = measure_conversion(flags.raw_dir, os.path.join(flags.work_dir, 'conversion'))
    files = prepare(flags.dataset_dir, flags.work_dir)
    place = Place(flags.peers or '', flags.work_dir, flags.dataset_dir, '', flags.rounds)
    with running(make_entries(files, bool(flags.peers), flags.batches), place, 'input') as pipelines:
        take_turns(pipelines, flags.rounds)
    results |= summarize({pipeline.name: pipeline.speeds for pipeline in pipelines})
    if 'conversion' in results:
        results['ratios']['conversion, 2 processes / 1'] = results['conversion']['ratio']
    print(format_tables(results))
    if flags.results_path:
        with open(flags.results_path, 'w') as file:
            json.dump(results, file, indent=1)


if __name__ == '__main__':
    main()
