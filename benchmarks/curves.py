"""Speed and memory of a training step as functions of a size, as plots: batch, width of the net, images, cores.

    curves = measure(place)
    draw(curves, 'docs/plots')      # batch_size.svg, memory.svg, ...
    curves['batch_size']['ours']    # [[1, 12.3, 1450.0], ...]: size, images/s, peak RSS in MiB

Every point is measured in a separate process; this project and PyTorch take turns at each.
"""

import os
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench_tables import EAGER, our_step
from rounds import Contestant, Place, running, take_turns

ROUNDS = 2
BATCH_SIZE = 32
Curves = dict[str, dict[str, list[list[float]]]]


class Sweep(NamedTuple):
    """A size that varies while all others are fixed: axis label, values, and whether the axis is logarithmic."""

    label: str
    values: Sequence[float]
    is_logarithmic: bool = False


SWEEPS = {
    'batch_size': Sweep('batch size', [2**power for power in range(9)], is_logarithmic=True),
    'depth_multiplier': Sweep('width of the net (depth multiplier)', [0.125, 0.25, 0.5, 1.0], is_logarithmic=True),
    'image_size': Sweep('side of the images in pixels (torchvision_alexnet)', [96, 160, 224, 320, 448]),
    'cores': Sweep('cores', range(1, 1 + len(os.sched_getaffinity(0)))),
}


def measure(place: Place) -> Curves:
    """Returns the points of each sweep and side: size, images/s, peak RSS in MiB."""
    return {name: _measure(name, place) for name in SWEEPS}


def _measure(name: str, place: Place) -> dict[str, list[list[float]]]:
    points: dict[str, list[list[float]]] = {}
    for value in SWEEPS[name].values:
        with running(_contestants(name, value), place, f'{name}_{value:g}') as ready:
            take_turns(ready, min(place.rounds, ROUNDS))
            for contestant in ready:
                point = [value, statistics.median(contestant.speeds), contestant.peak_rss_mib()]
                points.setdefault(contestant.name, []).append(point)
    return points


def _contestants(name: str, value: float) -> list[Contestant]:
    sizes: dict[str, Any] = {'batch_size': BATCH_SIZE, name: value}
    cores, batch_size = sizes.pop('cores', None), sizes['batch_size']
    ours, theirs = our_step(**sizes), {**sizes, 'dtype': 'float32'}
    if name == 'image_size':
        # alexnet_v2 has one output position only for 195 to 226 pixels; this net averages any number of positions.
        net = {'model_name': 'torchvision_alexnet'}
        ours = our_step(BATCH_SIZE, train_image_size=value, preprocessing_name='inception', **net)
        theirs |= net
    turn = {
        'per_turn': min(max(128 // batch_size, 2), 16),
        'unit': batch_size,
        'warmup': 2,
        'cores': sorted(os.sched_getaffinity(0))[:cores],
    }
    return [
        Contestant('ours', 'with_engine.py', 'step', ours, **turn),
        Contestant(EAGER, 'with_torch.py', 'eager', theirs, **turn),
    ]


def draw(curves: Curves, folder: str) -> None:
    """Draws a plot for each sweep, and one for memory over the batch size."""
    os.makedirs(folder, exist_ok=True)
    for name, sides in curves.items():
        points = {side: [(value, speed) for value, speed, _ in of_one] for side, of_one in sides.items()}
        _plot(points, SWEEPS[name], 'images/s', os.path.join(folder, f'{name}.svg'))
    if 'batch_size' in curves:
        sides = curves['batch_size']
        points = {side: [(value, peak) for value, _, peak in of_one] for side, of_one in sides.items()}
        _plot(points, SWEEPS['batch_size'], 'peak RSS, MiB', os.path.join(folder, 'memory.svg'))


def _plot(points: dict[str, list[tuple[float, float]]], sweep: Sweep, label: str, path: str) -> None:
    import matplotlib  # takes a second, not needed for measuring

    matplotlib.use('svg')
    # Makes the files reproducible.
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
