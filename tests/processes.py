"""Training in processes of its own, which tests kill, stop and signal, and how its folder is compared with another's.

The processes are forked from a server that has TensorFlow loaded, which takes seconds otherwise.
"""

import contextlib
import json
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tensorflow as tf

from configs.options import to_flagfile
from engine import checkpoints
from engine.training import best_checkpoint
from tests.runs import saved_values, small_config

ROOT = Path(__file__).resolve().parents[1]
STEPS, BEGUN = 120, 40
# Everything that has a state or is random: dropout, augmentation, slots, moving averages, evaluations, the best one.
RUN = {
    'preprocessing_name': 'inception',
    'train_image_size': 8,
    'optimizer': 'rmsprop',
    'learning_rate': 0.003,
    'moving_average_decay': 0.9,
    'max_number_of_steps': STEPS,
    'save_interval_steps': 5,
    'max_checkpoints_to_keep': 3,
    'eval_every_steps': 40,
    'eval_split_name': 'test[:40]',
    'devices': 'cpu',
}


DATA, INDEX = '.data-00000-of-00001', '.index'


def _kill_at(path: str) -> None:
    """Ends this process, as `kill -9` does, where a file is to get this path, or, if it begins with `-`, to lose it."""

    def or_die(function: Callable, sign: str = '') -> Callable:
        def call(*paths: str, **options: bool) -> None:
            if f'{sign}{paths[-1]}' == path:
                os.kill(os.getpid(), signal.SIGKILL)
            function(*paths, **options)

        return call

    os.replace, tf.io.gfile.rename = or_die(os.replace), or_die(tf.io.gfile.rename)
    tf.io.gfile.remove = or_die(tf.io.gfile.remove, sign='-')


def _train_in_child(
    arguments: Sequence[str], output: str | Connection, largest_file: int | None, killed_at: str | None
) -> None:
    """Runs the training script as a shell would, its output in a file or a pipe."""
    if killed_at is not None:
        _kill_at(killed_at)
    with open(output, 'ab') if isinstance(output, str) else output as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, 'w', buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    if largest_file is not None:  # the nearest to a full disk that needs no file system of its own
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = ['train_image_classifier.py', *arguments]
    os.chdir(ROOT)
    runpy.run_path(sys.argv[0], run_name='__main__')


def wait_for(condition: Callable[[], bool], process, output: Callable[[], str] = str) -> bool:
    """Waits until something is true, or the process has ended; says whether it is true."""
    deadline = time.monotonic() + 60
    while not (is_true := condition()) and process.is_alive():
        assert time.monotonic() < deadline, output()
        time.sleep(0.001)
    return is_true


def _index(data: Path) -> str:
    return data.name.removesuffix(DATA) + INDEX


class Run:
    """A folder, and the processes that train in it one after the other."""

    def __init__(self, server, train_dir: Path, digits_dir: Path, **options):
        self.train_dir = train_dir
        self._server, self._log = server, train_dir.with_name(f'{train_dir.name}.log')
        self._flagfile = train_dir.with_name(f'{train_dir.name}.cfg')
        self._flagfile.write_text(to_flagfile(small_config(digits_dir, train_dir, **{**RUN, **options})))

    def start(
        self,
        *flags: str,
        output: Connection | None = None,
        largest_file: int | None = None,
        killed_at: str | None = None,
    ):
        arguments = ([f'--flagfile={self._flagfile}', *flags], output or str(self._log), largest_file, killed_at)
        process = self._server.Process(target=_train_in_child, args=arguments, daemon=True)
        process.start()
        return process

    def finish(self, *flags: str) -> int:
        """Trains until the process ends by itself; returns its exit status."""
        return self._end(self.start(*flags))

    def finish_within(self, largest_file: int, *flags: str) -> tuple[int, str]:
        """Trains with a limit on the size of files, in bytes; returns the exit status and the output."""
        reader, writer = self._server.Pipe(duplex=False)  # the limit would hold for a log file too
        process = self.start(*flags, output=writer, largest_file=largest_file)
        writer.close()
        status, output = self._end(process), b''
        while piece := os.read(reader.fileno(), 1 << 16):
            output += piece
        return status, output.decode()

    def _end(self, process) -> int:
        process.join(120)
        is_over = process.exitcode is not None
        if not is_over:
            process.kill()
        assert is_over, self.output()
        return process.exitcode

    def output(self) -> str:
        return self._log.read_text() if self._log.exists() else ''

    def steps(self) -> list[int]:
        return [checkpoints.checkpoint_step(prefix) for prefix in checkpoints.list_checkpoints(str(self.train_dir))]

    def last(self) -> int:
        return max(self.steps(), default=-1)

    def wait_for(self, condition: Callable[[], bool], process) -> bool:
        """Waits until something is true, or the process has ended; says whether it is true."""
        return wait_for(condition, process, self.output)

    def wait_for_save(self, process) -> None:
        """Waits until the process has saved a checkpoint of its own."""
        before = self.last()
        self.wait_for(lambda: self.last() > before, process)

    def parts(self, folder: str = '.') -> set[tuple[str, int, int]]:
        """Returns incomplete checkpoints by name, inode and time: parts, and data without its index."""
        found = set()
        with contextlib.suppress(FileNotFoundError):  # it is renamed while we look
            for path in (self.train_dir / folder).iterdir():
                is_data = path.name.startswith('model.ckpt-') and path.name.endswith(DATA)
                if path.name.startswith('.part-') or (is_data and not path.with_name(_index(path)).exists()):
                    found.add((path.name, path.stat().st_ino, path.stat().st_mtime_ns))
        return found

    def differences(self, other: 'Run') -> list[str]:
        """Lists what is not the same in the end: variables, evaluations, the best checkpoint, files left over."""
        history, expected_history = (run.evaluations() for run in (self, other))
        found = [] if history == expected_history else [f'{history} is not {expected_history}']
        for folder in ('.', 'best'):
            ours, theirs = (checkpoints.find_checkpoint(str(run.train_dir / folder)) for run in (self, other))
            if os.path.basename(ours) != os.path.basename(theirs):
                return [*found, f'{ours} is not {theirs}']
            values, expected = saved_values(ours), saved_values(theirs)
            found += sorted(set(values) ^ set(expected))
            found += [name for name in expected if values[name].tobytes() != expected[name].tobytes()]
            names, expected_names = (run.file_names(folder) for run in (self, other))
            found += [f'{folder}/{name}' for name in sorted(names ^ expected_names)]
        return found

    def file_names(self, folder: str) -> set[str]:
        return {path.name for path in (self.train_dir / folder).iterdir() if 'tfevents' not in path.name}

    def evaluations(self) -> list[dict]:
        return json.loads((self.train_dir / best_checkpoint.HISTORY).read_text())


class Fault:
    """A row of the table that `make test` prints; what is injected stands in it even if the test then fails."""

    def __init__(self, name: str, record_property: Callable[[str, object], None]):
        self._row: list[Any] = [name, 0, 0, None]
        record_property('fault', self._row)

    @property
    def injected(self) -> int:
        return self._row[1]

    def inject(self) -> None:
        self._row[1] += 1

    def survived(self, differences: list[str]) -> None:
        self._row[2:] = [0 if differences else self.injected, len(differences)]
        assert not differences
