"""Launches several workers on this machine, as processes of the same script that end together.

status = launch(2, sys.argv, os.environ)   # as `train_image_classifier.py --launch_workers=2` does

The workers share this process's output; each prefixes its lines with its number.
"""

import contextlib
import ctypes
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from engine.distributed.tasks import TOKEN, free_ports
from support.processor import usable_cores

_HOST = '127.0.0.1'
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# Other launchers' variables, which would contradict these workers' flags. TensorFlow itself also reads the first.
_OTHERS_NAMES = {'TF_CONFIG', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'}
_OTHERS_PREFIXES = ('OMPI_', 'PMIX_', 'SLURM_STEP_', 'TORCHELASTIC_')


def launch(
    count: int,
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    ending_secs: float = 15.0,
    saving_secs: float = 10.0,
) -> int:
    """Runs a script as `count` workers; returns when all have ended.

    SIGTERM, SIGINT and SIGUSR1 are forwarded to the workers; a second SIGTERM or SIGINT kills them.

    Args:
        ending_secs: Seconds that the other workers have to end by themselves after a failure, before SIGTERM.
        saving_secs: Seconds that they have after SIGTERM, before SIGKILL.

    Returns:
        The exit status, as in a shell, of the first worker that failed; 0 if none did.
    """
    hosts = ','.join(f'{_HOST}:{port}' for port in free_ports(_HOST, count))
    environment = _environment_of_worker(count, environment)
    with contextlib.ExitStack() as ending:
        workers: list[subprocess.Popen] = []
        ending.callback(_signal_all, workers, signal.SIGKILL)  # after any error here
        die_with_us = _make_die_with_us()
        for index in range(count):
            # The last flags win, even over a flagfile's --launch_workers, which may have led here.
            flags = [f'--worker_hosts={hosts}', f'--task={index}', '--launch_workers=0']
            # Each in a process group of its own, so that a signal to the whole group, from Ctrl-C or `timeout`, arrives
            # only once: a second signal would end a worker before it has saved.
            worker = subprocess.Popen(
                [sys.executable, *argv, *flags], env=environment, preexec_fn=die_with_us, process_group=0
            )
            workers.append(worker)
        group = _Group(workers, ending_secs, saving_secs)
        ending.enter_context(group.forwarding_signals())
        return group.wait()


def _environment_of_worker(count: int, environment: Mapping[str, str]) -> dict[str, str]:
    cores = usable_cores()
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _OTHERS_NAMES and not name.startswith(_OTHERS_PREFIXES)
    }
    return {'TF_NUM_INTRAOP_THREADS': str(max(1, cores // count)), TOKEN: secrets.token_hex(16), **kept}


def _make_die_with_us() -> Callable[[], None] | None:
    """Returns a function that makes a child process end with this one, for any reason (Linux only; else None)."""
    if sys.platform != 'linux':
        return None
    prctl, launcher = ctypes.CDLL(None).prctl, os.getpid()  # looked up here: a forked process should not load libraries

    def die_with_us() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # it has ended already
            os._exit(1)

    return die_with_us


def _signal_all(workers: Sequence[subprocess.Popen], number: int) -> None:
    for worker in workers:
        worker.send_signal(number)  # does nothing if the worker has ended


class _Group:
    """Running workers: one thread per worker waits for its end, and the main thread for the next to end."""

    def __init__(self, workers: Sequence[subprocess.Popen], ending_secs: float, saving_secs: float):
        self._workers = workers
        # Signals to the other workers after a failure, in this order, each after its delay in seconds.
        self._measures = [(ending_secs, signal.SIGTERM), (saving_secs, signal.SIGKILL)]
        self._next_measure: float | None = None  # when it is due
        self._asked: signal.Signals | None = None
        self._ended: queue.Queue[int] = queue.Queue()
        for index in range(len(workers)):
            threading.Thread(target=self._wait_for, args=(index,), daemon=True).start()

    def _wait_for(self, index: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # signals must interrupt the main thread's wait
        self._workers[index].wait()
        self._ended.put(index)

    @contextlib.contextmanager
    def forwarding_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._forward) for number in _FORWARDED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        del frame
        if number != signal.SIGUSR1:
            if self._asked:
                number = signal.SIGKILL
            self._asked = self._asked or signal.Signals(number)
        _signal_all(self._workers, number)

    def wait(self) -> int:
        """Waits until all workers have ended; returns the first non-zero status, or 0."""
        first = 0
        for _ in self._workers:
            index = self._next_to_end()
            status = _status(self._workers[index].returncode)
            first = first or status
            # A worker that ends by the forwarded signal has not failed: the others may still be saving.
            if status and not (self._asked and status == 128 + self._asked):
                self._report(index, status)
                if self._next_measure is None:
                    self._schedule()
        return first

    def _next_to_end(self) -> int:
        while True:
            due = self._next_measure
            try:
                return self._ended.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                _signal_all(self._workers, self._measures.pop(0)[1])
                self._schedule()

    def _schedule(self) -> None:
        self._next_measure = time.monotonic() + self._measures[0][0] if self._measures else None

    def _report(self, index: int, status: int) -> None:
        name = signal.strsignal(status - 128) if status - 128 in signal.valid_signals() else None
        reason = f' ({name.lower()})' if name else ''
        process = self._workers[index].pid
        print(f'worker {index} (process {process}) ended with status {status}{reason}', file=sys.stderr, flush=True)


def _status(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode
