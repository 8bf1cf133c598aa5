"""The interval of a share against scipy's."""

from __future__ import annotations

import pytest
import scipy.stats

from regrad.metrics.wilson import share_interval


@pytest.mark.parametrize(("part", "whole"), [(0, 1), (1, 1), (3, 10), (0, 500), (499, 500), (1234, 100_000)])
def test_it_is_wilsons(part: int, whole: int) -> None:
    expected = scipy.stats.binomtest(part, whole).proportion_ci(0.95, method="wilson")
    low, high = share_interval(part, whole)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=2e-5)  # z is 1.96, not 1.959964
    assert 0 <= low <= part / whole <= high <= 1
