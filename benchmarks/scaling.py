"""The speedup of a second worker, compared with the prediction of `--plan`: `make bench-scaling`.

    PYTHONPATH=. python benchmarks/scaling.py --rounds=5

Weak scaling: one worker on one core, and two on two cores, each with the same share of the batch, over loopback. They
run in turns, in random order, so that what else the machine does falls on all alike. From the two workers of the first
net and batch comes the speed of the link; with it and the speed of each worker alone, `engine/training/plan.py` says
how long the steps of the others take. Two workers also share memory and caches, which the model does not know, and the
link has that cost in it.
"""

import argparse
import dataclasses
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'  # workers are cores here

from ratios import spread
from rounds import ROOT, describe_machine

from configs.options import make_config
from configs.training import TrainConfig
from support import library

library.load_lightly()

from engine.training import plan  # noqa: E402

WORKERS = 2
LATENCY_US = 50.0  # as --plan_latency_us; what loopback really takes goes into the speed of the link


@dataclasses.dataclass(frozen=True)
class Case:
    """A net, and each worker's share of the batch."""

    model_name: str
    depth_multiplier: float
    image_size: int
    share: int

    @property
    def name(self) -> str:
        return f'{self.model_name} x {self.depth_multiplier:g}, {self.share} a worker'

    @property
    def options(self) -> dict[str, Any]:
        """The options of training that say so, but for the size of the batch."""
        return {
            'model_name': self.model_name,
            'depth_multiplier': self.depth_multiplier,
            'train_image_size': self.image_size,
            'dataset_name': 'synthetic',
        }

    def plan(self, images_per_second: float, link_gbits: float) -> plan.Plan:
        """Returns the predicted plan of two workers, given the speed of one alone."""
        config = make_config(
            TrainConfig,
            **self.options,
            batch_size=self.share * WORKERS,
            max_number_of_steps=1,
            plan=True,
            plan_workers=WORKERS,
            plan_images_per_second=images_per_second,
            plan_link_gbits=link_gbits,
            plan_latency_us=LATENCY_US,
        )
        run = plan.planned_run(config)
        return plan.make_plan(run, plan.count_trainable(run))


Turns = dict[tuple[Case, int], list[dict[str, Any]]]


def take_turn(case: Case, workers: int, flags: argparse.Namespace) -> dict[str, Any]:
    """Runs the benchmark with several workers, one core each, and returns its figures."""
    path, log_path = (os.path.join(flags.work_dir, f'scaling.{kind}') for kind in ('json', 'log'))
    options = {
        **case.options,
        'mode': 'step',
        'batch_size': case.share * workers,
        'num_steps': flags.num_steps,
        'warmup_steps': flags.warmup_steps,
        'devices': 'cpu',
        'results_path': os.path.abspath(path),
        **({'launch_workers': workers} if workers > 1 else {}),
    }
    command = [
        sys.executable,
        'benchmark_image_classifier.py',
        *(f'--{name}={value}' for name, value in options.items()),
    ]
    cores = sorted(os.sched_getaffinity(0))[:workers]
    with open(log_path, 'w') as log:
        status = subprocess.run(
            command,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, 'TF_NUM_INTRAOP_THREADS': '1'},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            check=False,
        ).returncode
    if status:
        sys.exit(f'error: {case.name}, {workers} workers: has failed; see {log_path}')
    with open(path) as file:
        figures: dict[str, Any] = json.load(file)
    os.remove(path)  # so that a worker that writes none is noticed
    if figures.get('workers', 1) != workers:
        sys.exit(f'error: {case.name}: of {workers} workers, {figures.get("workers", 1)} were measured; see {log_path}')
    return figures


def measure(cases: Sequence[Case], flags: argparse.Namespace) -> Turns:
    """Lets one and two workers of each case take a turn in every round."""
    turns: Turns = {(case, workers): [] for case in cases for workers in (1, WORKERS)}
    for done in range(flags.rounds):
        for case, workers in random.sample(list(turns), len(turns)):
            turns[case, workers].append(take_turn(case, workers, flags))
        print(f'round {done + 1} of {flags.rounds}, load {os.getloadavg()[0]:.1f}', file=sys.stderr)
    return turns


def step_seconds(turns: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Returns seconds per step: median, low and high over the turns."""
    return spread([figures['batch_size'] / figures['images_per_second']['median'] for figures in turns])


def link_gbits(case: Case, alone: float, together: float) -> float:
    """Returns the speed of the link with which the model gives the step of two workers; both in seconds."""
    planned = case.plan(case.share / alone, 1.0)
    seconds = together - alone - 2 * (WORKERS - 1) * LATENCY_US * 1e-6
    if seconds <= 0:
        sys.exit(
            f'error: {case.name}: a step of {WORKERS} workers took {together:.4g} s, of one {alone:.4g} s: no '
            'communication is seen; measure a larger net, more steps, or on a quieter machine'
        )
    return planned.bytes_sent * 8e-9 / seconds


def summarize(turns: Turns) -> dict[str, Any]:
    """Returns the speed of the link, and of each case what was measured and what was foretold."""
    cases = list(dict.fromkeys(case for case, _ in turns))
    seconds = {key: step_seconds(of_one) for key, of_one in turns.items()}
    first = cases[0]
    link = link_gbits(first, seconds[first, 1]['median'], seconds[first, WORKERS]['median'])
    rows = []
    for case in cases:
        alone, together = seconds[case, 1], seconds[case, WORKERS]
        planned = case.plan(case.share / alone['median'], link)
        rows.append(
            {
                **dataclasses.asdict(case),
                'name': case.name,
                'gives_link': case == first,
                'alone': alone,
                'measured': together,
                'predicted': planned.step_seconds,
                'ratio': together['median'] / planned.step_seconds,
                'efficiency': alone['median'] / together['median'],
                'predicted_efficiency': planned.efficiency,
                'predicted_bytes_sent': planned.bytes_sent,
                **_of_benchmark(turns[case, WORKERS]),
            }
        )
    return {'workers': WORKERS, 'link_gbits': link, 'rows': rows}


def _of_benchmark(turns: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Returns the median communication figures of the benchmark, None where it reports none."""
    names = ('communication_share', 'bytes_per_step_sent', 'bytes_per_step_expected')
    told = {name: [figures[name] for figures in turns if figures.get(name) is not None] for name in names}
    return {name: statistics.median(values) if values else None for name, values in told.items()}


def format_table(results: dict[str, Any]) -> str:
    """Returns the rows as a table of Markdown."""
    heads = ('net', 'one worker, s a step', 'two, s a step', 'two, foretold', 'measured / foretold')
    heads += ('efficiency', 'efficiency foretold', 'communication', 'MB sent', 'MB expected')
    lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for row in results['rows']:
        share, sizes = row['communication_share'], (row['bytes_per_step_sent'], row['bytes_per_step_expected'])
        cells = (
            row['name'],
            *(f'{of["median"]:.4g} ({of["low"]:.4g} to {of["high"]:.4g})' for of in (row['alone'], row['measured'])),
            f'{row["predicted"]:.4g}',
            'gives the link' if row['gives_link'] else f'{row["ratio"]:.2f}',
            f'{row["efficiency"]:.1%}',
            f'{row["predicted_efficiency"]:.1%}',
            '-' if share is None else f'{share:.1%}',
            *('-' if size is None else f'{size / 1e6:.1f}' for size in sizes),
        )
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*lines, '', f'link: {results["link_gbits"]:.2f} Gbit/s'])


def main() -> None:
    """Measures in turns, prints the table and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model_name', default='alexnet_v2')
    parser.add_argument('--depth_multipliers', type=float, nargs='+', default=[1.0, 0.25], help='the first: the link')
    parser.add_argument('--shares', type=int, nargs='+', default=[32, 16], help='images of each worker in a step')
    parser.add_argument('--image_size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--num_steps', type=int, default=20, help='in each turn')
    parser.add_argument('--warmup_steps', type=int, default=3)
    parser.add_argument('--work_dir', type=os.path.expanduser, default='build/bench', help='where figures and logs go')
    parser.add_argument('--results_path', type=os.path.expanduser, help='JSON file for the results')
    flags = parser.parse_args()
    if len(os.sched_getaffinity(0)) < WORKERS:
        sys.exit(f'error: {WORKERS} workers need {WORKERS} cores')
    os.makedirs(flags.work_dir, exist_ok=True)
    pairs = [(multiplier, share) for multiplier in flags.depth_multipliers for share in flags.shares]
    cases = [Case(flags.model_name, multiplier, flags.image_size, share) for multiplier, share in pairs]
    results = {'machine': describe_machine(), **summarize(measure(cases, flags))}
    print(format_table(results))
    if flags.results_path:
        with open(flags.results_path, 'w') as file:
            json.dump(results, file, indent=1)


if __name__ == '__main__':
    main()
