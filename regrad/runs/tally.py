"""How often each score occurs, in a bounded memory: what every number and curve of a report is computed from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Distinct values that a tally keeps apart, about. Two million doubles with their counts are 32 MiB.
CELLS = 2**21
_SIGN = np.int64(2**63 - 1)


class Tally:
    """n(v) = number of images with the value v, for v in ascending order.

    While there are at most ``cells`` distinct values the counts are exact. Beyond that the last bits of every value
    are dropped, as many as it takes, so that neighbouring values share a cell: with the two million cells of the
    default, values of one power of ten then still differ in 19 bits or so. How far a metric of the cells can be off
    is bounded by :func:`regrad.metrics.counted.auroc_error`.

    Args:
        cells: how many distinct values are kept apart.
    """

    def __init__(self, cells: int = CELLS):
        self.cells = cells
        self.shift = 0
        self._keys: Ints = np.empty(0, np.int64)
        self._counts: Ints = np.empty(0, np.int64)
        self._waiting: list[Ints] = []

    def add(self, values: Floats) -> None:
        """Count ``values`` (n,) without a NaN; infinities count as the largest finite number."""
        self._waiting.append(_encode(values))
        if sum(map(len, self._waiting)) > self.cells:
            self._merge()

    @property
    def images(self) -> int:
        """How many values were counted."""
        return int(self._counts.sum()) + sum(map(len, self._waiting))

    def keys(self) -> Ints:
        """(k,) ascending integers that order the cells as their values do."""
        self._merge()
        return self._keys

    def counts(self) -> Ints:
        """(k,) images of each cell."""
        self._merge()
        return self._counts

    def _merge(self) -> None:
        if not self._waiting:
            return
        new, counts = _runs(np.sort(np.concatenate(self._waiting) >> self.shift))
        self._waiting = []
        keys = np.concatenate([self._keys, new])
        order = np.argsort(keys, kind="stable")  # two ascending halves: a stable sort merges them in linear time
        self._keys, self._counts = _runs(keys[order], np.concatenate([self._counts, counts])[order])
        while self._keys.size > self.cells:
            self.shift += 1
            self._keys, self._counts = _runs(self._keys >> 1, self._counts)


class Judged:
    """The tallies of one score: of images without a usable label, of right predictions and of wrong ones."""

    def __init__(self) -> None:
        self.tallies = (Tally(), Tally(), Tally())

    def add(self, values: Floats, kinds: Ints) -> None:
        """Count ``values`` (n,) without a NaN, by :func:`kinds_of`."""
        for kind, tally in enumerate(self.tallies):
            tally.add(values[kinds == kind])

    def errors(self) -> tuple[Floats, Ints, Ints]:
        """The distinct values (k,), ascending, and the right and wrong predictions of each (k,)."""
        values, (right, wrong) = join_tallies(self.tallies[1:])
        return values, right, wrong


def kinds_of(labelled: Bools, right: Bools) -> Ints:
    """(n,) 0 where there is no usable label, 1 where the prediction is right, 2 where it is wrong."""
    return np.where(right, 1, np.where(labelled, 2, 0))


def align_counts(tallied: Sequence[Judged]) -> tuple[Floats, list[Ints], bool]:
    """The distinct values of any of ``tallied`` (k,), ascending, and the images of each of them (k,), of every kind.

    The third value says whether they are exact, or cells that were merged.
    """
    tallies = [tally for item in tallied for tally in item.tallies]
    values, counts = join_tallies(tallies)
    sums = [np.sum(counts[3 * place : 3 * place + 3], axis=0) for place in range(len(tallied))]
    return values, sums, all(tally.shift == 0 for tally in tallies)


def join_tallies(tallies: Sequence[Tally]) -> tuple[Floats, list[Ints]]:
    """The values of the cells that any of ``tallies`` holds, ascending (k,), and the counts of each tally (k,).

    A value that stands for a cell is the cell's smallest. Cells are as wide as those of the coarsest tally.
    """
    shift = max(tally.shift for tally in tallies)
    keys = [tally.keys() >> (shift - tally.shift) for tally in tallies]
    # Each part ascends, so a stable sort merges them; numpy's unique would hash millions of values instead.
    common, _ = _runs(np.sort(np.concatenate(keys), kind="stable"))
    aligned = []
    for own, tally in zip(keys, tallies, strict=True):
        counts = np.zeros(common.size, np.int64)
        np.add.at(counts, np.searchsorted(common, own), tally.counts())
        aligned.append(counts)
    return _decode(common, shift), aligned


def _encode(values: Floats) -> Ints:
    """Integers in the order of the values: the bits of a double are, once those of negative ones are turned over."""
    largest = np.finfo(np.float64).max
    bits = (np.clip(values, -largest, largest) + 0.0).view(np.int64)  # + 0.0 makes -0.0 equal 0.0
    return bits ^ ((bits >> 63) & _SIGN)


def _decode(keys: Ints, shift: int) -> Floats:
    bits = keys << shift
    return (bits ^ ((bits >> 63) & _SIGN)).view(np.float64)


def _runs(keys: Ints, counts: Ints | None = None) -> tuple[Ints, Ints]:
    """Each of the sorted ``keys`` once, and how often it occurred, or the sum of its ``counts``."""
    if not keys.size:
        return keys, np.empty(0, np.int64)
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    totals = np.diff(np.r_[starts, keys.size]) if counts is None else np.add.reduceat(counts, starts)
    return keys[starts], totals
