"""The project beside PyTorch, Keras, onnxruntime and LiteRT, in turns: `make bench`, `make bench-check`, and others.

    python benchmarks/bench.py --only=step,memory --rounds=2
    python benchmarks/bench.py --check=benchmarks/recorded.json --only=step,evaluation,prediction --rounds=3

What was measured goes into --results_path; tables that are not measured now stay there as they were, if versions and
machine are the same. --write_docs writes all of them into docs/performance.md and draws the plots, if none is missing;
the tables of `--only=kernels` and `--only=input`, which are measured only when they are named, into parts of their own.
"""

import argparse
import glob
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # for this process, which reads records with TensorFlow
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # for the project's own packages

import curves
import guard
from bench_tables import GROUPS as BESIDE_OTHERS
from input_tables import input_pipeline
from kernel_tables import kernels
from ratios import format_ratios, format_speeds, replace_between_markers
from rounds import ROOT, Place, describe_machine

DOCS = Path(ROOT) / 'docs'
RECORDED = os.path.join(ROOT, 'benchmarks', 'recorded.json')
CURVES, OF_CURVES = 'curves', 'of_curves'
OF_THEIR_OWN = {'kernels': kernels, 'input': input_pipeline}
GROUPS = {**BESIDE_OTHERS, **OF_THEIR_OWN}
PLOTS = {
    'batch_size': 'Images a second over the batch size, float32',
    'memory': 'Peak memory over the batch size, float32',
    'depth_multiplier': 'Images a second over the width of the net, float32, batches of 32',
    'image_size': 'Images a second over the size of the images, float32, batches of 32',
    'cores': 'Images a second over the cores, float32, batches of 32',
}
# Data that each group reads: its flag, the glob of its files, and the variable of `make` for the folder.
DATA = {
    'kernels': [('imagenet_dir', 'validation-*', 'IMAGENET_MINI')],
    'input': [('imagenet_dir', 'train-*', 'IMAGENET_MINI'), ('raw_dir', 'train/*/*', 'IMAGENET_RAW')],
    'evaluation': [('imagenet_dir', 'validation-*', 'IMAGENET_MINI')],
    'training': [('imagenet_dir', 'train-*', 'IMAGENET_MINI'), ('cifar10_dir', 'cifar10_train*', 'CIFAR10')],
}
PACKAGES = ('tensorflow', 'keras', 'onnxruntime', 'ai-edge-litert')


def parse_flags() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (
        ('peers', 'build/peers/bin/python', 'Python interpreter that has PyTorch, and for --only=input DALI'),
        ('imagenet_dir', '../shared/data/imagenet_mini', 'TFRecords'),
        ('cifar10_dir', '../shared/data/cifar10', 'TFRecords'),
        ('raw_dir', '../shared/data/imagenet_raw_mini', 'raw ILSVRC images, which --only=input converts'),
        ('work_dir', 'build/bench', 'where files and logs go'),
        ('results_path', None, 'JSON file for the results'),
        ('check', None, 'JSON file of recorded ratios: fail where one is now 15 %% lower'),
    ):
        parser.add_argument(f'--{name}', type=os.path.expanduser, default=default, help=text)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', help=f'of {", ".join((*GROUPS, CURVES))}, separated by commas')
    parser.add_argument('--write_docs', action='store_true', help='write docs/performance.md and the plots')
    parser.add_argument('--record', action='store_true', help='write the ratios to benchmarks/recorded.json')
    flags = parser.parse_args()
    flags.only = flags.only.split(',') if flags.only else [*BESIDE_OTHERS, CURVES]
    unknown = set(flags.only) - {*GROUPS, CURVES}
    if unknown:
        parser.error(f'--only: there is no {", ".join(sorted(unknown))}; there are {", ".join((*GROUPS, CURVES))}')
    if flags.check and flags.record:
        parser.error('--check and --record: what is recorded now cannot be compared with itself; give one of them')
    if flags.check and not set(flags.only) & set(guard.GUARDED):
        parser.error(f'--check: guards {", ".join(guard.GUARDED)}; --only has none of them')
    if not os.path.isfile(flags.peers):
        sys.exit(f'error: --peers={flags.peers}: is not there; install the peers with: make build/peers/.installed')
    if flags.check and not os.path.isfile(flags.check):
        sys.exit(
            f'error: --check={flags.check}: is not there; measure and write it with: make bench BENCH_FLAGS=--record'
        )
    for group in flags.only:
        for flag, pattern, variable in DATA.get(group, []):
            folder = getattr(flags, flag)
            if not glob.glob(os.path.join(folder, pattern)):
                sys.exit(
                    f'error: --{flag}={folder}: has no {pattern}, which --only={group} reads; name the folder with: '
                    f'make bench {variable}=FOLDER'
                )
    return flags


def read_versions(peers: str) -> dict[str, str]:
    """Returns the versions of all measured packages."""
    code = 'import torch; print(torch.__version__)'
    torch = subprocess.run([peers, '-c', code], capture_output=True, text=True, check=False)
    if torch.returncode or not torch.stdout.strip():
        sys.exit(f'error: --peers={peers}: has no PyTorch; install the peers with: make build/peers/.installed')
    try:
        packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        sys.exit(f'error: {error.name} is not installed; install what is measured with: make .venv/.installed-dev')
    return {'python': platform.python_version(), **packages, 'torch': torch.stdout.strip()}


def read_commit() -> str:
    """Returns the commit of the measured code, with `-dirty` if modified; 'unknown' outside git."""
    command = ['git', 'describe', '--always', '--dirty', '--exclude=*']
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return done.stdout.strip()


def start_results(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns the results of an earlier run with the same versions on the same machine, or empty results."""
    results: dict[str, Any] = {
        'machine': describe_machine(),
        'versions': read_versions(flags.peers),
        'tables': {},
    }
    if not flags.results_path or not os.path.exists(flags.results_path):
        return results
    with open(flags.results_path) as file:
        earlier = json.load(file)
    same = ('processor', 'cores', 'memory_gib')
    is_same = all(earlier['machine'][name] == results['machine'][name] for name in same)
    if is_same and earlier['versions'] == results['versions']:
        kept = {key: table for key, table in earlier['tables'].items() if 'commit' in table}  # older tables have none
        results |= {'tables': kept, **{key: earlier[key] for key in (CURVES, OF_CURVES) if key in earlier}}
    return results


def format_report(results: dict[str, Any]) -> str:
    """Returns the measured tables as Markdown, with the machine, the versions and the commands behind them."""
    machine, versions, tables = results['machine'], results['versions'], results['tables']
    loads, dates, commands, commits = (
        {table[key] for table in tables.values()} for key in ('load', 'date', 'command', 'commit')
    )
    lines = [
        f'- Machine: {machine["processor"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB. '
        f'Date: {" to ".join(sorted({min(dates), max(dates)}))}. Load: {min(loads):.1f} to {max(loads):.1f}, the '
        'measured process included.',
        f'- Versions: {", ".join(f"{name} {version}" for name, version in versions.items())}. This project: '
        f'{", ".join(sorted(commits))}.',
        f'- Command: {", ".join(f"`{command}`" for command in sorted(commands))}',
    ]
    parts = ['\n'.join(lines)]
    for table in tables.values():
        parts += [f'### {table["title"]}', format_speeds(table['values'], table['unit'], table['digits'])]
        if table['ratios']:
            parts.append(format_ratios(table['ratios']))
        parts += table['notes']
    if results.get(CURVES):
        parts.append('### Scaling')
        if OF_CURVES in results:  # which may differ from the tables in commit and hour
            parts.append('Date: {date}. This project: {commit}. Command: `{command}`'.format(**results[OF_CURVES]))
        parts += [f'![{title}](plots/{name}.svg)\n{title}.' for name, title in PLOTS.items()]
    return '\n\n'.join(parts)


def write_docs(results: dict[str, Any]) -> None:
    """Writes the measured parts of docs/performance.md, and the plots; prints which tables are missing."""
    path, others = DOCS / 'performance.md', dict(results['tables'])
    are_written = False
    for part in OF_THEIR_OWN:
        tables = {key: others.pop(key) for key in list(others) if key.startswith(part)}
        if tables:
            report = format_report({**results, 'tables': tables, CURVES: None})
            path.write_text(replace_between_markers(path.read_text(), report, part))
            are_written = True
    missing = [group for group in BESIDE_OTHERS if not any(key.startswith(group) for key in others)]
    missing += [] if CURVES in results else [CURVES]
    if not missing:
        path.write_text(replace_between_markers(path.read_text(), format_report({**results, 'tables': others})))
        curves.draw(results[CURVES], str(DOCS / 'plots'))
    elif others or not are_written:
        print(f'docs/performance.md stays as it is: {", ".join(missing)} not measured yet', file=sys.stderr)


def print_losses(path: str, losses: list[str]) -> int:
    """Prints the ratios that have fallen; returns the exit status."""
    for line in losses:
        print(f'lost: {line}')
    if not losses:
        print(f'no ratio has lost {guard.TOLERATED_LOSS:.0%} of what is recorded in {path}')
    return int(bool(losses))


def main() -> int:
    """Measures, prints the tables, and writes the requested files."""
    flags = parse_flags()
    folders = map(os.path.abspath, (flags.imagenet_dir, flags.cifar10_dir, flags.raw_dir))
    place = Place(flags.peers, flags.work_dir, *folders, flags.rounds)
    for folder in (flags.work_dir, os.path.dirname(flags.results_path or '')):
        os.makedirs(folder or '.', exist_ok=True)
    results = start_results(flags)
    measured: dict[str, Any] = {}
    code = {'command': shlex.join(['python', *sys.argv]), 'commit': read_commit()}

    def save() -> None:  # after each table, so that nothing is lost
        if flags.results_path:
            Path(flags.results_path).write_text(json.dumps(results, indent=1) + '\n')

    for group in flags.only:
        print(f'measuring: {group}', file=sys.stderr)
        if group == CURVES:
            results[CURVES] = curves.measure(place)
            results[OF_CURVES] = {**code, 'date': time.strftime('%Y-%m-%d')}
        else:
            for key, table in GROUPS[group](place):
                measured[key] = results['tables'][key] = {**table, **code}
                save()
        save()
    if results['tables']:
        print(format_report({**results, 'tables': measured or results['tables']}))
    if flags.write_docs:
        write_docs(results)
    if flags.record:
        lost = guard.record(RECORDED, measured, results['machine'])
        if lost:
            sys.exit(f'error: nothing was recorded: not measured now, though recorded before: {"; ".join(lost)}')
    if not flags.check:
        return 0
    guarded = [group for group in flags.only if group in guard.GUARDED]
    return print_losses(flags.check, guard.check(flags.check, measured, guarded, results['machine']))


if __name__ == '__main__':
    sys.exit(main())
