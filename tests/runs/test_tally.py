"""Counts are exact while there is room, and off by a stated bound beyond."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regrad import metrics
from regrad.metrics import counted
from regrad.runs.tally import Tally, join_tallies


def tally(values: np.ndarray, cells: int = 10**6, pieces: int = 3) -> Tally:
    made = Tally(cells)
    for piece in np.array_split(np.asarray(values, dtype=float), pieces):
        made.add(piece)
    return made


def test_distinct_values_are_counted() -> None:
    values = np.random.default_rng(0).integers(-5, 6, 1000) / 4
    found, (counts,) = join_tallies([tally(values)])
    expected, number = np.unique(values, return_counts=True)
    assert found.tolist() == expected.tolist()
    assert counts.tolist() == number.tolist()


def test_extreme_values_keep_their_order() -> None:
    values = [-math.inf, -1e308, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 1e308, math.inf]
    found, (counts,) = join_tallies([tally(np.array(values), pieces=4)])
    assert found[1:-1].tolist() == [-1e308, -1.0, -5e-324, 0.0, 5e-324, 1.0, 1e308]
    assert np.isfinite(found).all()
    assert counts.tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1]


def test_join_aligns_tallies_of_different_values() -> None:
    found, (first, second, none) = join_tallies([tally(np.array([1.0, 2, 2])), tally(np.array([2.0, 3])), Tally()])
    assert found.tolist() == [1, 2, 3]
    assert (first.tolist(), second.tolist(), none.tolist()) == ([1, 2, 0], [0, 1, 1], [0, 0, 0])


@pytest.mark.parametrize("cells", [64, 1000])
def test_beyond_the_cells_memory_is_bounded_and_so_is_the_error(cells: int) -> None:
    rng = np.random.default_rng(1)
    known, unknown = rng.lognormal(0, 1, 20_000) - 1, rng.lognormal(1, 1, 10_000) - 1
    coarse = [tally(known, cells, 50), tally(unknown, cells, 50)]
    assert all(0 < one.counts().size <= cells for one in coarse)
    assert [one.images for one in coarse] == [20_000, 10_000]
    values, counts = join_tallies(coarse)
    assert np.all(np.diff(values) > 0)
    difference = abs(counted.auroc(*counts) - metrics.auroc(known, unknown))
    assert difference <= counted.auroc_error(*counts) < 2 / cells**0.5
    # A cell is called by its smallest value: no image lies below the first one.
    assert values[0] <= min(known.min(), unknown.min())


def test_a_merged_infinity_stays_a_number() -> None:
    values = np.r_[np.random.default_rng(2).normal(size=5000), math.inf, -math.inf]
    found, _ = join_tallies([tally(values, 100)])
    assert np.isfinite(found).all()
