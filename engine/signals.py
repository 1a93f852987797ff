"""Stopping in an orderly way: SIGTERM and SIGINT (Ctrl-C) end training after the steps that are under way.

with StopSignals() as stop:
    while not stop.received: ...
"""

import signal
import threading
from types import FrameType

from absl import logging


class StopSignals:
    """Notes the first SIGTERM or SIGINT; the second one ends the process at once.

    Attributes:
        received: The signal's number, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def is_set(self) -> bool:
        """Says whether a signal has come."""
        return self.received is not None

    def __enter__(self) -> 'StopSignals':
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not allow it
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.received = number
        signal.signal(number, signal.SIG_DFL)
        logging.info('%s: saving after the steps under way; once more ends at once', signal.Signals(number).name)
