"""A sample of a run's labelled rows with several scores each: for what compares scores image by image."""

from __future__ import annotations

import numpy as np

from regrad.metrics.paired import SAMPLE
from regrad.runs.pairs import FACTOR, Keys, mixed
from regrad.runs.scored import Bools, Floats


class Sampled:
    """The ``size`` rows with the smallest keys, or all there are; a key is a hash of the row's own numbers.

    As good as drawn at random, and the same whatever the order of the rows. Memory does not grow with them.

    Args:
        scores: how many values a row has.
        size: how many rows are kept.

    Attributes:
        images: how many rows were offered.
    """

    def __init__(self, scores: int, size: int = SAMPLE):
        self.size, self.images = size, 0
        self._factors = np.multiply.accumulate(np.full(scores + 1, FACTOR, np.uint64))
        self._waiting: list[tuple[Keys, Floats]] = [(np.empty(0, np.uint64), np.empty((0, scores + 1)))]

    def add(self, values: Floats, wrong: Bools) -> None:
        """Offer rows: (n, s) values, NaN where there is none, and (n,) whether the prediction was wrong."""
        self.images += len(values)
        rows = np.column_stack([values, wrong]) + 0.0  # + 0.0 makes -0.0 equal 0.0
        with np.errstate(over="ignore"):
            keys = mixed((rows.view(np.uint64) * self._factors).sum(axis=1, dtype=np.uint64))
        self._waiting.append((keys, rows))
        if sum(len(held) for held, _ in self._waiting) > 2 * self.size:
            self._cut()

    def rows(self) -> tuple[Floats, Bools]:
        """The values (m, s) of the rows that are kept, in the order of their keys, and (m,) whether they are wrong."""
        self._cut()
        rows = self._waiting[0][1]
        return rows[:, :-1], rows[:, -1] > 0

    def _cut(self) -> None:
        keys = np.concatenate([held for held, _ in self._waiting])
        rows = np.concatenate([held for _, held in self._waiting])
        order = np.argsort(keys, kind="stable")[: self.size]
        self._waiting = [(keys[order], rows[order])]
