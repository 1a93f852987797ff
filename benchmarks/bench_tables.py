"""The tables of `make bench`: contestants, ratios and targets.

    tables = dict(GROUPS['step'](place))
    tables['step float32 32']['ratios']['ours / PyTorch']['median']

Every ratio is of speeds, or inverted where smaller is better: larger is better, and 1 is equal.
"""

import dataclasses
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from photographs import write_validation
from ratios import Ask, spread, summarize_ratios
from rounds import PAUSE_SECONDS, ROOT, Contestant, Place, measure, run_script, running, take_turns

Table = dict[str, Any]
Tables = Iterator[tuple[str, Table]]

EAGER, COMPILED, FIT = 'PyTorch eager', 'PyTorch torch.compile', 'Keras fit'
PRODUCTS = ('matrix product, TensorFlow', 'matrix product, PyTorch')
DTYPES, BATCH_SIZES = ('float32', 'bfloat16'), (32, 128)
SIDE = 4096  # of the square matrices
PRODUCT_GFLOP = 2 * SIDE**3 / 1e9
STEP_OPTIONS = {
    'model_name': 'alexnet_v2',
    'dataset_name': 'synthetic',
    'labels_offset': 1,
    'optimizer': 'rmsprop',
    'weight_decay': 4e-5,
    'learning_rate': 1e-3,
    'color_distortion': 'off',  # as in the other contestants
    'random_flip': False,
}
# (dtype, batch size) -> least speed relative to PyTorch's best, and to the machine's limit.
STEP_ASKS: dict[tuple[str, int], tuple[float, float | None]] = {
    ('float32', 32): (1.4, 0.75),
    ('float32', 128): (1.25, 0.9),
    ('bfloat16', 32): (1.6, None),
    ('bfloat16', 128): (1.6, None),
}
EVAL_IMAGES, EVAL_BATCH = 1280, 100
WITHIN = 1 / 1.5  # least speed relative to the best runtime
FIRST_STEP_SECONDS = 10.0
MEMORY_STEPS = 5


def our_step(batch_size: int, mixed_precision: str = 'float32', **options: Any) -> Mapping[str, Any]:
    """Returns the options of this project's training step."""
    return {**STEP_OPTIONS, 'batch_size': batch_size, 'mixed_precision': mixed_precision, **options}


def step_gflop(batch_size: int) -> float:
    """Returns the GFLOP of a training step of alexnet_v2, counted from its layers: forward and both gradients.

    A multiplication and an addition count as two; images need no gradient. Activations, pooling and the optimizer are
    passes over memory and not counted.
    """
    import tensorflow as tf

    from nets import nets_factory

    with tf.Graph().as_default():  # makes no weights
        layers = [layer for layer in nets_factory.make_model('alexnet_v2', 1000).layers if layer.weights]
    forward = [2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3]) for layer in layers]
    return batch_size * (3 * sum(forward) - forward[0]) / 1e9


def step(place: Place) -> Tables:
    """Compares training steps with PyTorch, Keras and the matrix product."""
    for dtype in DTYPES:
        for batch_size in BATCH_SIZES:
            yield f'step {dtype} {batch_size}', _step(place, dtype, batch_size)


def _step(place: Place, dtype: str, batch_size: int) -> Table:
    turn = {'per_turn': 6 if batch_size < 64 else 3, 'unit': batch_size}
    theirs = {'batch_size': batch_size, 'dtype': dtype}
    contestants = [
        Contestant('ours', 'with_engine.py', 'step', our_step(batch_size, dtype), **turn),
        Contestant(EAGER, 'with_torch.py', 'eager', theirs, **turn),
        Contestant(COMPILED, 'with_torch.py', 'compiled', theirs, **turn),
    ]
    if (dtype, batch_size) == ('float32', 32):
        contestants.append(Contestant(FIT, 'with_keras.py', 'fit', {'batch_size': batch_size}, **turn))
    contestants += [
        Contestant(name, script, 'product', {'side': SIDE, 'dtype': dtype}, per_turn=5, unit=PRODUCT_GFLOP)
        for name, script in zip(PRODUCTS, ('with_keras.py', 'with_torch.py'), strict=True)
    ]
    beside_torch, of_limit = STEP_ASKS[dtype, batch_size]
    share = step_gflop(batch_size) / batch_size
    asks = [
        Ask("ours / PyTorch's best", 'ours', (EAGER, COMPILED), beside_torch),
        Ask('ours / PyTorch eager', 'ours', (EAGER,)),
        Ask('ours / Keras fit', 'ours', (FIT,)),
        Ask('ours / the matrix product', 'ours', PRODUCTS, of_limit, factor=share),
    ]
    speeds = measure(contestants, place, f'step_{dtype}_{batch_size}')
    ratios = summarize_ratios(speeds, asks)
    title = f'A training step of alexnet_v2, {dtype}, batches of {batch_size}'
    return make_table(title, 'images/s; of products, GFLOP/s', speeds, ratios)


def memory(place: Place) -> Tables:
    """Compares the peak RSS of training, in separate processes."""
    peaks: dict[str, list[float]] = {}
    contestants = [
        Contestant('TensorFlow and this project, imported', 'with_engine.py', 'imports', warmup=1),
        Contestant('PyTorch, imported', 'with_torch.py', 'imports', warmup=1),
    ]
    asks = []
    for dtype in DTYPES:
        for batch_size in BATCH_SIZES:
            ours, theirs = (f'{side}, {dtype}, batches of {batch_size}' for side in ('ours', 'PyTorch'))
            options = {'batch_size': batch_size, 'dtype': dtype}
            contestants += [
                Contestant(ours, 'with_engine.py', 'step', our_step(batch_size, dtype), warmup=MEMORY_STEPS),
                Contestant(theirs, 'with_torch.py', 'eager', options, warmup=MEMORY_STEPS),
            ]
            # Less memory is better, so the ratio is theirs over ours.
            asks.append(Ask(f'PyTorch / {ours}', theirs, (ours,), 1.0))
    for number, contestant in enumerate(contestants):
        with running([contestant], place, f'memory_{number:02}') as ready:
            peaks[contestant.name] = [each.peak_rss_mib() for each in ready]
    peaks = {name: values for name, values in peaks.items() if values}
    ratios = summarize_ratios(peaks, asks)
    yield 'memory', make_table(f'Peak memory of {MEMORY_STEPS} steps of alexnet_v2', 'peak RSS, MiB', peaks, ratios)


def evaluation(place: Place) -> Tables:
    """Compares evaluation, from encoded images to Recall@5."""
    records, folder = write_validation(place.imagenet_dir, place.path('validation'), EVAL_IMAGES)
    ours = {
        'model_name': 'alexnet_v2',
        'dataset_name': 'imagenet',
        'dataset_dir': records,
        'batch_size': EVAL_BATCH,
        'num_steps': 10 * -(-EVAL_IMAGES // EVAL_BATCH),  # a tenth, one block, is the whole split
    }
    theirs = {'folder': folder, 'batch_size': EVAL_BATCH}
    turn = {'unit': EVAL_IMAGES, 'warmup': 1}
    contestants = [
        Contestant('ours, from TFRecords', 'with_engine.py', 'eval', ours, **turn),
        Contestant('PyTorch, Pillow', 'with_torch.py', 'evaluation', theirs, **turn),
    ]
    speeds = measure(contestants, place, 'evaluation')
    ratios = summarize_ratios(speeds, [Ask('ours / PyTorch', 'ours, from TFRecords', ('PyTorch, Pillow',), 2.0)])
    title = f'Evaluation of alexnet_v2 on {EVAL_IMAGES} photographs, in batches of {EVAL_BATCH}'
    yield 'evaluation', make_table(title, 'images/s', speeds, ratios)


def training(place: Place) -> Tables:
    """Compares training from encoded images with its two parts on half of the cores each, and with a step on all."""
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
    contestants = [
        Contestant('input alone', 'with_engine.py', 'input', options, per_turn=60, unit=unit, cores=cores[-half:]),
        Contestant('step alone', 'with_engine.py', 'step', options, per_turn=6, unit=unit, cores=cores[:half]),
        Contestant('step alone, all cores', 'with_engine.py', 'step', options, per_turn=6, unit=unit),
        Contestant(
            'training',
            'with_engine.py',
            'train',
            options,
            per_turn=6,
            unit=unit,
            environment={'TF_NUM_INTRAOP_THREADS': str(half)},  # the other cores are for the input
        ),
    ]
    name = options['dataset_name']
    with running(contestants, place, f'training_{name}') as ready:
        speeds = take_turns(ready, min(place.rounds, 3))
    absent = [contestant.name for contestant in contestants if contestant.name not in speeds]
    if absent:
        sys.exit(f'error: {", ".join(absent)}: did not run; see {place.path("logs")}')
    trained = contestants[-1]
    seconds = [unit * trained.per_turn / speed for speed in trained.speeds]
    waited = [wait / of_turn for wait, of_turn in zip(trained.waited, seconds, strict=True)]
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
    """Compares predictions of one image: the Predictor on three files, and the runtimes alone on two of them."""
    checkpoint, files = place.path('alexnet_v2'), {}
    _make_checkpoint(checkpoint)
    for kind in ('onnx', 'tflite'):
        files[kind] = place.path(f'alexnet_v2.{kind}')
        flags = (f'--checkpoint_path={checkpoint}', f'--format={kind}', f'--output_path={files[kind]}', '--overwrite')
        run_script('export_image_classifier.py', *map(_absolute, flags))
    weights = place.path('alexnet_v2.pt')
    turn = {'per_turn': 50, 'warmup': 20}
    contestants = [
        Contestant('Predictor, checkpoint', 'with_runtimes.py', 'predictor', {'path': checkpoint}, **turn),
        Contestant('Predictor, ONNX', 'with_runtimes.py', 'predictor', {'path': files['onnx']}, **turn),
        Contestant('Predictor, TFLite', 'with_runtimes.py', 'predictor', {'path': files['tflite']}, **turn),
        Contestant('onnxruntime alone', 'with_runtimes.py', 'onnxruntime', {'path': files['onnx']}, **turn),
        Contestant('LiteRT alone', 'with_runtimes.py', 'litert', {'path': files['tflite']}, **turn),
        Contestant(EAGER, 'with_torch.py', 'prediction', {'weights_path': weights}, **turn),
    ]
    runtimes = ('onnxruntime alone', 'LiteRT alone')
    ours = [contestant.name for contestant in contestants[:3]]
    asks = [Ask(f'{name} / the best runtime alone', name, runtimes, WITHIN) for name in ours]
    asks += [Ask(f'{name} / {EAGER}', name, (EAGER,)) for name in ours]
    speeds = measure(contestants, place, 'prediction')
    table = make_table(
        'Prediction of one image by alexnet_v2, warm',
        'ms a call',
        _inverted(speeds, 1e3),
        summarize_ratios(speeds, asks),
        digits=1,
    )
    yield 'prediction', table
    starts = _cold_starts(contestants, place)
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
    """Returns a flag with an absolute path, as scripts run in the project's root."""
    name, _, value = flag.partition('=')
    return f'{name}={os.path.abspath(value)}' if name.endswith(('_path', '_dir')) else flag


def _cold_starts(contestants: Sequence[Contestant], place: Place) -> dict[str, list[float]]:
    """Returns the rate of cold starts, each with one answer, per second and round."""
    speeds: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    rounds = min(place.rounds, 3)
    for _ in range(rounds):
        for number, contestant in random.sample(list(enumerate(contestants)), len(contestants)):
            time.sleep(PAUSE_SECONDS)
            once = dataclasses.replace(contestant, warmup=1)
            start = time.perf_counter()
            once.start(place, f'start.{number:02}')
            if once.warm_up():
                speeds[once.name].append(1 / (time.perf_counter() - start))
            else:
                print(f'left out: {once.name}; see {once.log_path}', file=sys.stderr)
            once.stop()
    return {name: values for name, values in speeds.items() if len(values) == rounds}


def first_step(place: Place) -> Tables:
    """Measures the training script at full width, from the command to the log line of the first step."""
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
    """Returns a table for the results: values, ratios, notes, date and load of the machine."""
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
