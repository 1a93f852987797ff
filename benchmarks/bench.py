"""The project beside PyTorch, Keras, onnxruntime and LiteRT, in turns: `make bench`, and `make bench-check`.

    python benchmarks/bench.py --only=step,memory --rounds=2
    python benchmarks/bench.py --check=benchmarks/recorded.json --only=step,evaluation,prediction --rounds=3

What was measured goes into --results_path; tables that are not measured now stay there as they were, if versions and
machine are the same. --write_docs writes all of them into docs/performance.md and draws the plots.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # of this process, which reads records by TensorFlow
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'

import curves
from bench_place import Place
from bench_tables import GROUPS
from ratios import find_losses, medians, verdict
from report import format_ratios, format_speeds, replace_between_markers
from rounds import ROOT, describe_machine

DOCS = Path(ROOT) / 'docs'
RECORDED = os.path.join(ROOT, 'benchmarks', 'recorded.json')
GUARDED = ('step', 'evaluation', 'prediction')  # keys of tables begin so
CURVES = 'curves'
PLOTS = {
    'batch_size': 'Images a second over the batch size, float32',
    'memory': 'Peak memory over the batch size, float32',
    'depth_multiplier': 'Images a second over the width of the net, float32, batches of 32',
    'image_size': 'Images a second over the size of the images, float32, batches of 32',
    'cores': 'Images a second over the cores, float32, batches of 32',
}
PACKAGES = ('tensorflow', 'keras', 'onnxruntime', 'ai-edge-litert')


def parse_flags() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--peers', default='build/peers/bin/python', help='Python interpreter that has PyTorch')
    parser.add_argument('--imagenet_dir', default='../shared/data/imagenet_mini', help='TFRecords')
    parser.add_argument('--cifar10_dir', default='../shared/data/cifar10', help='TFRecords')
    parser.add_argument('--work_dir', default='build/bench', help='where files and logs go')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', help=f'of {", ".join((*GROUPS, CURVES))}, separated by commas')
    parser.add_argument('--results_path', help='JSON file for the results')
    parser.add_argument('--write_docs', action='store_true', help='write docs/performance.md and the plots')
    parser.add_argument('--record', action='store_true', help='write the ratios to benchmarks/recorded.json')
    parser.add_argument('--check', help='JSON file of recorded ratios: fail where one is now 15 %% lower')
    flags = parser.parse_args()
    flags.only = flags.only.split(',') if flags.only else [*GROUPS, CURVES]
    unknown = set(flags.only) - {*GROUPS, CURVES}
    if unknown:
        parser.error(f'--only: there is no {", ".join(sorted(unknown))}; there are {", ".join((*GROUPS, CURVES))}')
    if not os.path.isfile(flags.peers):
        sys.exit(f'error: --peers={flags.peers}: is not there; install the peers with: make build/peers/.installed')
    if flags.check and not os.path.isfile(flags.check):
        sys.exit(
            f'error: --check={flags.check}: is not there; measure and write it with: make bench BENCH_FLAGS=--record'
        )
    return flags


def read_versions(peers: str) -> dict[str, str]:
    """Returns the versions of everything that is measured."""
    code = 'import torch; print(torch.__version__)'
    torch = subprocess.run([peers, '-c', code], capture_output=True, text=True, check=True).stdout.strip()
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {'python': platform.python_version(), **packages, 'torch': torch}


def start_results(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns the results so far: those of an earlier run with the same versions on the same machine, or none."""
    results: dict[str, Any] = {
        'machine': describe_machine(),
        'versions': read_versions(flags.peers),
        'command': shlex.join(['python', *sys.argv]),
        'rounds': flags.rounds,
        'tables': {},
    }
    if not flags.results_path or not os.path.exists(flags.results_path):
        return results
    with open(flags.results_path) as file:
        earlier = json.load(file)
    same = ('processor', 'cores', 'memory_gib')
    is_same = all(earlier['machine'][name] == results['machine'][name] for name in same)
    if is_same and earlier['versions'] == results['versions']:
        results |= {key: earlier[key] for key in ('tables', CURVES) if key in earlier}
    return results


def format_report(results: dict[str, Any]) -> str:
    """Returns what stands in docs/performance.md."""
    machine, versions, tables = results['machine'], results['versions'], results['tables']
    loads, dates = ({table[key] for table in tables.values()} for key in ('load', 'date'))
    lines = [
        f'- Machine: {machine["processor"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB. '
        f'Date: {" to ".join(sorted({min(dates), max(dates)}))}. Load: {min(loads):.1f} to {max(loads):.1f}, the '
        'measured process included.',
        f'- Versions: {", ".join(f"{name} {version}" for name, version in versions.items())}.',
        f'- Command: `{results["command"]}`',
    ]
    parts = ['\n'.join(lines)]
    for table in tables.values():
        parts += [f'### {table["title"]}', format_speeds(table['values'], '', table['unit'], table['digits'])]
        if table['ratios']:
            verdicts = {name: verdict(ratio) for name, ratio in table['ratios'].items()}
            parts.append(format_ratios(table['ratios'], verdicts))
        parts += table['notes']
    if CURVES in results:
        parts.append('### Scaling')
        parts += [f'![{title}](plots/{name}.svg)\n{title}.' for name, title in PLOTS.items()]
    return '\n\n'.join(parts)


def check(path: str, tables: dict[str, Any], groups: list[str]) -> int:
    """Prints a line for each ratio that has fallen behind what is recorded; returns the exit status."""
    with open(path) as file:
        recorded = json.load(file)
    asked = tuple(group for group in groups if group in GUARDED)
    recorded = {key: ratios for key, ratios in recorded.items() if key.startswith(asked)}
    losses = find_losses(recorded, medians(tables, GUARDED))
    for line in losses:
        print(f'lost: {line}')
    if not losses:
        print(f'no ratio has lost 15 % of what is recorded in {path}')
    return int(bool(losses))


def main() -> int:
    """Measures in turns, prints the tables, and writes what it was asked to."""
    flags = parse_flags()
    place = Place(
        flags.peers, flags.work_dir, *map(os.path.abspath, (flags.imagenet_dir, flags.cifar10_dir)), flags.rounds
    )
    os.makedirs(flags.work_dir, exist_ok=True)
    results = start_results(flags)
    measured: dict[str, Any] = {}

    def save() -> None:  # after each table, so that nothing is lost
        if flags.results_path:
            Path(flags.results_path).write_text(json.dumps(results, indent=1) + '\n')

    for group in flags.only:
        print(f'measuring: {group}', file=sys.stderr)
        if group == CURVES:
            results[CURVES] = curves.measure(place)
        else:
            for key, table in GROUPS[group](place):
                measured[key] = results['tables'][key] = table
                save()
        save()
    if results['tables']:
        print(format_report({**results, 'tables': measured or results['tables']}))
    if flags.write_docs:
        path = DOCS / 'performance.md'
        path.write_text(replace_between_markers(path.read_text(), format_report(results)))
        if CURVES in results:
            curves.draw(results[CURVES], str(DOCS / 'plots'))
    if flags.record:
        Path(RECORDED).write_text(json.dumps(medians(results['tables'], GUARDED), indent=1) + '\n')
    return check(flags.check, measured, flags.only) if flags.check else 0


if __name__ == '__main__':
    sys.exit(main())
