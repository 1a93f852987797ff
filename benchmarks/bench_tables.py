"""The tables of `make bench`: contestants, ratios and targets.

    tables = dict(GROUPS['step'](place))
    tables['step float32 32']['ratios']['ours / PyTorch']['median']

Every ratio is one of speeds, or of what is the better the smaller turned over: larger is better, and 1 is equal.
"""

import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench_place import Entry, Place, run_script, running
from flops import product_gflop, step_gflop
from photographs import write_validation
from ratios import Ask, spread, summarize_ratios
from rounds import PAUSE_SECONDS, ROOT, Contestant, take_turns

Table = dict[str, Any]
Tables = Iterator[tuple[str, Table]]

EAGER, COMPILED, FIT = 'PyTorch eager', 'PyTorch torch.compile', 'Keras fit'
PRODUCTS = ('matrix product, TensorFlow', 'matrix product, PyTorch')
DTYPES, BATCH_SIZES = ('float32', 'bfloat16'), (32, 128)
SIDE = 4096  # of the matrices
STEP_OPTIONS = {
    'model_name': 'alexnet_v2',
    'dataset_name': 'synthetic',
    'labels_offset': 1,
    'optimizer': 'rmsprop',
    'weight_decay': 4e-5,
    'learning_rate': 1e-3,
    'color_distortion': 'off',  # as the others have none
    'random_flip': False,
}
# (dtype, batch size) -> ours over PyTorch's best, and the share of the machine's limit.
STEP_ASKS: dict[tuple[str, int], tuple[float, float | None]] = {
    ('float32', 32): (1.4, 0.75),
    ('float32', 128): (1.25, 0.9),
    ('bfloat16', 32): (1.6, None),
    ('bfloat16', 128): (1.6, None),
}
EVAL_IMAGES, EVAL_BATCH = 1280, 100
WITHIN = 1 / 1.5  # of the best runtime's speed
FIRST_STEP_SECONDS = 10.0
MEMORY_STEPS = 5


def our_step(batch_size: int, mixed_precision: str = 'float32', **options: Any) -> Mapping[str, Any]:
    """Returns the options of this project's step."""
    return {**STEP_OPTIONS, 'batch_size': batch_size, 'mixed_precision': mixed_precision, **options}


def step(place: Place) -> Tables:
    """Training steps beside PyTorch, Keras and the matrix product."""
    for dtype in DTYPES:
        for batch_size in BATCH_SIZES:
            yield f'step {dtype} {batch_size}', _step(place, dtype, batch_size)


def _step(place: Place, dtype: str, batch_size: int) -> Table:
    turn = {'per_turn': 6 if batch_size < 64 else 3, 'unit': batch_size}
    theirs = {'batch_size': batch_size, 'dtype': dtype}
    entries = [
        Entry('ours', 'with_engine.py', 'step', our_step(batch_size, dtype), **turn),
        Entry(EAGER, 'with_torch_step.py', 'eager', theirs, is_peer=True, **turn),
        Entry(COMPILED, 'with_torch_step.py', 'compiled', theirs, is_peer=True, **turn),
    ]
    if (dtype, batch_size) == ('float32', 32):
        entries.append(Entry(FIT, 'with_keras.py', 'fit', {'batch_size': batch_size}, **turn))
    product = {'per_turn': 5, 'unit': product_gflop(SIDE)}
    for name, script in zip(PRODUCTS, ('with_keras.py', 'with_torch_step.py'), strict=True):
        is_peer = script == 'with_torch_step.py'
        entries.append(Entry(name, script, 'product', {'side': SIDE, 'dtype': dtype}, is_peer=is_peer, **product))
    beside_torch, of_limit = STEP_ASKS[dtype, batch_size]
    share = step_gflop(batch_size) / batch_size
    asks = [
        Ask("ours / PyTorch's best", 'ours', (EAGER, COMPILED), beside_torch),
        Ask('ours / PyTorch eager', 'ours', (EAGER,)),
        Ask('ours / Keras fit', 'ours', (FIT,)),
        Ask('ours / the matrix product', 'ours', PRODUCTS, of_limit, factor=share),
    ]
    speeds = take_turns_of(entries, place, f'step_{dtype}_{batch_size}')
    ratios = summarize_ratios(speeds, asks)
    title = f'A training step of alexnet_v2, {dtype}, batches of {batch_size}'
    return make_table(title, 'images/s; of products, GFLOP/s', speeds, ratios)


def memory(place: Place) -> Tables:
    """Peak RSS of training, each a process of its own."""
    peaks: dict[str, list[float]] = {}
    entries = {'TensorFlow and this project, imported': Entry('', 'with_engine.py', 'imports', warmup=1)}
    entries['PyTorch, imported'] = Entry('', 'with_torch_step.py', 'imports', is_peer=True, warmup=1)
    asks = []
    for dtype in DTYPES:
        for batch_size in BATCH_SIZES:
            name = f'{dtype}, batches of {batch_size}'
            theirs = {'batch_size': batch_size, 'dtype': dtype}
            entries[f'ours, {name}'] = Entry(
                '', 'with_engine.py', 'step', our_step(batch_size, dtype), warmup=MEMORY_STEPS
            )
            entries[f'PyTorch, {name}'] = Entry(
                '', 'with_torch_step.py', 'eager', theirs, is_peer=True, warmup=MEMORY_STEPS
            )
            # Of memory, less is better: theirs over ours.
            asks.append(Ask(f'PyTorch / ours, {name}', f'PyTorch, {name}', (f'ours, {name}',), 1.0))
    for number, (name, entry) in enumerate(entries.items()):
        with running([entry], place, f'memory_{number:02}') as contestants:
            peaks[name] = [contestant.peak_rss_mib() for contestant in contestants]
    peaks = {name: values for name, values in peaks.items() if values}
    ratios = summarize_ratios(peaks, asks)
    yield 'memory', make_table(f'Peak memory of {MEMORY_STEPS} steps of alexnet_v2', 'peak RSS, MiB', peaks, ratios)


def evaluation(place: Place) -> Tables:
    """From encoded images to Recall@5."""
    records, folder = write_validation(place.imagenet_dir, place.path('validation'), EVAL_IMAGES)
    ours = {
        'model_name': 'alexnet_v2',
        'dataset_name': 'imagenet',
        'dataset_dir': records,
        'batch_size': EVAL_BATCH,
        'num_steps': 10 * -(-EVAL_IMAGES // EVAL_BATCH),  # a block of them, a tenth, is the whole split
    }
    theirs = {'folder': folder, 'batch_size': EVAL_BATCH}
    turn = {'unit': EVAL_IMAGES, 'warmup': 1}
    entries = [
        Entry('ours, from TFRecords', 'with_engine.py', 'eval', ours, **turn),
        Entry('PyTorch, Pillow', 'with_torch_inference.py', 'evaluation', theirs, is_peer=True, **turn),
    ]
    speeds = take_turns_of(entries, place, 'evaluation')
    ratios = summarize_ratios(speeds, [Ask('ours / PyTorch', 'ours, from TFRecords', ('PyTorch, Pillow',), 2.0)])
    title = f'Evaluation of alexnet_v2 on {EVAL_IMAGES} photographs, in batches of {EVAL_BATCH}'
    yield 'evaluation', make_table(title, 'images/s', speeds, ratios)


def training(place: Place) -> Tables:
    """Training from encoded images beside its two parts, each of which has half of the cores; and a step with all."""
    imagenet = {'model_name': 'alexnet_v2', 'dataset_name': 'imagenet', 'dataset_dir': place.imagenet_dir}
    small = {'model_name': 'alexnet_bn', 'train_image_size': 80, 'batch_size': 128}
    cifar10 = {**small, 'dataset_name': 'cifar10', 'dataset_dir': place.cifar10_dir}
    digits = {**small, 'dataset_name': 'digits'}
    for options in (imagenet, cifar10, digits):
        yield f'training {options["dataset_name"]}', _training(place, {'batch_size': 32, **options, 'cache': 'off'})


def _training(place: Place, options: Mapping[str, Any]) -> Table:
    cores = sorted(os.sched_getaffinity(0))
    half = max(len(cores) // 2, 1)
    unit = options['batch_size']
    entries = [
        Entry('input alone', 'with_engine.py', 'input', options, per_turn=60, unit=unit, cores=cores[-half:]),
        Entry('step alone', 'with_engine.py', 'step', options, per_turn=6, unit=unit, cores=cores[:half]),
        Entry('step alone, all cores', 'with_engine.py', 'step', options, per_turn=6, unit=unit),
        Entry(
            'training',
            'with_engine.py',
            'train',
            options,
            per_turn=6,
            unit=unit,
            environment={'TF_NUM_INTRAOP_THREADS': str(half)},  # the rest is the input's
        ),
    ]
    name = options['dataset_name']
    with running(entries, place, f'training_{name}') as contestants:
        take_turns(contestants, min(place.rounds, 3))
        speeds = _turns(contestants)
        waited = [
            answer['waited'] / (unit * contestant.per_turn / speed)
            for contestant in contestants
            if contestant.name == 'training'
            for answer, speed in zip(contestant.answers, contestant.speeds, strict=True)
        ]
    absent = [entry.name for entry in entries if not speeds.get(entry.name)]
    if absent:
        sys.exit(f'error: {", ".join(absent)}: did not run; see {place.path("logs")}')
    slower = min(('input alone', 'step alone'), key=lambda part: statistics.median(speeds[part]))
    asks = [
        Ask(f'training / {slower}', 'training', (slower,), 0.95),
        Ask('training / step alone, all cores', 'training', ('step alone, all cores',)),
    ]
    ratios = summarize_ratios(speeds, asks)
    wait = f'Data wait: {statistics.median(waited):.1%} of the time ({min(waited):.1%} to {max(waited):.1%}).'
    title = f'Training {options["model_name"]} on {name}, nothing cached, batches of {unit}'
    return make_table(title, 'images/s', speeds, ratios, notes=[wait])


def prediction(place: Place) -> Tables:
    """One image: by the Predictor on three files, and by the runtimes of two of them alone."""
    checkpoint, files = place.path('alexnet_v2'), {}
    _make_checkpoint(checkpoint)
    for kind in ('onnx', 'tflite'):
        files[kind] = place.path(f'alexnet_v2.{kind}')
        flags = (f'--checkpoint_path={checkpoint}', f'--format={kind}', f'--output_path={files[kind]}', '--overwrite')
        run_script('export_image_classifier.py', *map(_absolute, flags))
    weights = place.path('alexnet_v2.pt')
    turn = {'per_turn': 50, 'warmup': 20}
    entries = [
        Entry('Predictor, checkpoint', 'with_runtimes.py', 'predictor', {'path': checkpoint}, **turn),
        Entry('Predictor, ONNX', 'with_runtimes.py', 'predictor', {'path': files['onnx']}, **turn),
        Entry('Predictor, TFLite', 'with_runtimes.py', 'predictor', {'path': files['tflite']}, **turn),
        Entry('onnxruntime alone', 'with_runtimes.py', 'onnxruntime', {'path': files['onnx']}, **turn),
        Entry('LiteRT alone', 'with_runtimes.py', 'litert', {'path': files['tflite']}, **turn),
        Entry(EAGER, 'with_torch_inference.py', 'prediction', {'weights_path': weights}, is_peer=True, **turn),
    ]
    runtimes = ('onnxruntime alone', 'LiteRT alone')
    ours = [entry.name for entry in entries[:3]]
    asks = [Ask(f'{name} / the best runtime alone', name, runtimes, WITHIN) for name in ours]
    asks += [Ask(f'{name} / {EAGER}', name, (EAGER,)) for name in ours]
    speeds = take_turns_of(entries, place, 'prediction')
    table = make_table(
        'Prediction of one image by alexnet_v2, warm',
        'ms a call',
        _inverted(speeds, 1e3),
        summarize_ratios(speeds, asks),
        digits=1,
    )
    yield 'prediction', table
    starts = _cold_starts(entries, place)
    fastest = [Ask(f'{name} / the best runtime alone', name, runtimes) for name in ours]
    table = make_table(
        'The same from the command to the answer',
        'seconds',
        _inverted(starts),
        summarize_ratios(starts, fastest),
        digits=2,
    )
    yield 'start', table


def _make_checkpoint(train_dir: str) -> None:
    if os.path.exists(os.path.join(train_dir, 'model.json')):
        return
    flags = ('--model_name=alexnet_v2', '--dataset_name=synthetic', '--labels_offset=1', '--max_number_of_steps=1')
    run_script('train_image_classifier.py', *flags, _absolute(f'--train_dir={train_dir}'))


def _absolute(flag: str) -> str:
    """Returns a flag with its path absolute: scripts run in the root of the project."""
    name, _, value = flag.partition('=')
    return f'{name}={os.path.abspath(value)}' if name.endswith(('_path', '_dir')) else flag


def _cold_starts(entries: Sequence[Entry], place: Place) -> dict[str, list[float]]:
    """Returns how many starts, each with one answer, would go into a second, round by round."""
    speeds: dict[str, list[float]] = {entry.name: [] for entry in entries}
    rounds = min(place.rounds, 3)
    for _ in range(rounds):
        for number, entry in random.sample(list(enumerate(entries)), len(entries)):
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            contestant = entry.make(place, f'start.{number:02}')
            if contestant.start(warmup=1):
                speeds[entry.name].append(1 / (time.perf_counter() - start))
            else:
                print(f'left out: {entry.name}; see {contestant.log_path}', file=sys.stderr)
            contestant.stop()
    return {name: values for name, values in speeds.items() if len(values) == rounds}


def first_step(place: Place) -> Tables:
    """From the command to the log line of the first step, of the training script at full width."""
    train_dir = os.path.abspath(place.path('first_step'))
    flags = ['--model_name=alexnet_v2', '--dataset_name=synthetic', '--max_number_of_steps=1', '--log_every_n_steps=1']
    command = [sys.executable, 'train_image_classifier.py', *flags, f'--train_dir={train_dir}']
    seconds = []
    for _ in range(min(place.rounds, 3)):
        shutil.rmtree(train_dir, ignore_errors=True)
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
            assert run.stderr is not None
            is_made = any('global step' in line for line in run.stderr)
            seconds.append(time.perf_counter() - start)
            run.stderr.read()
        if not is_made or run.returncode:
            sys.exit(f'error: {" ".join(command)} has made no step')
    shutil.rmtree(train_dir)
    speeds = {'ours': [1 / each for each in seconds], 'asked': [1 / FIRST_STEP_SECONDS] * len(seconds)}
    ratios = summarize_ratios(speeds, [Ask(f'{FIRST_STEP_SECONDS:g} s / ours', 'ours', ('asked',), 1.0)])
    title = 'From the command to the first training step of alexnet_v2'
    yield 'first_step', make_table(title, 'seconds', {'ours': seconds}, ratios, digits=1)


GROUPS: dict[str, Callable[[Place], Tables]] = {
    group.__name__: group for group in (step, memory, evaluation, training, prediction, first_step)
}


def take_turns_of(entries: Sequence[Entry], place: Place, log_name: str) -> dict[str, list[float]]:
    """Returns the speeds of the contestants that could be started, a value a round."""
    with running(entries, place, log_name) as contestants:
        take_turns(contestants, place.rounds)
        return _turns(contestants)


def _turns(contestants: Sequence[Contestant]) -> dict[str, list[float]]:
    return {contestant.name: contestant.speeds for contestant in contestants}


def _inverted(speeds: Mapping[str, Sequence[float]], scale: float = 1.0) -> dict[str, list[float]]:
    return {name: [scale / speed for speed in of_one] for name, of_one in speeds.items()}


def make_table(
    title: str,
    unit: str,
    values: Mapping[str, Sequence[float]],
    ratios: Mapping[str, Any],
    *,
    digits: int = 0,
    notes: Sequence[str] = (),
) -> Table:
    """Returns a table as it is written: what was measured, the ratios, when, and how busy the machine was."""
    return {
        'title': title,
        'unit': unit,
        'digits': digits,
        'values': {name: spread(of_one) for name, of_one in values.items()},
        'ratios': dict(ratios),
        'notes': list(notes),
        'date': time.strftime('%Y-%m-%d'),
        'load': os.getloadavg()[0],
    }
