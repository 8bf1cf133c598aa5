"""What an audit says, from numbers made up here."""

from __future__ import annotations

from typing import Any

import pytest

from regrad.audit.words import sentences


def entry(name: str | int, ks: float, drifted: bool, p: float | None = 0.5) -> dict[str, Any]:
    key = "class" if isinstance(name, int) else "source"
    return {key: name, "ks": ks, "p": p, "drifted": drifted, "flagged": 3, "images": 1}


def audit(**more: Any) -> dict[str, Any]:
    metrics = {
        **{"images": 1200, "flagged": 60, "flagged_share": 0.05, "flagged_share_change": None},
        **{"ks": 0.2, "ks_p": 1e-9, "psi": 0.3, "prediction_psi": 0.01, "prediction_p": 0.4, "quarantined_rows": 0},
    }
    base: dict[str, Any] = {
        "images": 1200,
        "metrics": metrics | more.pop("metrics", {}),
        "baseline": {"flagged_share": 0.04},
        "gates": [],
        "compared": {"nights": [], "left_out": []},
        "drifted_below": 0.01,
        "chance_psi": 0.02,
        "rates": {"classes": [], "sources": []},
        "doubtful": None,
        "embedding_drift": None,
        "accuracy_estimate": None,
        "class_names": ["cat", "dog"],
        "quarantine": {},
        "again": {"scored": 0, "quarantined": 0},
    }
    return base | more


def gate(verdict: str, value: float | None = 0.3) -> dict[str, Any]:
    return {"gate": "psi < 0.2", "verdict": verdict, "value": value}


def test_the_headline_has_the_share_beside_the_baselines() -> None:
    first, *_ = sentences(audit())
    assert first == "60 of 1,200 images (5.0 %) look unknown to the model; of the baseline 4.0 % do"
    (one, *_) = sentences(audit(metrics={"images": 1, "flagged": 1, "flagged_share": 1.0}))
    assert one.startswith("1 of 1 image (100 %) looks unknown")


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ([gate("held")], "The gate holds."),
        ([gate("held"), gate("held")], "All 2 gates hold."),
        ([gate("held"), gate("exceeded")], "Gate exceeded: psi < 0.2 (it is 0.3)."),
        ([gate("exceeded", None)], "Gate exceeded: psi < 0.2 (it has no value)."),
        ([gate("held"), gate("not evaluated")], "1 gate held, 1 not evaluated, since there was no image."),
    ],
)
def test_gates_come_second(gates: list[dict[str, Any]], said: str) -> None:
    assert sentences(audit(gates=gates))[1] == said


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, "The scores have drifted from the baseline's: KS 0.200 (p < 0.001), PSI 0.300 (by chance about 0.020)."),
        ({"ks_p": 0.2}, "No drift of the scores is seen from the baseline's: KS 0.200 (p = 0.2), PSI 0.300 "),
        ({}, "The predicted classes have the same shares as in the baseline: PSI 0.010 (p = 0.4)."),
        (
            {"prediction_p": 0.001},
            "The predicted classes have other shares than in the baseline: PSI 0.010 (p = 0.001).",
        ),
    ],
)
def test_drift_is_said_where_it_is_sure(metrics: dict[str, float], said: str) -> None:
    assert any(sentence.startswith(said) for sentence in sentences(audit(metrics=metrics)))


def test_nights_before_and_those_that_do_not_compare() -> None:
    compared = {"nights": ["n1", "n2", "n3"], "left_out": ["n0"]}
    said = sentences(audit(compared=compared, metrics={"flagged_share_change": 0.03}))
    assert "In 3 nights before (n1 to n3) it was 2.0 %." in said
    assert "1 night before had another baseline or threshold and cannot be compared." in said
    (one,) = [
        text
        for text in sentences(audit(compared=compared | {"nights": ["n3"]}, metrics={"flagged_share_change": 0}))
        if "before (" in text
    ]
    assert one == "In 1 night before (n3) it was 5.0 %."


def test_the_worst_slice_is_named_among_those_that_were_tested() -> None:
    sources = [
        entry("s3://b/a.tar", 0.3, True),
        entry("s3://b/c.tar", 0.6, True),
        entry("s3://b/d.tar", 0, False, None),
    ]
    classes = [entry(0, 0.1, False), entry(1, 0.4, True)]
    said = sentences(audit(rates={"sources": sources, "classes": classes}))
    corrected = "drifted (corrected for all that were tested), most of all"
    assert f"2 of 2 sources {corrected} c.tar: 3 of 1 image flagged." in said
    assert f"1 of 2 predicted classes {corrected} dog: 3 of 1 image flagged." in said
    quiet = sentences(audit(rates={"sources": [entry("a", 0.1, False)], "classes": []}))
    assert not any("corrected" in sentence for sentence in quiet)


def test_what_could_not_be_scored_has_its_most_frequent_reasons() -> None:
    reasons = {"decode: a": 5, "read: b": 3, "decode: c": 2, "decode: d": 1}
    said = sentences(audit(quarantine=reasons, metrics={"quarantined_rows": 11}))
    assert said[-1] == "11 rows could not be scored: 5 decode: a; 3 read: b; 2 decode: c."


def test_what_came_by_again_is_counted() -> None:
    said = sentences(audit(again={"scored": 2, "quarantined": 1}))
    assert any(sentence.startswith("3 rows came by again in sources that have changed: ") for sentence in said)
    assert not any("came by again" in sentence for sentence in sentences(audit()))


def test_a_night_without_an_image_says_so_first() -> None:
    said = sentences(audit(images=0, gates=[gate("not evaluated")], metrics={"quarantined_rows": 1}))
    assert said[0] == "No image came in since the last audit"
    assert said[1] == "0 gates held, 1 not evaluated, since there was no image."
