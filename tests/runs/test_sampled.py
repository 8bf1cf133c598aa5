"""The sample of labelled rows: all of few, as many of many, the same ones in any order, and as good as random."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regrad.runs.sampled import Sampled

RNG = np.random.default_rng(3)
VALUES, WRONG = RNG.normal(size=(5000, 3)), RNG.random(5000) < 0.2


def sampled(order: np.ndarray, size: int, pieces: int) -> Sampled:
    sample = Sampled(3, size)
    for piece in np.array_split(order, pieces):
        sample.add(VALUES[piece], WRONG[piece])
    return sample


@pytest.mark.parametrize(("size", "kept"), [(10_000, 5000), (700, 700)])
def test_order_and_pieces_do_not_matter(size: int, kept: int) -> None:
    one, other = (sampled(order, size, pieces) for order, pieces in ((np.arange(5000), 1), (RNG.permutation(5000), 9)))
    assert one.images == other.images == 5000
    for ours, theirs in zip(one.rows(), other.rows(), strict=True):
        assert len(ours) == kept
        assert np.array_equal(ours, theirs)
    rows = {(*row, bool(wrong)) for row, wrong in zip(VALUES.tolist(), WRONG.tolist(), strict=True)}
    assert {(*row, bool(wrong)) for row, wrong in zip(*map(np.ndarray.tolist, one.rows()), strict=True)} <= rows


def test_what_is_kept_is_as_good_as_random() -> None:
    values, wrong = sampled(np.arange(5000), 1000, 4).rows()
    assert abs(wrong.mean() - WRONG.mean()) < 4 * math.sqrt(0.16 / 1000)
    assert np.abs(values.mean(0) - VALUES.mean(0)).max() < 4 / math.sqrt(1000)


def test_without_rows_and_with_nan() -> None:
    sample = Sampled(2)
    assert [len(each) for each in sample.rows()] == [0, 0]
    sample.add(np.array([[math.nan, 1.0]]), np.array([True]))
    values, wrong = sample.rows()
    assert np.isnan(values[0, 0])
    assert (values[0, 1], wrong.tolist()) == (1.0, [True])
