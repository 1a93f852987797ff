"""`python -m engine.runs TRAIN_DIR...` shows progress, metrics and speed of runs, and how their options differ."""

import argparse
import io
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from absl import logging

from configs import cli
from engine.runs.files import find_runs
from engine.runs.output import FORMATS, as_table
from engine.runs.status import RunReader, RunStatus
from support import console
from support.errors import InputError

_CLEAR = '\x1b[2J\x1b[H'
_INTERVAL_SECS, _SHORTEST, _LONGEST = 5.0, 0.1, 86400  # of --watch
_UNLIMITED = 100_000  # columns and lines where standard output is not a terminal


class Runs:
    """The runs in folders, each a `train_dir` or a folder of several; `read` also finds new ones."""

    def __init__(self, folders: Sequence[str]):
        self._folders = folders
        self._readers: dict[str, RunReader] = {}

    def read(self) -> tuple[list[RunStatus], list[InputError]]:
        """Returns the status of all runs, and the errors of those that cannot be read."""
        found: dict[str, RunStatus] = {}
        errors = []
        for folder in self._folders:
            try:
                for path in find_runs(folder):
                    if path not in found:
                        found[path] = self._readers.setdefault(path, RunReader(path)).read()
            except InputError as error:
                errors.append(error)
        return list(found.values()), errors


def show(runs: Runs, format: str) -> int:
    """Prints the runs once; returns the exit status: 1 if a folder cannot be read or has no run."""
    statuses, errors = runs.read()
    if statuses:
        print(as_table(statuses, _terminal()[0]) if format == 'table' else FORMATS[format](statuses), flush=True)
    for status in statuses:
        for line in status.problems:
            logging.warning('%s', line)
    for error in errors:
        console.print_error(error)
    return 1 if errors else 0


def watch(runs: Runs, interval_secs: float) -> NoReturn:
    """Redraws the table until Ctrl-C.

    Raises:
        InputError: there is no run at the start.
    """
    statuses, errors = runs.read()
    if not statuses:
        raise errors[0]
    while True:
        width, height = _terminal()
        lines = as_table(statuses, width).splitlines() if statuses else []
        lines += [f'warning: {line}' for status in statuses for line in status.problems]
        lines += [f'error: {error}' for error in errors]
        if len(lines) > height - 2:
            lines = [*lines[: height - 3], f'... and {len(lines) - height + 3} more lines: make the window taller']
        start = _CLEAR if sys.stdout.isatty() else ''
        print(f'{start}{time.strftime("%H:%M:%S")}', *lines, sep='\n', flush=True)
        time.sleep(interval_secs)
        statuses, errors = runs.read()


def _terminal() -> tuple[int, int]:
    return shutil.get_terminal_size(fallback=(_UNLIMITED, _UNLIMITED))


def main(arguments: list[str] | None = None) -> int:
    """Shows runs.

    Returns:
        The exit status: 0; 1 if a folder cannot be read or has no run; 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog='python -m engine.runs', description=__doc__)
    parser.add_argument('train_dir', nargs='+', type=os.path.expanduser, help='a train_dir, or a folder of several')
    parser.add_argument('--format', choices=('table', *FORMATS), default='table', help='default: table')
    parser.add_argument('--watch', action='store_true', help='redraw the table until Ctrl-C')
    parser.add_argument('--interval_secs', type=float, help=f'seconds between drawings; default: {_INTERVAL_SECS:g}')
    options = parser.parse_args(arguments)
    if options.watch and options.format != 'table':
        parser.error(f'--format={options.format}: --watch draws a table; leave one of them out')
    if options.interval_secs is not None and not options.watch:
        parser.error(f'--interval_secs={options.interval_secs:g}: has no effect without --watch; leave it out')
    interval_secs = _INTERVAL_SECS if options.interval_secs is None else options.interval_secs
    if not _SHORTEST <= interval_secs <= _LONGEST:
        parser.error(f'--interval_secs={interval_secs:g}: must be from {_SHORTEST} to {_LONGEST}')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # a terminal may lack letters of a name
    runs = Runs(options.train_dir)

    def run() -> int:
        if options.watch:
            watch(runs, interval_secs)
        return show(runs, options.format)

    return cli.exit_status(run)


if __name__ == '__main__':
    sys.exit(main())
