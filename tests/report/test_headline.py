"""The plain words follow from the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from regrad.report import headline


def report(auroc: dict[str, float], other: dict[str, float] | None = None, **known: Any) -> dict[str, Any]:
    def numbers(values: dict[str, float]) -> dict[str, Any]:
        ood = {name: {"auroc": value, "fpr95": 0.021, "threshold95": 3.21987} for name, value in values.items()}
        return {"ood": ood, "left_out": 0}

    facts = {"name": "in-distribution", "images": 1234, "quarantined": 0, "status": "done", "classes": 10}
    return {
        "main_score": "regrad",
        "id": facts | {"labelled": 1234, "labels_outside": 0, "accuracy": 0.97} | known,
        "ood": [{"name": name, "images": 1, "quarantined": 0, "status": "done"} for name in auroc],
        "scores": {"regrad": numbers(auroc)} | ({"entropy": numbers(other)} if other else {}),
    }


@pytest.mark.parametrize(
    ("auroc", "words"),
    [
        (0.99, "clearly tells"),
        (0.95, "clearly tells"),
        (0.94, "mostly tells"),
        (0.79, "only weakly tells"),
        (0.5, "cannot tell"),
        (0.1, "takes unknown images for more familiar"),
        (0.0, "takes unknown images for more familiar"),
    ],
)
def test_the_first_sentence_judges_the_auroc(auroc: float, words: str) -> None:
    assert words in headline.sentences(report({"photos": auroc}))[0]


def test_the_hardest_set_decides() -> None:
    first, second, *_ = headline.sentences(report({"easy": 0.99, "hard": 0.7}))
    assert "only weakly tells" in first
    assert "70.0 %" in first
    assert "hardest of the 2 unknown sets, hard (70.0 %); the easiest is easy (99.0 %)" in second


def test_a_better_score_is_named() -> None:
    assert any(
        sentence == "entropy separates better than regrad here: mean AUROC 95.0 % against 80.0 %."
        for sentence in headline.sentences(report({"photos": 0.8}, {"photos": 0.95}))
    )
    assert any(
        sentence.startswith("No other score of this run separates better than regrad")
        for sentence in headline.sentences(report({"photos": 0.95}, {"photos": 0.8}))
    )


def test_the_cost_of_a_threshold_and_the_accuracy_are_said() -> None:
    text = "\n".join(headline.sentences(report({"photos": 0.9})))
    assert "catches 95 % of photos flags 2.1 % of the known images with them (regrad ≥ 3.22)" in text
    assert "right on 97.0 % of 1,234 labelled images" in text


def test_what_cannot_be_known_is_said() -> None:
    first, *rest = headline.sentences(report({}, accuracy=None))
    assert first == "1,234 images scored; how well regrad finds unknown ones needs a set of them"
    assert rest == ["No in-distribution labels: whether the classifier is right cannot be known."]
