"""Speed and memory over the sizes of a training step, as plots: batch, width of the net, images, cores.

    curves = measure(place)
    draw(curves, 'docs/plots')      # batch_size.svg, memory.svg, ...
    curves['batch_size']['ours']    # [[1, 12.3, 1450.0], ...]: size, images/s, peak RSS in MiB

Every point is a process of its own; this project and PyTorch take turns at each.
"""

import dataclasses
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench_place import Entry, Place, running
from bench_tables import EAGER, our_step
from rounds import take_turns

ROUNDS = 2
Curves = dict[str, dict[str, list[list[float]]]]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One size that changes, while all others stay.

    Attributes:
        label: Of the axis.
        values: Of the size.
        batch_size: Of the step.
        options: What else is said, from a value; by the names of this project's options.
        cores: How many cores, from a value; all if 0.
        is_logarithmic: The axis.
    """

    label: str
    values: Sequence[float]
    batch_size: Callable[[float], int] = lambda value: 32
    options: Callable[[float], dict[str, Any]] = lambda value: {}
    cores: Callable[[float], int] = lambda value: 0
    is_logarithmic: bool = False


SWEEPS = {
    'batch_size': Sweep(
        'batch size', [2**power for power in range(9)], batch_size=lambda value: int(value), is_logarithmic=True
    ),
    'depth_multiplier': Sweep(
        'width of the net (depth multiplier)',
        [0.125, 0.25, 0.5, 1.0],
        options=lambda value: {'depth_multiplier': value},
        is_logarithmic=True,
    ),
    # alexnet_v2 ends in one position for 195 to 226 pixels only; this one averages any number of them.
    'image_size': Sweep(
        'side of the images in pixels (torchvision_alexnet)',
        [96, 160, 224, 320, 448],
        options=lambda value: {'model_name': 'torchvision_alexnet', 'image_size': int(value)},
    ),
    'cores': Sweep('cores', range(1, 1 + len(os.sched_getaffinity(0))), cores=lambda value: int(value)),
}


def measure(place: Place) -> Curves:
    """Returns for each sweep and side its points: size, images/s, peak RSS in MiB."""
    return {name: _measure(name, sweep, place) for name, sweep in SWEEPS.items()}


def _measure(name: str, sweep: Sweep, place: Place) -> dict[str, list[list[float]]]:
    points: dict[str, list[list[float]]] = {}
    for value in sweep.values:
        with running(_entries(sweep, value), place, f'{name}_{value:g}') as contestants:
            take_turns(contestants, min(place.rounds, ROUNDS))
            for contestant in contestants:
                point = [value, statistics.median(contestant.speeds), contestant.peak_rss_mib()]
                points.setdefault(contestant.name, []).append(point)
    return points


def _entries(sweep: Sweep, value: float) -> list[Entry]:
    batch_size, options = sweep.batch_size(value), sweep.options(value)
    theirs = {**options, 'batch_size': batch_size, 'dtype': 'float32'}
    ours = dict(options)
    if 'image_size' in ours:
        ours |= {'train_image_size': ours.pop('image_size'), 'preprocessing_name': 'inception'}
    turn = {
        'per_turn': min(max(128 // batch_size, 2), 16),
        'unit': batch_size,
        'warmup': 2,
        'cores': sorted(os.sched_getaffinity(0))[: sweep.cores(value) or None],
    }
    return [
        Entry('ours', 'with_engine.py', 'step', our_step(batch_size, **ours), **turn),
        Entry(EAGER, 'with_torch_step.py', 'eager', theirs, is_peer=True, **turn),
    ]


def draw(curves: Curves, folder: str) -> list[str]:
    """Draws a file for each sweep, and one for the memory over the batch size; returns their names."""
    os.makedirs(folder, exist_ok=True)
    names = []
    for name, sides in curves.items():
        points = {side: [(value, speed) for value, speed, _ in of_one] for side, of_one in sides.items()}
        names.append(_plot(points, SWEEPS[name], 'images/s', os.path.join(folder, f'{name}.svg')))
    if 'batch_size' in curves:
        sides = curves['batch_size']
        points = {side: [(value, peak) for value, _, peak in of_one] for side, of_one in sides.items()}
        names.append(_plot(points, SWEEPS['batch_size'], 'peak RSS, MiB', os.path.join(folder, 'memory.svg')))
    return names


def _plot(points: dict[str, list[tuple[float, float]]], sweep: Sweep, label: str, path: str) -> str:
    import matplotlib  # takes a second, which measuring need not wait

    matplotlib.use('svg')
    # The same points make the same file.
    matplotlib.rcParams.update({'svg.hashsalt': os.path.basename(path), 'font.size': 13, 'svg.fonttype': 'path'})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout='constrained')
    for (side, of_one), marker in zip(points.items(), 'os^D', strict=False):
        axes.plot(*zip(*of_one, strict=True), marker=marker, linewidth=2, label=side)
    if sweep.is_logarithmic:
        axes.set_xscale('log', base=2)
    axes.set_xticks(sweep.values, [f'{value:g}' for value in sweep.values], minor=False)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(sweep.label)
    axes.set_ylabel(label)
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(axis='y', alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={'Date': None})
    pyplot.close(figure)
    return os.path.basename(path)
