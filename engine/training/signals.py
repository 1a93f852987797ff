"""Signals that training handles between its steps.

with TrainingSignals() as signals:
    while not signals.is_set(): ...
    if signals.take_save_request(): ...

SIGTERM and SIGINT (Ctrl-C) end training after the current steps, SIGUSR1 requests a checkpoint.
"""

import contextlib
import os
import signal
import threading
import time
from types import FrameType

from absl import logging

_STOPPING = (signal.SIGTERM, signal.SIGINT)
# Schedulers signal both a launcher and its processes, so a process gets the signal again from the launcher.
_SECONDS_OF_ONE = 1.0


class TrainingSignals:
    """Records the first SIGTERM or SIGINT and each SIGUSR1; another SIGTERM or SIGINT over a second later ends at once.

    Python runs a signal handler only between two of its own instructions, and TensorFlow may block without end if no
    data arrives. So the interpreter's C handler, which runs at once, passes the numbers through a pipe to a thread.

    Attributes:
        received: Number of the signal that ends training, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._save_requested = threading.Event()
        self._undo = contextlib.ExitStack()

    def is_set(self) -> bool:
        """Returns whether a signal to end has arrived."""
        return self.received is not None

    def stop_as(self, number: int) -> None:
        """Records a signal that another worker has received, to end training."""
        self.received = number

    def take_save_request(self) -> bool:
        """Returns whether SIGUSR1 has arrived since the last call."""
        requested = self._save_requested.is_set()
        if requested:
            self._save_requested.clear()
        return requested

    def __enter__(self) -> 'TrainingSignals':
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            with self._undo:
                self._listen()
                self._undo = self._undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _listen(self) -> None:
        reading_end, writing_end = os.pipe()
        os.set_blocking(writing_end, False)
        watcher = threading.Thread(target=self._watch, args=(reading_end,), daemon=True)
        self._undo.callback(os.close, reading_end)
        self._undo.callback(watcher.join)
        self._undo.callback(os.close, writing_end)  # ends the watcher
        watcher.start()
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing_end, warn_on_full_buffer=False))
        for number in (*_STOPPING, signal.SIGUSR1):
            self._undo.callback(signal.signal, number, signal.signal(number, _leave_to_watcher))

    def _watch(self, reading_end: int) -> None:
        while received := os.read(reading_end, 1):
            self._note(received[0])

    def _note(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self._save_requested.set()
        elif number in _STOPPING:
            now = time.monotonic()
            if self.received is not None and now - self._received_at > _SECONDS_OF_ONE:
                os._exit(128 + number)  # the main thread may be blocked without end
            if self.received is not None:
                return
            self.received, self._received_at = number, now
            logging.info(
                '%s: saving after the current steps; a second signal ends at once', signal.Signals(number).name
            )


def _leave_to_watcher(number: int, frame: FrameType | None) -> None:
    del number, frame
