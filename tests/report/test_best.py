"""Which score finds errors best: intervals against a plain bootstrap, and which scores are level with the best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from regrad.report import best
from regrad.runs.sampled import Sampled

RNG = np.random.default_rng(6)
WRONG = np.arange(600) % 6 == 0
GOOD = RNG.normal(2.0 * WRONG, 1)
SCORES = {
    "poor": RNG.normal(0.3 * WRONG, 1),
    "good": GOOD,
    "alike": GOOD + RNG.normal(0, 0.1, 600),
}


def judged(scores: dict[str, np.ndarray], wrong: np.ndarray = WRONG) -> tuple[dict[str, float | None], Sampled]:
    sample = Sampled(len(scores))
    sample.add(np.column_stack([*scores.values()]), wrong)
    mixed = 0 < wrong.sum() < len(wrong)
    there = {name: ~np.isnan(own) for name, own in scores.items()}
    aurocs = {name: float(roc_auc_score(wrong[there[name]], own[there[name]])) for name, own in scores.items() if mixed}
    return {name: aurocs.get(name) for name in scores}, sample


def plain(best_score: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The interval's ends by hand, each AUROC of the drawn images that have a value."""
    draws = [RNG.integers(600, size=600) for _ in range(200)]
    parts = [[(own[drawn], WRONG[drawn]) for own in (best_score, other)] for drawn in draws]
    aurocs = [[roc_auc_score(wrong[~np.isnan(own)], own[~np.isnan(own)]) for own, wrong in part] for part in parts]
    return np.array(aurocs) @ [1, -1]


def test_differences_and_intervals_are_those_of_a_plain_bootstrap() -> None:
    # Far narrower than the interval of either AUROC where two scores are alike: both see the same images.
    holes = SCORES | {"poor": np.where(np.arange(600) % 5, math.nan, SCORES["poor"])}
    aurocs, sample = judged(holes)
    told = best.at_errors(aurocs, sample)
    assert told is not None
    leader, second, last = sorted(aurocs, key=lambda name: -(aurocs[name] or 0))
    assert (told["score"], list(told["behind"]), told["sampled"]) == (leader, [second, last], 600)
    for name in (second, last):
        differences = plain(holes[leader], holes[name])
        own = told["behind"][name]
        assert own["difference"] == pytest.approx((aurocs[leader] or 0) - (aurocs[name] or 0))
        assert own["interval"] == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.6 * differences.std())
    assert told["level"] == [second]


def test_nothing_is_told_without_a_choice_or_an_error() -> None:
    assert best.at_errors(*judged({"good": GOOD})) is None
    assert best.at_errors(*judged(SCORES, np.zeros(600, bool))) is None
    assert best.at_errors({"good": None, "poor": None}, Sampled(2)) is None
