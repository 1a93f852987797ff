"""Intervals in steps or seconds."""

import math
import time


class Interval:
    """Every `steps` steps (which need not be whole) and every `seconds` seconds; 0 is never.

    With `at_first` also where it is first asked for.

    save = Interval(steps=1000, seconds=600)
    step = min(save.next_step(step), ...)      # no call of several steps goes beyond it
    if save.is_due(step): ...
    """

    def __init__(self, steps: float = 0, seconds: float = 0, at_first: bool = False):
        # Less than a step is every step, and would be counted up to in as many tries as it goes into one.
        self._steps, self._seconds, self._at_first = max(steps, 1) if steps else 0, seconds, at_first
        self._last = time.monotonic()

    def next_step(self, step: int) -> float:
        """Returns the first step after `step` at which it is due by steps; infinity if by time only."""
        if not self._steps:
            return math.inf
        times = math.floor(step / self._steps)
        while math.ceil(times * self._steps) <= step:
            times += 1
        return math.ceil(times * self._steps)

    def is_due(self, step: int) -> bool:
        """Returns whether it is due now, and begins to count the seconds anew if so."""
        by_steps = self.next_step(step - 1) == step
        by_time = self._seconds > 0 and time.monotonic() - self._last >= self._seconds
        at_first, self._at_first = self._at_first, False
        if by_steps or by_time:
            self._last = time.monotonic()
        return by_steps or by_time or at_first
