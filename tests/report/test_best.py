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


def test_differences_and_intervals_are_those_of_a_plain_bootstrap() -> None:
    aurocs, sample = judged(SCORES)
    told = best.at_errors(aurocs, sample)
    assert told is not None
    leader, second, last = sorted(aurocs, key=lambda name: -(aurocs[name] or 0))
    assert (told["score"], list(told["behind"]), told["sampled"]) == (leader, [second, last], 600)
    for name in (second, last):
        draws = (RNG.integers(600, size=600) for _ in range(250))
        plain = [
            roc_auc_score(WRONG[drawn], SCORES[leader][drawn]) - roc_auc_score(WRONG[drawn], SCORES[name][drawn])
            for drawn in draws
        ]
        own = told["behind"][name]
        assert own["difference"] == pytest.approx(
            roc_auc_score(WRONG, SCORES[leader]) - roc_auc_score(WRONG, SCORES[name])
        )
        # Far narrower than the interval of either AUROC where two scores are alike: both see the same images.
        assert own["interval"] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.15 * 4 * np.std(plain))
    assert told["level"] == [second]


def test_a_score_without_a_value_on_some_images_is_judged_by_the_others() -> None:
    told = best.at_errors(*judged(SCORES | {"poor": np.where(np.arange(600) < 50, math.nan, SCORES["poor"])}))
    assert told is not None
    assert told["behind"]["poor"]["interval"][0] > 0


def test_nothing_is_told_without_a_choice_or_an_error() -> None:
    assert best.at_errors(*judged({"good": GOOD})) is None
    assert best.at_errors(*judged(SCORES, np.zeros(600, bool))) is None
    assert best.at_errors({"good": None, "poor": None}, Sampled(2)) is None
