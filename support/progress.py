"""Progress of long work: a bar with the time left on a terminal, plain lines elsewhere."""

import sys
import time

from absl import logging
from tqdm import tqdm

from support import console

# A short bar leaves room on 80 columns for loss, learning rate, speed and the share of time spent waiting.
_BAR = '{desc} {n_fmt}/{total_fmt} {bar:8} {remaining}{postfix}'


class Progress:
    """Shows progress in steps; the total may be unknown.

    with Progress('training', total=1000, first=0) as progress:
        progress.report(100, 'loss = 2.3021')
    """

    def __init__(self, what: str, total: int | None, first: int = 0, unit: str = 'step'):
        self._what = what
        self._total, self._first = total, first
        self._start = time.monotonic()
        self._bar = None
        if console.has_bars():
            layout = None if total is None else _BAR  # tqdm's own, which needs no total
            self._bar = tqdm(total=total, initial=first, desc=what, unit=unit, dynamic_ncols=True, bar_format=layout)

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def report(self, position: int, text: str, brief: str = '') -> None:
        """Moves the bar to `position` and shows `brief` beside it; without a bar, logs `text` with the time left."""
        if self._bar is not None:
            self._bar.set_postfix_str(brief, refresh=False)
            self._bar.update(position - self._bar.n)
        else:
            logging.info('%s%s', text, self._time_left(position))

    def count_from(self, position: int) -> None:
        """Restarts the estimate of the time left at `position`: earlier steps include compilation."""
        self._first, self._start = position, time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            logging.info('%s', text)

    def _time_left(self, position: int) -> str:
        if self._total is None or position <= self._first:
            return ''
        seconds = (time.monotonic() - self._start) / (position - self._first) * (self._total - position)
        return f', {seconds / 60:.0f} min left' if seconds >= 90 else f', {seconds:.0f} s left'
