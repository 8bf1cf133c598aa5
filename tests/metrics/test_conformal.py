"""Conformal p-values: the formula by counting, its promise by simulation, and never smaller where values are merged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regrad.metrics.conformal import PValues, Quantiles, rank_of


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


def test_quantiles_are_the_ranked_numbers_with_their_ties() -> None:
    rng = np.random.default_rng(3)
    for images in (1, 9, 10, 99, 1500):
        numbers = np.sort(rng.exponential(size=images).round(2))
        kept = Quantiles.of(rng.permutation(numbers))
        assert len(kept.ranks) <= 1000
        no_larger = (numbers[:, None] <= numbers).sum(0)
        for thousandth in range(1, 1000):
            # Counted, in whole numbers: the smallest of the numbers that enough are no larger than.
            enough = numbers[1000 * no_larger >= thousandth * (images + 1)]
            if enough.size:
                assert kept.at(thousandth / 1000) == enough[0]
            else:
                with pytest.raises(ValueError, match=f"images, there are {images}"):
                    kept.at(thousandth / 1000)


def test_a_quantile_that_was_not_kept_is_no_smaller() -> None:
    numbers = np.arange(5000.0)
    kept = Quantiles.of(numbers)
    assert (kept.at(0.9), kept.at(0.9003)) == (4500, 4505)  # the 4,501st; for the 4,503rd the next that was kept
    with pytest.raises(ValueError, match="needs 9999 images, there are 5000"):
        kept.at(0.9999)
    assert Quantiles.of(np.arange(9999.0)).at(0.9999) == 9998
    assert kept.at(np.float64(0.9)) == 4500


@pytest.mark.parametrize("images", [20, 99])
def test_one_more_number_is_below_its_quantile_as_often_as_promised(images: int) -> None:
    """P = ceil((n + 1) c) / (n + 1) without ties, by simulation; with ties no less."""
    drawn = np.random.default_rng(4).normal(size=(1000, images + 1))
    for numbers, slack in ((drawn, 0.0), (drawn.round(), 1.0)):
        inside = np.mean([row[-1] <= Quantiles.of(row[:-1]).at(0.9) for row in numbers])
        promised = rank_of(images, 0.9) / (images + 1)
        spread = 4 * math.sqrt(promised * (1 - promised) / 1000)
        assert promised - spread <= inside <= promised + spread + slack
