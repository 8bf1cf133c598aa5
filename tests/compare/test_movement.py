"""How one score moved, against numpy and scipy on the same rows, with ties, missing values and merged cells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.stats

from regrad.compare.movement import GRID, Movement, read_ranks
from regrad.runs import scored
from regrad.runs.pairs import Pairs

RNG = np.random.default_rng(1)
COUNT = 240
A = RNG.integers(0, 12, COUNT).astype(float)  # mostly ties
B = (A + RNG.integers(-3, 4, COUNT)).astype(float)
B[[5, 9]] = math.nan, math.inf
A[17] = math.nan
THERE = np.isfinite(A) & np.isfinite(B)
LABELS = RNG.integers(0, 10, COUNT)
PREDICTIONS = np.where(RNG.random(COUNT) < 0.8, LABELS, (LABELS + 1) % 10)


@pytest.fixture
def pairs(write_run: Any) -> Iterator[Pairs]:
    given = {"labels": LABELS.tolist(), "predictions": PREDICTIONS.tolist()}
    runs = [
        scored.load_run(name, write_run("digits", {"s": values}, **given, folder=name))
        for name, values in (("A", A), ("B", B))
    ]
    with Pairs(runs[0], runs[1], ["s"]) as joined:
        yield joined


def test_the_first_reading(pairs: Pairs) -> None:
    movement = Movement.of(pairs, "s")
    moved = (B - A)[THERE]
    assert (movement.pairs, movement.left_out) == (THERE.sum(), 3)
    told = movement.difference()
    assert told["mean"]["value"] == pytest.approx(moved.mean())
    assert told["median"]["value"] == np.quantile(moved, 0.5, method="inverted_cdf")
    low, high = told["median"]["interval"]
    assert low <= told["median"]["value"] <= high
    for side, values in enumerate((A, B)):
        distinct, images, exact = movement.distribution(side)
        expected = np.unique(values[THERE], return_counts=True)
        assert exact
        np.testing.assert_array_equal(distinct, expected[0])
        np.testing.assert_array_equal(images, expected[1])


def test_errors_are_judged_on_the_pairs_that_both_have(pairs: Pairs) -> None:
    from sklearn.metrics import roc_auc_score

    errors = Movement.of(pairs, "s").errors()
    assert errors is not None
    wrong = (PREDICTIONS != LABELS)[THERE]
    expected = [roc_auc_score(wrong, values[THERE]) for values in (A, B)]
    assert errors["auroc"] == pytest.approx(expected)


def test_the_second_reading(pairs: Pairs) -> None:
    movement = Movement.of(pairs, "s")
    ranks = read_ranks(pairs, movement, (8.0, 9.0), top=7)
    first, second = A[THERE], B[THERE]
    assert ranks.correlation == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-12)
    assert ranks.flagged == [(first > 8).sum(), (second > 9).sum(), ((first > 8) & (second > 9)).sum()]
    bins = [
        np.clip(np.searchsorted(ranks.plane[side]["edges"], value, side="right") - 1, 0, GRID - 1)
        for side, value in (("a", first), ("b", second))
    ]
    plane = np.zeros((GRID, GRID), int)
    np.add.at(plane, (bins[1], bins[0]), 1)  # a row for each bin of b
    assert ranks.plane["images"] == plane.tolist()
    share = [scipy.stats.rankdata(value) / len(value) for value in (first, second)]
    moved = np.sort(share[1] - share[0])
    risen, fallen = ranks.moved
    assert [row["b.rank"] - row["a.rank"] for row in risen] == pytest.approx(moved[::-1][:4])
    assert [row["b.rank"] - row["a.rank"] for row in fallen] == pytest.approx(moved[:3])


def test_nothing_is_flagged_or_listed_where_it_was_not_asked_for(pairs: Pairs) -> None:
    ranks = read_ranks(pairs, Movement.of(pairs, "s"), None, top=0)
    assert (ranks.flagged, ranks.moved) == (None, ([], []))


def test_nothing_moved_where_both_are_the_same(write_run: Any) -> None:
    runs = [scored.load_run(name, write_run("digits", {"s": A}, folder=f"same-{name}")) for name in "AB"]
    with Pairs(runs[0], runs[1], ["s"]) as same:
        ranks = read_ranks(same, Movement.of(same, "s"), None, top=6)
    assert ranks.correlation == pytest.approx(1)
    assert ranks.moved == ([], [])


def test_separation_of_two_sets(pairs: Pairs, write_run: Any) -> None:
    from sklearn.metrics import roc_auc_score

    others = [RNG.integers(4, 16, 60).astype(float) for _ in range(2)]
    runs = [
        scored.load_run(name, write_run("photos", {"s": values}, folder=f"photos-{name}"))
        for name, values in zip("AB", others, strict=True)
    ]
    with Pairs(runs[0], runs[1], ["s"]) as unknown:
        told = Movement.of(pairs, "s").separation(Movement.of(unknown, "s"))
    expected = [
        roc_auc_score([0] * THERE.sum() + [1] * 60, np.r_[known[THERE], other])
        for known, other in zip((A, B), others, strict=True)
    ]
    assert told.auroc == pytest.approx(expected)
    assert told.error == 0.0
