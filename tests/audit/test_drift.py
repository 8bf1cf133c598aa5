"""Distances between distributions, against scipy on the values themselves and against the textbook's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from regrad.audit import drift

RNG = np.random.default_rng(0)


def counted(*samples: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    values = np.unique(np.concatenate(samples))
    return values, [np.bincount(np.searchsorted(values, sample), minlength=values.size) for sample in samples]


@pytest.mark.parametrize("decimals", [0, 1, 12])  # many ties, some, none
def test_ks_is_scipys_two_sample_test(decimals: int) -> None:
    a, b = RNG.normal(0, 1, 400).round(decimals), RNG.normal(0.2, 1.1, 900).round(decimals)
    _, (first, second) = counted(a, b)
    expected = scipy.stats.ks_2samp(a, b, method="asymp")
    statistic = drift.ks(first, second)
    assert statistic == pytest.approx(expected.statistic, abs=1e-12)
    assert drift.ks_p(statistic, 400, 900) == pytest.approx(expected.pvalue, rel=1e-9)


def test_on_the_baselines_grid_ks_falls_short_by_at_most_a_cell() -> None:
    reference, sample = RNG.normal(0, 1, 5000), RNG.normal(0.3, 1, 700)
    values, (images,) = counted(reference)
    grid = drift.Grid(values, images, cells=100)
    assert grid.cells == 100
    first, second = (np.bincount(grid.place(of), minlength=grid.cells) for of in (sample, reference))
    assert second.max() - second.min() <= 1  # equally many images in each
    exact = scipy.stats.ks_2samp(sample, reference).statistic
    assert exact - 0.01 <= drift.ks(first, second) <= exact


def test_a_grid_of_ties_has_the_cells_there_are() -> None:
    grid = drift.Grid(np.array([1.0, 2.0]), np.array([99, 1]))
    assert grid.cells <= 3
    assert len(set(grid.place(np.array([0.0, 1.0])))) == 1
    assert grid.place(np.array([1.0]))[0] < grid.place(np.array([1.5]))[0]


def test_psi_is_the_textbooks_sum() -> None:
    counts, reference = [30, 50, 20], [200, 500, 300]
    a = [(n + 0.5) / 101.5 for n in counts]
    e = [(n + 0.5) / 1001.5 for n in reference]
    expected = sum((x - y) * math.log(x / y) for x, y in zip(a, e, strict=True))
    assert drift.psi(np.array(counts), np.array(reference)) == pytest.approx(expected, rel=1e-12)
    assert math.isfinite(drift.psi(np.array([0, 100]), np.array([100, 0])))


@pytest.mark.parametrize("counts", [[0, 0, 5], [7] * 10, RNG.integers(0, 1000, 20).tolist()])
def test_psi_of_a_distribution_with_itself_is_nothing(counts: list[int]) -> None:
    assert drift.psi(np.array(counts), np.array(counts)) == pytest.approx(0, abs=1e-12)


def test_by_chance_the_psi_is_what_it_is_said_to_be() -> None:
    shares = np.full(10, 0.1)
    found = [drift.psi(RNG.multinomial(500, shares), RNG.multinomial(2000, shares)) for _ in range(400)]
    assert np.mean(found) == pytest.approx(drift.chance_psi(500, 2000, 10), rel=0.15)


def test_tenths_of_the_reference() -> None:
    counts, reference = drift.tenths(np.arange(1000), np.full(1000, 7))
    assert reference.tolist() == [700] * 10
    assert counts.sum() == np.arange(1000).sum()
    assert counts[0] == np.arange(100).sum()
    few = drift.tenths(np.array([3, 4]), np.array([95, 5]))  # one cell holds nine tenths
    assert [part.sum() for part in few] == [7, 100]
    assert len(few[0]) == 2


def test_shares_of_classes_are_compared_by_the_chi_squared_test() -> None:
    a, b = np.array([10, 20, 0, 5]), np.array([100, 210, 0, 90])
    expected = scipy.stats.chi2_contingency([[10, 20, 5], [100, 210, 90]]).pvalue
    assert drift.same_shares_p(a, b) == pytest.approx(expected)
    assert drift.same_shares_p(np.array([5, 0]), np.array([9, 0])) == 1.0


def test_many_slices_without_drift_are_rarely_called_drifted() -> None:
    """Of 2,000 slices without a drift some 20 have p < 0.01; after the correction it is none in most rounds."""
    rounds = [drift.adjusted(list(np.random.default_rng(seed).uniform(size=2000))) for seed in range(50)]
    assert sum(any(p is not None and p < 0.01 for p in ps) for ps in rounds) <= 5
    ps: list[float | None] = [1e-6, None, 0.5]
    assert drift.adjusted(ps) == [pytest.approx(2e-6), None, 0.5]
    assert drift.adjusted([None]) == [None]


def test_a_handful_of_images_is_not_tested() -> None:
    assert drift.slice_test(np.array([19, 0]), np.array([0, 500])) == (None, None)
    statistic, p = drift.slice_test(np.array([20, 0]), np.array([0, 500]))
    assert statistic == 1.0
    assert p is not None
    assert p < 1e-9
