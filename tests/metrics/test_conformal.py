"""Conformal p-values: the formula by counting, its promise by simulation, and never smaller where values are merged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regrad.metrics.conformal import PValues


def test_they_are_counts_of_what_is_no_smaller() -> None:
    rng = np.random.default_rng(0)
    baseline, scores = rng.normal(size=300).round(1), rng.normal(1, 2, 200).round(1)  # with ties
    values, images = np.unique(baseline, return_counts=True)
    wanted = (1 + (baseline[None] >= scores[:, None]).sum(1)) / 301
    np.testing.assert_array_equal(PValues(values, images)(scores), wanted)
    assert math.isnan(PValues(values, images)(np.array([math.nan]))[0])


def test_merged_values_make_them_no_smaller() -> None:
    rng = np.random.default_rng(1)
    baseline, scores = np.sort(rng.normal(size=400)), rng.normal(size=500)
    cells = baseline[::8]  # the smallest of eight neighbours stands for all
    merged = PValues(cells, np.full(50, 8), exact=False)(scores)
    own = PValues(baseline, np.ones(400, np.int64))(scores)
    assert (merged >= own).all()
    assert (merged - own).max() <= 9 / 401
    assert PValues(cells, np.full(50, 8), exact=False)(np.array([-99.0, 99.0])).tolist() == [1.0, 9 / 401]


@pytest.mark.parametrize("level", [0.01, 0.05, 0.3])
def test_at_most_so_many_images_like_the_baseline_have_so_small_a_p_value(level: float) -> None:
    """Of 2,000 baselines of 99 and an image drawn alike: P(p <= a) = floor(100 a) / 100."""
    drawn = np.random.default_rng(2).exponential(size=(2000, 100))
    p = [PValues(np.sort(row[1:]), np.ones(99, np.int64))(row[:1])[0] for row in drawn]
    assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=4 * math.sqrt(level / 2000))
