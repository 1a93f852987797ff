"""A pool of worker processes, which end when their parent does, however it ends.

    with WorkerPool(2, prepare) as pool:
        pool.submit('some key', function, argument)      # a module-level function
        for key, result in pool.results():               # in order of completion; more may be submitted meanwhile
            ...

TensorFlow is imported once, in a server process that forks the workers: a worker then needs 30 MB of its own
and 30 ms to start, instead of 270 MB and 3 s.
"""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Hashable, Iterator
from multiprocessing import connection, forkserver, process
from typing import Any

from support import console
from support.errors import InputError

_PRELOAD = ['tensorflow', 'PIL.Image']
_ENDED_BY_PARENT = 1


def _start_server() -> None:
    """Starts the server process that forks the workers, unless it is running; does not wait for it."""
    forkserver.set_forkserver_preload(_PRELOAD)
    # Ctrl-C reaches every process of a terminal, and `kill` may reach a whole group; only the parent should react.
    # Holds back what TensorFlow prints there, during import and later; faults of images are reported in our own words.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
        with console.kept_stderr():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class WorkerPool:
    """Runs tasks in several processes, one at a time in each."""

    def __init__(self, num_processes: int, prepare: Callable[[], object]):
        """Starts the processes, each of which first calls `prepare`.

        Args:
            num_processes: Number of processes.
            prepare: A module-level function.
        """
        _start_server()
        self._queue: collections.deque[tuple[Hashable, Callable, tuple[Any, ...]]] = collections.deque()
        self._running: dict[connection.Connection, Hashable] = {}
        self._processes: dict[connection.Connection, process.BaseProcess] = {}
        context = multiprocessing.get_context('forkserver')
        with contextlib.ExitStack() as stack:
            stack.callback(self._kill)
            for _ in range(num_processes):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_work, args=(theirs, prepare), daemon=True)
                worker.start()
                theirs.close()
                self._processes[ours] = worker
            stack.pop_all()
        self._idle = list(self._processes)

    def __enter__(self) -> 'WorkerPool':
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()

    def _kill(self) -> None:
        for pipe, worker in self._processes.items():
            worker.kill()
            pipe.close()
        for worker in self._processes.values():
            worker.join()

    def submit(self, key: Hashable, function: Callable, *arguments: Any, first: bool = False) -> None:
        """Adds a task to the end of the queue, or to its front."""
        task = (key, function, arguments)
        if first:
            self._queue.appendleft(task)
        else:
            self._queue.append(task)

    def results(self) -> Iterator[tuple[Any, Any]]:
        """Yields key and result of each task on completion, until the queue is empty.

        Raises:
            InputError: A task raised it, or a process was killed.
            RuntimeError: A task failed otherwise; the text has its traceback.
        """
        while self._queue or self._running:
            while self._queue and self._idle:
                key, function, arguments = self._queue.popleft()
                pipe = self._idle.pop()
                self._running[pipe] = key
                with contextlib.suppress(ConnectionError):  # reported when the pipe is read, below
                    pipe.send((function, arguments))
            for ready in connection.wait(list(self._running)):
                assert isinstance(ready, connection.Connection)
                result = self._receive(ready)
                self._idle.append(ready)
                yield self._running.pop(ready), result

    def _receive(self, pipe: connection.Connection) -> Any:
        try:
            result, error = pipe.recv()
        except (EOFError, ConnectionError):
            worker = self._processes[pipe]
            worker.join()
            raise InputError(
                f'a worker process ended with exit code {worker.exitcode}'
                f'{" (killed, perhaps out of memory; try fewer --num_processes)" if worker.exitcode == -9 else ""}'
            ) from None
        if error is not None:
            raise error
        return result


def _work(pipe: connection.Connection, prepare: Callable[[], object]) -> None:
    """Runs tasks until the other end of the pipe is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(_do(function, arguments))


def _do(function: Callable, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return function(*arguments), None
    except InputError as error:
        return None, InputError(str(error))
    except Exception:
        return None, RuntimeError(f'a worker process failed:\n{traceback.format_exc()}')


def _end_with_parent() -> None:
    """Ends this process as soon as the pool's process has ended, even by `kill -9`."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(_ENDED_BY_PARENT)
