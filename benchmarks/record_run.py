"""Keeps of a run what docs/results.md shows: its curves, and its options as `config.cfg` has them.

    PYTHONPATH=. python benchmarks/record_run.py RUN docs/results/cifar10_best --dataset_dir=CIFAR10

writes docs/results/cifar10_best.svg and .cfg. The loss is that of each log line, the accuracy that of each evaluation
while it trained (`--eval_every_epochs`), with moving averages where the run kept them.
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

from support import library

library.load_lightly()

import tensorflow as tf  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

Curve = dict[int, float]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Returns the scalars of a folder's event files: by tag, value by step, without what a killed run made again."""
    found: dict[str, Curve] = defaultdict(dict)
    for path in sorted(folder.glob('events.out.tfevents.*')):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if event.session_log.status == tf.compat.v1.SessionLog.START:
                for curve in found.values():
                    for step in [step for step in curve if step >= event.step]:
                        del curve[step]
            for value in event.summary.value:
                if value.tensor.dtype == tf.float32.as_datatype_enum and not value.tensor.tensor_shape.dim:
                    found[value.tag][event.step] = float(tf.make_ndarray(value.tensor))
    return {tag: dict(sorted(curve.items())) for tag, curve in found.items()}


def read_evaluations(train_dir: Path) -> Curve:
    """Returns the accuracies that were measured while a run trained; empty without any.

    A later evaluation, of the last weights without their averages for instance, leaves a folder of its own, of a point.
    """
    is_averaged = re.search(
        r'^--moving_average_decay=(?!0(\.0)?$)', (train_dir / 'config.cfg').read_text(), re.MULTILINE
    )
    folders = [folder for folder in train_dir.glob('eval_*') if folder.name.endswith('_averages') == bool(is_averaged)]
    return max((read_curves(folder).get('accuracy', {}) for folder in folders), key=len, default={})


def draw(losses: Curve, accuracies: Curve) -> Figure:
    """Draws both over the steps, one above the other."""
    figure = Figure(figsize=(6, 4.5), layout='constrained')
    above, below = figure.subplots(2, sharex=True)
    above.plot(losses.keys(), losses.values(), color='0.3', linewidth=1)
    above.set_ylabel('training loss')
    below.plot(accuracies.keys(), [100 * value for value in accuracies.values()], marker='.', color='tab:blue')
    below.set_ylabel('test accuracy, %')
    below.set_xlabel('step')
    last = list(accuracies.values())[-1]
    below.annotate(f'{100 * last:.2f}', (max(accuracies), 100 * last), ha='right', va='bottom')
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    return figure


def without_folders(config: str, dataset_dir: str) -> str:
    """Returns a `config.cfg` in which folders of the machine that it ran on are names."""
    names = {'dataset_dir': dataset_dir, 'train_dir': 'RUN'}
    for flag, name in names.items():
        config = re.sub(rf'^--{flag}=.*$', f'--{flag}={name}', config, flags=re.MULTILINE)
    return config


def main() -> None:
    """Reads the run, writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('train_dir', type=Path)
    parser.add_argument('output', type=Path, help='without its ending')
    parser.add_argument('--dataset_dir', required=True, help='what the data set is called in the documentation')
    flags = parser.parse_args()
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    losses = read_curves(flags.train_dir).get('losses/cross_entropy', {})
    accuracies = read_evaluations(flags.train_dir)
    if not losses or not accuracies:
        sys.exit(
            f'error: {flags.train_dir} has no {"evaluations" if losses else "summaries"}; train with '
            '--save_summaries_secs and --eval_every_epochs'
        )
    draw(losses, accuracies).savefig(flags.output.with_suffix('.svg'), metadata={'Date': None})
    config = without_folders((flags.train_dir / 'config.cfg').read_text(), flags.dataset_dir)
    flags.output.with_suffix('.cfg').write_text(config)


if __name__ == '__main__':
    main()
