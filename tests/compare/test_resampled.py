"""How sure differences are: the paired bootstrap against the same drawn row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from regrad.compare.resampled import PairSample, interval_around, of_labels, of_score, of_separation, side_by_side
from regrad.runs import scored
from regrad.runs.pairs import Pairs

RNG = np.random.default_rng(2)
COUNT = 300
A = RNG.normal(0, 1, COUNT)
B = 0.7 * A + RNG.normal(0.3, 0.6, COUNT)
LABELS = RNG.integers(0, 10, COUNT)
PREDICTIONS = [np.where(RNG.random(COUNT) < share, LABELS, (LABELS + 1) % 10) for share in (0.7, 0.85)]


def paired(write_run: Any, first: np.ndarray, second: np.ndarray, name: str = "digits") -> Pairs:
    runs = []
    for side, values in enumerate((first, second)):
        given = {"labels": LABELS.tolist(), "predictions": PREDICTIONS[side].tolist()} if name == "digits" else {}
        runs.append(scored.load_run("AB"[side], write_run(name, {"s": values}, **given, folder=f"{name}-{side}")))
    return Pairs(runs[0], runs[1], ["s"])


@pytest.fixture
def sample(write_run: Any) -> Iterator[PairSample]:
    with paired(write_run, A, B) as pairs:
        yield PairSample.of(pairs)


def bootstrap(statistic: Any, draws: int = 2000) -> tuple[float, float]:
    """The plain thing: rows drawn with replacement, the statistic of each drawing, quantiles about that of all."""
    rng = np.random.default_rng(3)
    whole = statistic(np.arange(COUNT))
    values = [statistic(rng.integers(COUNT, size=COUNT)) for _ in range(draws)]
    low, high = np.quantile(values, [0.025, 0.975])
    return low - whole, high - whole


def close(deviation: Any, expected: tuple[float, float]) -> None:
    assert deviation == pytest.approx(expected, abs=0.12 * (expected[1] - expected[0]))


def test_of_one_score(sample: PairSample) -> None:
    bounds = (float(np.quantile(A, 0.8)), float(np.quantile(B, 0.8)))
    told = of_score(sample, "s", bounds)
    close(told["mean"], bootstrap(lambda rows: (B - A)[rows].mean()))
    flagged = [(values > bound).astype(float) for values, bound in zip((A, B), bounds, strict=True)]
    close(told["flagged"], bootstrap(lambda rows: flagged[1][rows].mean() - flagged[0][rows].mean()))
    close(told["flagged_both"], bootstrap(lambda rows: (flagged[0] * flagged[1])[rows].mean()))
    ranks = [values.argsort().argsort() for values in (A, B)]
    close(told["correlation"], bootstrap(lambda rows: np.corrcoef(ranks[0][rows], ranks[1][rows])[0, 1]))
    assert "flagged" not in of_score(sample, "s", None)


def test_of_labels(sample: PairSample) -> None:
    right = [(prediction == LABELS).astype(float) for prediction in PREDICTIONS]
    told = of_labels(sample)
    close(told["accuracy"], bootstrap(lambda rows: (right[1] - right[0])[rows].mean()))
    assert told["nll"] == pytest.approx((0.0, 0.0), abs=1e-12)  # of write_run, all alike


def test_of_a_separation(sample: PairSample, write_run: Any) -> None:
    with paired(write_run, A[:100] + 1, B[:100] + 1, "photos") as pairs:
        deviation = of_separation(sample, PairSample.of(pairs), "s")
    assert deviation is not None
    assert deviation[0] < 0 < deviation[1]
    assert deviation[1] - deviation[0] < 0.2


def test_a_sample_is_wider_by_as_much_as_it_stands_for(write_run: Any) -> None:
    with paired(write_run, A, B) as pairs:
        whole, part = PairSample.of(pairs), PairSample.of(pairs, 75)
    assert (len(part.rows), part.images) == (75, COUNT)
    widths = []
    for each in (whole, part):
        deviation = of_score(each, "s", None)["mean"]
        assert deviation is not None
        widths.append(deviation[1] - deviation[0])
    assert widths[1] == pytest.approx(widths[0], rel=0.35)  # scaled to all pairs, not twice as wide


def test_an_interval_is_around_a_value_that_there_is() -> None:
    assert interval_around(2.0, (-0.5, 1.0)) == (1.5, 3.0)
    assert interval_around(None, (-0.5, 1.0)) is None
    assert interval_around(2.0, None) is None
    assert interval_around(math.nan, (-0.5, 1.0)) is None


def test_a_metric_of_both_runs() -> None:
    assert side_by_side((1.0, 3.0), (-0.5, 0.5)) == {"a": 1.0, "b": 3.0, "difference": 2.0, "interval": (1.5, 2.5)}
    told = side_by_side((1.0, math.nan), (-0.5, 0.5))
    assert told == {"a": 1.0, "b": None, "difference": None, "interval": None}
