"""A cluster of several workers: gathers values, exchanges heartbeats, reports lost workers.

The chief has a connection to each of the other workers, and each of them has one to the chief.
"""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from engine.distributed.cluster import Cluster
from engine.distributed.peer import Peer, shown
from engine.distributed.tasks import Task
from support import console
from support.errors import WorkerLostError, first_line

_SECONDS_TO_END = 10.0
_PATIENCE = 1.0  # seconds to wait for a worker that does not read
_TIMES_LONGER_AT_FIRST = 10  # the first step compiles
_ADVICE = ', so all others end too; start all again: a training goes on from its last checkpoint'


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker, for messages and for TensorFlow.

    Attributes:
        index: Its number.
        address: host:port of its TensorFlow server.
        process: Its process and host, as text.
    """

    index: int
    address: str
    process: str

    def __str__(self) -> str:
        return f'worker {self.index} at {self.address} ({self.process})'


@dataclasses.dataclass
class _Heard:
    """The last heartbeats of a worker, in seconds of this process's monotonic clock."""

    last: float
    progress: int = -1
    since: float = 0.0
    is_working: bool = False

    def note(self, progress: int, is_working: bool) -> None:
        now = time.monotonic()
        self.last = now
        if progress != self.progress or is_working != self.is_working:
            self.progress, self.is_working, self.since = progress, is_working, now


class ConnectedCluster(Cluster):
    """A cluster of several workers, connected through the chief."""

    def __init__(self, task: Task, workers: Sequence[Worker], peers: Mapping[int, Peer], timeout: float):
        """Takes ownership of open connections and starts the threads that serve them.

        Args:
            peers: The connections by the number of the worker at the other end.
            timeout: Seconds after which a worker that is silent or makes no progress counts as lost.
        """
        self.index, self.count = task.index, task.count
        self.local_index, self.local_count = task.local_index, task.local_count
        self.addresses = tuple(worker.address for worker in workers)
        self._workers, self._peers, self._timeout = workers, peers, timeout
        self._news = threading.Condition()  # guards all attributes below
        self._values: dict[int, dict[int, Any]] = {}  # open rounds of `gather`: round -> worker -> value
        self._round = 0
        self._loss: WorkerLostError | None = None
        self._goodbyes: set[int] = set()
        self._heard = {worker.index: _Heard(time.monotonic()) for worker in workers}
        self._is_working, self._has_left = False, threading.Event()
        self._progress: Callable[[], int] = lambda: 0
        self._on_loss: Callable[[str], None] = lambda _: None
        self._last_resort: threading.Timer | None = None
        for index, peer in peers.items():
            threading.Thread(target=self._listen, args=(index, peer), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def gather(self, value: Any) -> list[Any]:
        number, self._round = self._round, self._round + 1
        if not self.is_chief:
            self._send({'value': value, 'round': number})
        with self._news:
            values = self._values.setdefault(number, {})
            values[self.index] = value
            self._wait(lambda: len(values) == self.count)
            del self._values[number]
        gathered = [values[index] for index in range(self.count)]
        if self.is_chief:
            self._send({'gathered': gathered, 'round': number})
        return gathered

    def watch(self, progress: Callable[[], int], on_loss: Callable[[str], None]) -> None:
        with self._news:
            self._progress, self._on_loss, loss = progress, on_loss, self._loss
        if loss is not None:
            on_loss(str(loss))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        self._is_working = True
        try:
            yield
        finally:
            self._is_working = False

    def loss(self, within: float = 0.0) -> WorkerLostError | None:
        with self._news:
            self._news.wait_for(lambda: self._loss is not None, within)
            return self._loss

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self._say_goodbye()
            elif not isinstance(error, WorkerLostError):
                why = first_line(error) if isinstance(error, Exception) else type(error).__name__
                self._send({'lost': f'{self._workers[self.index]} has failed: {why}', 'passing': False})
        finally:
            with self._news:
                self._has_left.set()
                if self._last_resort is not None:
                    self._last_resort.cancel()
            for peer in self._peers.values():
                peer.close()

    def _say_goodbye(self) -> None:
        """Waits until all workers leave: until then the others may need this worker's TensorFlow server."""
        if not self.is_chief:
            self._send({'bye': True})
        with self._news:
            self._wait(lambda: self._goodbyes == set(self._peers))
        if self.is_chief:
            self._send({'bye': True}, _PATIENCE)

    def _wait(self, is_there: Callable[[], bool]) -> None:
        """Waits, holding the lock, until a condition set by other threads is true; raises WorkerLostError on a loss."""
        self._news.wait_for(lambda: self._loss is not None or is_there())
        if self._loss is not None and not is_there():
            raise self._loss

    def _send(self, message: Mapping[str, Any], patience: float | None = None) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # the listening thread notices a lost worker
                peer.send(message, patience)

    # ------------------------------------------------------------------ in threads of their own

    def _listen(self, index: int, peer: Peer) -> None:
        """Handles a worker's messages until its connection ends."""
        while (message := peer.receive()) is not None and self._take(index, message):
            if 'lost' in message:
                self._lose(shown(message['lost']), is_transient=bool(message.get('passing', True)))
        if index not in self._goodbyes:
            self._lose(f'{self._workers[index]} has ended{_ADVICE}')

    def _take(self, index: int, message: Mapping[str, Any]) -> bool:
        """Records a worker's message; returns False if it is not valid."""
        if not is_of_worker(message, self.count):
            return False
        with self._news:
            if 'beat' in message:
                self._heard[index].note(message['beat'], message['working'])
            elif 'value' in message:
                self._values.setdefault(message['round'], {})[index] = message['value']
            elif 'gathered' in message:
                self._values.setdefault(message['round'], {}).update(enumerate(message['gathered']))
            elif 'bye' in message:
                self._goodbyes.add(index)
            self._news.notify_all()
        return True

    def _beat(self) -> None:
        """Sends heartbeats, and looks for workers that are silent or stuck."""
        interval = min(self._timeout / 8, 1.0)
        last = time.monotonic()
        while not self._has_left.wait(interval):
            before, now = last, time.monotonic()
            last = now
            progress = self._progress()
            # No waiting: a worker that does not read must not delay heartbeats to the others, nor its own detection.
            self._send({'beat': progress, 'working': self._is_working}, patience=0.0)
            with self._news:
                self._heard[self.index].note(progress, self._is_working)
                if now - before > 4 * interval + 1:  # this process was stopped meanwhile and heard nobody
                    for heard in self._heard.values():
                        heard.last = now
            lost = self._find_silent(now) or (self._find_stuck(now) if self.is_chief else None)
            if lost:
                self._lose(f'{lost}{_ADVICE}')

    def _find_silent(self, now: float) -> str | None:
        silent = [index for index in self._peers if now - self._heard[index].last > self._timeout]
        silent = [index for index in silent if index not in self._goodbyes]
        lost = f'{self._workers[silent[0]]} has not been heard of' if silent else None
        return lost and f'{lost} for {self._timeout:g} s (--worker_timeout_secs)'

    def _find_stuck(self, now: float) -> str | None:
        """Describes the worker with the least progress if no worker has made any for too long, else returns None."""
        heard = [self._heard[worker.index] for worker in self._workers]
        least = min(one.progress for one in heard)
        patience = self._timeout * (1 if least > 1 else _TIMES_LONGER_AT_FIRST)
        if not all(one.is_working and now - one.since > patience for one in heard):
            return None
        stuck = [worker for worker, one in zip(self._workers, heard, strict=True) if one.progress == least]
        who = f'{stuck[0]} has not' if len(stuck) < self.count else 'no worker has'
        return f'{who} gone on for {patience:g} s (--worker_timeout_secs), as if its data did not come'

    def _lose(self, why: str, is_transient: bool = True) -> None:
        """Records that the run is lost; notifies the other workers and this process's waiting threads."""
        with self._news:
            if self._loss is not None or self._has_left.is_set():
                return
            if self.is_chief:  # before the main thread is notified and leaves
                self._send({'lost': why, 'passing': is_transient}, _PATIENCE)
            self._loss, on_loss = WorkerLostError(why, is_transient), self._on_loss
            self._news.notify_all()
            # Ends the process if the main thread hangs elsewhere, e.g. reading from a disk that does not answer.
            self._last_resort = threading.Timer(_SECONDS_TO_END, _end_process, [self._loss])
            self._last_resort.daemon = True
            self._last_resort.start()
        for peer in self._peers.values():  # the main thread may be sending to a worker that does not read
            peer.close()
        on_loss(why)


def is_of_worker(message: Mapping[str, Any], count: int) -> bool:
    """Returns whether a message is valid from one of `count` workers that have joined."""
    if 'lost' in message:
        return isinstance(message['lost'], str)
    if 'beat' in message:
        return type(message['beat']) is int and isinstance(message.get('working'), bool)
    if 'value' in message:
        return type(message.get('round')) is int
    if 'gathered' in message:
        gathered = message['gathered']
        return type(message.get('round')) is int and isinstance(gathered, list) and len(gathered) == count
    return 'bye' in message


def _end_process(error: WorkerLostError) -> None:
    console.print_error(error)
    os._exit(os.EX_TEMPFAIL if error.is_transient else 1)
