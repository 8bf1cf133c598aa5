"""How a run tells that it goes on: one live line on a terminal, a line every half minute elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from typing import TextIO

from regrad.formatting import duration

_WINDOW = 30.0  # seconds over which the speed is taken
_PERIODS = {True: 0.5, False: 30.0}


class Progress:
    """Shows images done, images/s, the time left and how many were quarantined.

    Args:
        expected: images to do; ``exact`` False marks it as an estimate.
        stream: where to; a live line if it is a terminal.
    """

    def __init__(self, expected: int, exact: bool = True, stream: TextIO | None = None):
        self.expected = expected
        self.exact = exact
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._shown = 0.0 if self.live else time.monotonic()
        self._drawn = False
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])

    def update(self, scored: int, quarantined: int) -> None:
        """Take note of the counts so far; show them when it is time."""
        now = time.monotonic()
        done = scored + quarantined
        if done != self._history[-1][1]:
            self._history.append((now, done))
            while len(self._history) > 2 and now - self._history[0][0] > _WINDOW:
                self._history.popleft()
        if now - self._shown >= _PERIODS[self.live]:
            self._shown = now
            self._show(self.line(done, quarantined))

    def line(self, done: int, quarantined: int) -> str:
        """``DONE of EXPECTED images, images/s, time left, quarantined``, at the speed of the last half minute."""
        (first, before), (last, now) = self._history[0], self._history[-1]
        speed = (now - before) / (last - first) if last > first else 0.0
        total = f" of {'' if self.exact else 'about '}{self.expected}" if self.expected else ""
        left = max(self.expected - done, 0)
        eta = f", {duration(left / speed)} left" if speed and left else ""
        return f"{done}{total} images, {speed:.3g} images/s{eta}, {quarantined} quarantined"

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.clear()
        print(text, file=self.stream, flush=True)

    def clear(self) -> None:
        """Take the live line away."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._drawn = False

    def _show(self, text: str) -> None:
        if not self.live:
            print(text, file=self.stream, flush=True)
            return
        width = shutil.get_terminal_size().columns
        self.stream.write("\r\x1b[K" + text[: width - 1])
        self.stream.flush()
        self._drawn = True
