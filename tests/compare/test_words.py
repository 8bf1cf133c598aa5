"""What a comparison says, from numbers made up here."""

from __future__ import annotations

from typing import Any

import pytest

from regrad.compare.words import sentences


def metric(a: float, b: float, interval: tuple[float, float] | None) -> dict[str, Any]:
    return {"a": a, "b": b, "difference": b - a, "interval": interval}


def report(**more: Any) -> dict[str, Any]:
    sides = {"status": "done", "only": 0, "repeated": 0}
    score = {
        "rank_correlation": {"value": 0.95},
        "flagged": {"a": 0.1, "b": 0.2, "both": {"value": 0.05}},
        "errors": {"auroc": metric(0.7, 0.75, (0.01, 0.09))},
        "left_out": 0,
    }
    base: dict[str, Any] = {
        "main_score": "regrad",
        "scores": {"regrad": score | more.pop("score", {})},
        "settings": [],
        "ood": {},
        "labels": {"accuracy": metric(0.9, 0.8, (-0.15, -0.05))},
        "a": dict(sides),
        "b": dict(sides),
        "paired": 1000,
        "labels_differ": 0,
        "scores_of_one": {"a": [], "b": []},
    }
    return base | more


@pytest.mark.parametrize(
    ("correlation", "verdict"),
    [
        (1.0, "put the images in almost the same order"),
        (0.99 - 1e-12, "put the images in almost the same order"),
        (0.95, "put the images in much the same order"),
        (0.5, "put the images in only roughly the same order"),
        (-1.0, "put the images in different orders"),
    ],
)
def test_the_headline_is_about_the_order(correlation: float, verdict: str) -> None:
    first, *_ = sentences(report(score={"rank_correlation": {"value": correlation}}))
    assert first == f"A and B {verdict}: the rank correlation of regrad is {correlation:.3f}"


def test_a_score_that_is_the_same_everywhere_cannot_be_ranked() -> None:
    first, *_ = sentences(report(score={"rank_correlation": {"value": None}}))
    assert first == "A and B cannot be ranked: regrad is the same for every image of one of them"


def test_settings_that_differ_are_named_by_their_last_part() -> None:
    names = ["config.noise_space", *(f"config.s{number}" for number in range(7))]
    said = sentences(report(settings=[{"setting": name} for name in names]))
    assert said[1] == "They differ in noise space, s0, s1, s2, s3, s4 and 2 more."
    assert sentences(report())[1].startswith("No setting differs: ")


def test_what_is_flagged_by_both() -> None:
    said = sentences(report())
    assert "of those flagged by either, 20.0 % are flagged by both." in said[2]
    nothing = {"a": 0.0, "b": 0.0, "both": {"value": 0.0}}
    assert sentences(report(score={"flagged": nothing}))[2] == "By regrad, A flags 0 % of the images and B 0 %."
    assert not any("flags" in sentence for sentence in sentences(report(score={"flagged": None})))


def test_better_and_worse_are_said_only_where_the_interval_leaves_out_zero() -> None:
    ood = {"photos": report() | {"scores": {"regrad": metric(0.8, 0.81, (-0.01, 0.03))}, "paired": 5}}
    said = "\n".join(sentences(report(ood=ood)))
    assert "B is worse for the classifier (accuracy): 80.0 % against 90.0 % (-15 to -5 points)." in said
    assert "B is better for regrad at finding its errors (AUROC): 75.0 % against 70.0 % (+1 to +9 points)." in said
    assert (
        "No sure difference for regrad at telling photos apart (AUROC): 81.0 % against 80.0 % (-1 to +3 points)."
        in said
    )


def test_what_cannot_be_known() -> None:
    assert "No labels: which run finds errors better cannot be known." in sentences(report(labels=None))
    untold = {"errors": {"auroc": metric(0.7, 0.75, None)}}
    assert any("cannot be told, see the table" in sentence for sentence in sentences(report(score=untold)))


def test_what_was_left_out() -> None:
    sides = {"a": {"status": "failed", "only": 3, "repeated": 1}, "b": {"status": "done", "only": 4, "repeated": 1}}
    more = {"scores_of_one": {"a": ["exgrad", "entropy"], "b": []}, "labels_differ": 1, "score": {"left_out": 2}}
    said = sentences(report(**sides, **more))
    left = "1,000 images in both runs; 3 only in A, 4 only in B."
    assert f"{left} 2 rows with an id that is not unique in its source: left out." in said
    assert "A run of A is not complete (status: failed): numbers are of a part." in said
    assert "Only A has exgrad, entropy: not compared." in said
    assert "1 image with another label in B than in A: each run is judged by its own." in said
    assert "2 pairs without a finite value of regrad: left out of its row." in said
