"""The plain words follow from the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from regrad.report import headline


def report(auroc: dict[str, float], other: dict[str, float] | None = None, **known: Any) -> dict[str, Any]:
    def numbers(values: dict[str, float]) -> dict[str, Any]:
        ood = {name: {"auroc": value, "fpr95": 0.021, "threshold95": 3.21987} for name, value in values.items()}
        return {"ood": ood, "left_out": 0}

    facts = {"name": "in-distribution", "uri": "tonight", "images": 1234, "quarantined": 0, "status": "done"}
    facts |= {"classes": 10, "labelled": 1234, "labels_outside": 0, "accuracy": 0.97, "ece": 0.012}
    groups = [{"class": 1, "source": "s3://b/a.tar", "images": 617, "flagged": 19} for _ in range(2)]
    rates = {"images": 1234, "flagged": 38, "share": 38 / 1234, "interval": (0.0225, 0.042)}
    return {
        "main_score": "regrad",
        "id": facts | known,
        "ood": [{"name": name, "images": 1, "quarantined": 0, "status": "done"} for name in auroc],
        "reference": None,
        "threshold": {"value": 7.125, "quantile": None, "reference": None},
        "rates": {"in-distribution": rates | {"classes": groups, "sources": groups}},
        "scores": {"regrad": numbers(auroc)} | ({"entropy": numbers(other)} if other else {}),
        "best_at_errors": None,
        "doubtful": None,
        "accuracy_estimate": None,
        "class_names": None,
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
    assert "catches 95 % of photos flags 2.1 % of the known images with them (regrad > 3.22)" in text
    assert "right on 97.0 % of 1,234 labelled images" in text


def test_what_cannot_be_known_is_said() -> None:
    first, *rest, _ = headline.sentences(report({}, accuracy=None))
    assert first == "38 of 1,234 images (3.1 %) look unknown to the model"
    assert rest == [
        "38 images (3.1 %) flagged by regrad > 7.125, the threshold that was given.",
        "No labels: accuracy, calibration and whether flagged images are errors cannot be known.",
        "No set of unknown images: how many of them the threshold would miss cannot be known.",
    ]


@pytest.mark.parametrize(
    ("reference", "quantile", "words"),
    [
        ("known", 0.99, "more than the 1.0 % that the threshold flags of its reference run"),
        ("known", 0.97, "as many as the 3.0 % that the threshold flags"),
        ("known", 0.9, "fewer than the 10.0 % that the threshold flags"),
        ("tonight", 0.97, "the most uncertain 3.0 % of this run itself. Only a reference run makes it an alarm"),
    ],
)
def test_the_flagged_share_is_set_against_what_was_expected(reference: str, quantile: float, words: str) -> None:
    made = report({})
    made["threshold"] |= {"reference": reference, "quantile": quantile}
    assert words in headline.sentences(made)[1]


def test_a_shard_or_class_that_stands_out_is_named() -> None:
    made = report({})
    rates = made["rates"]["in-distribution"]
    rates["sources"] = [{"source": "s3://b/new.tar", "images": 100, "flagged": 30, "share": 0.3}, rates["sources"][0]]
    rates["classes"] = [{"class": 3, "images": 50, "flagged": 20, "share": 0.4}, rates["classes"][0]]
    made["class_names"] = ["a", "b", "c", "dog"]
    text = headline.sentences(made)
    assert "The shard with most of them is new.tar: 30 of 100 images flagged, 30.0 %." in text
    assert "The predicted class with most of them is dog: 20 of 50 images flagged, 40.0 %." in text
    rates["sources"][0] |= {"images": 10, "flagged": 1}  # one of ten may be chance
    assert not any("new.tar" in sentence for sentence in headline.sentences(made))


def test_it_says_what_to_do_with_flagged_images() -> None:
    flagged = report({})
    assert "flags/ lists the flagged images" in headline.sentences(flagged)[-1]
    flagged["rates"]["in-distribution"]["flagged"] = 0
    assert not any("flags/" in sentence for sentence in headline.sentences(flagged))


@pytest.mark.parametrize(
    ("interval", "labelled", "words"),
    [
        (
            (0.88, 0.92),
            True,
            "Prediction sets for 90.0 % hold the label of 90.2 % (88.0 % to 92.0 %) of 1,000 labelled images; they "
            "have 1.25 classes on average, 3.0 % of them none.",
        ),
        ((0.7, 0.8), True, "none. That is less: these images may not be like those of the calibration."),
        (
            (0.0, 0.0),
            False,
            "Prediction sets for 90.0 % of images like those of the calibration have 1.25 classes on average, "
            "3.0 % of them none.",
        ),
    ],
)
def test_what_prediction_sets_hold_is_said(interval: tuple[float, float], labelled: bool, words: str) -> None:
    sets = {"coverage": 0.9, "mean_size": 1.25, "empty": 0.03, "single": 0.8}
    covered = {"share": 0.902, "interval": interval, "labelled": 1000} if labelled else None
    (said,) = [line for line in headline.sentences(report({}, sets=sets, covered=covered)) if "Prediction" in line]
    assert said.endswith(words)
    assert not [line for line in headline.sentences(report({})) if "Prediction" in line]


@pytest.mark.parametrize(
    ("behind", "level", "words"),
    [
        (["gen"], [], "surely ahead of the other score."),
        (["gen", "energy"], [], "surely ahead of all 2 other scores."),
        (["gen", "energy"], ["gen", "energy"], "but no other score of this run is surely behind it."),
        (["gen", "energy"], ["gen"], "surely ahead of 1 other; gen may be as good."),
        (["a", "b", "c", "d", "e", "f"], ["a", "b"], "surely ahead of 4 others; a and b may be as good."),
        (["a", "b", "c", "d", "e", "f"], ["a", "b", "c", "d", "e"], "1 other; a, b, c and 2 more may be as good."),
    ],
)
def test_what_finds_errors_best_and_how_sure_that_is(behind: list[str], level: list[str], words: str) -> None:
    best = {"score": "entropy", "auroc": 0.931, "level": level, "behind": dict.fromkeys(behind)}
    (told,) = (line for line in headline.sentences(report({}) | {"best_at_errors": best}) if "errors best" in line)
    assert told.startswith("entropy finds the classifier's errors best (AUROC 93.1 %), ")
    assert told.endswith(words)
