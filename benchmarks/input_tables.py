"""Compares the input pipeline with others, on the same photographs in the same run: `make bench-input`.

    tables = dict(input_pipeline(place))
    tables['input']['ratios']['host stage / PyTorch DataLoader']['median']

The measure is the CPU time of a turn, including worker processes, from full buffers to full buffers. Peers that are
not installed are left out.
"""

import glob
import os
import re
import shutil
import time

from bench_tables import Table, Tables, make_table
from photographs import convert, prepare
from ratios import Ask, summarize_ratios
from rounds import Contestant, Place, measure

BATCH_SIZE = 32
WARMUP_BATCHES, TURN_BATCHES = 20, 30
QUIET_SECONDS = 0.06
QUIET_POLLS = 3

# Name in the table, script, its argument, and the files it reads.
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
    ('PyTorch DataLoader, Pillow', 'with_torch.py', 'loader', 'photographs'),
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
# Slim itself needs TensorFlow 1.15, which cannot be installed beside 2.x. Both were once measured on one machine: slim
# 419 images a CPU-second, its graph in TensorFlow 2 595.
SLIM_OF_ITS_GRAPH = 419 / 595
SLIM_ASK = 1.8
COPIES, CONVERSIONS, CONVERSION_ASK = 100, 5, 1.8


class Pipeline(Contestant):
    """A contestant measured by its CPU time in a turn, including its worker processes."""

    def take_turn(self) -> None:
        """Measures a turn, from full buffers to full buffers."""
        start = self._settled_cpu_seconds()
        self.run()
        self.speeds.append(self.per_turn * self.unit / (self._settled_cpu_seconds() - start))

    def _settled_cpu_seconds(self) -> float:
        """Returns the CPU time of the process and its children, once it has stopped growing."""
        seconds, quiet = self._cpu_seconds(), 0
        while quiet < QUIET_POLLS:
            time.sleep(QUIET_SECONDS)
            now = self._cpu_seconds()
            quiet, seconds = (quiet + 1, seconds) if now - seconds <= 0.01 else (0, now)
        return self._cpu_seconds()

    def _cpu_seconds(self) -> float:
        times = [each.cpu_times() for each in (self.process, *self.process.children(recursive=True))]
        return sum(time.user + time.system for time in times)


def input_pipeline(place: Place) -> Tables:
    """Compares the pipelines, and conversion with one and two processes."""
    files = prepare(place.imagenet_dir, place.work_dir)
    turn = {'per_turn': TURN_BATCHES, 'unit': BATCH_SIZE, 'warmup': WARMUP_BATCHES}
    pipelines = [
        Pipeline(name, script, work, {'dataset_dir': files[kind], 'batch_size': BATCH_SIZE}, **turn)
        for name, script, work, kind in CONTESTANTS
    ]
    speeds = measure(pipelines, place, 'input')
    ratios = summarize_ratios(speeds, ASKS)
    if OF_SLIMS_GRAPH in ratios:
        whole = ratios[OF_SLIMS_GRAPH]
        implied = {key: whole[key] / SLIM_OF_ITS_GRAPH for key in ('median', 'low', 'high')}
        ratios['both stages / slim, implied'] = {**implied, 'ask': SLIM_ASK}
    yield 'input', make_table('Input pipelines', 'images per CPU-second', speeds, ratios)
    yield 'input conversion', _conversion(place)


def _conversion(place: Place) -> Table:
    """Converts repeated raw ILSVRC images with 1 and 2 processes alternately.

    The converter reports the time from when its processes are ready: TensorFlow takes four seconds to start.
    """
    source_dir, dataset_dir = place.path('conversion/source'), place.path('conversion/records')
    num_images = _copy_images(place.raw_dir, source_dir)
    speeds: dict[str, list[float]] = {'1 process': [], '2 processes': []}
    for _ in range(CONVERSIONS):
        for name, of_one in speeds.items():
            shutil.rmtree(dataset_dir, ignore_errors=True)
            flags = (f'--num_processes={name.split()[0]}', '--train_shards=16')
            said = convert('imagenet', source_dir, dataset_dir, *flags)
            (seconds,) = re.findall(r'images converted in ([\d.]+) s', said)
            of_one.append(num_images / float(seconds))
    shutil.rmtree(place.path('conversion'))
    ratios = summarize_ratios(
        speeds, [Ask('conversion, 2 processes / 1', '2 processes', ('1 process',), CONVERSION_ASK)]
    )
    return make_table(f'Conversion of {num_images} raw images', 'images/s', speeds, ratios)


def _copy_images(raw_dir: str, source_dir: str) -> int:
    """Copies each training image `COPIES` times; returns the number of copies."""
    shutil.rmtree(source_dir, ignore_errors=True)
    images = glob.glob(os.path.join(raw_dir, 'train', '*', '*'))
    for path in images:
        wnid, name = path.split(os.sep)[-2:]
        class_dir = os.path.join(source_dir, 'train', wnid)
        os.makedirs(class_dir, exist_ok=True)
        stem, suffix = os.path.splitext(name)
        for copy in range(COPIES):
            shutil.copyfile(path, os.path.join(class_dir, f'{stem}{copy:03}{suffix}'))
    return len(images) * COPIES
