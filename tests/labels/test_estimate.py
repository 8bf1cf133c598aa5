"""The estimate of an accuracy against average thresholded confidence image by image, and when it is not told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regrad.labels import estimate
from regrad.labels.estimate import estimate_accuracy, estimate_in_words
from regrad.runs import scored
from regrad.runs.survey import Survey

RNG = np.random.default_rng(0)


def images(count: int, sharp: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; the less sharp, the less sure and the less often right."""
    true = RNG.integers(0, 10, count)
    z = RNG.normal(0, 1, (count, 10)) + sharp * np.eye(10)[true]
    return np.exp(z) / np.exp(z).sum(1, keepdims=True), true


def survey(write_run: Any, name: str, p: np.ndarray, labels: list[int | None]) -> Survey:
    run = scored.load_run(name, write_run(name, {"regrad": np.ones(len(p))}, labels=labels, probabilities=p))
    return Survey(run, ["regrad"])


def plain(known: np.ndarray, labels: np.ndarray, new: np.ndarray) -> float:
    """Garg et al.: t so that the share of s < t is the error on labelled images, then the share of s >= t."""
    right, s = known.argmax(1) == labels, np.sort(known.max(1).astype(np.float32))
    t = s[int((~right).sum())]
    return float((new.max(1).astype(np.float32) >= t).mean())


@pytest.mark.parametrize("sharp", [3.6, 4.0, 5.0])
def test_it_is_average_thresholded_confidence(write_run: Any, sharp: float) -> None:
    (known, labels), (new, true) = images(3000, 4.0), images(2000, sharp)
    told = estimate_accuracy(
        survey(write_run, "known", known, labels.tolist()), survey(write_run, "new", new, [None] * 2000)
    )
    assert told is not None
    accuracy, wanted = (known.argmax(1) == labels).mean(), plain(known, labels, new)
    assert told["known"] == pytest.approx(accuracy)
    assert told["accuracy"] == pytest.approx(wanted, abs=0.004)  # cells of confidence are 0.05 wide in its logit
    low, high = told["interval"]
    error = next(error for drop, error in estimate.MEASURED if accuracy - wanted <= drop)
    assert low < told["accuracy"] - error
    assert high > told["accuracy"] + error or high == 1
    assert low < (new.argmax(1) == true).mean() < high


def test_its_own_images_have_their_own_accuracy(write_run: Any) -> None:
    known, labels = images(1500, 3.0)
    own = survey(write_run, "known", known, labels.tolist())
    told = estimate_accuracy(own, own)
    assert told is not None
    assert told["accuracy"] == pytest.approx((known.argmax(1) == labels).mean(), abs=1e-12)


def test_labels_of_the_images_in_question_are_not_looked_at(write_run: Any) -> None:
    known, labels = images(1000, 4.0)
    new, true = images(800, 3.8)
    known_survey = survey(write_run, "known", known, labels.tolist())
    wrong = (true + 1) % 10
    wrong[::3] = 99
    told = [
        estimate_accuracy(known_survey, survey(write_run, name, new, given))
        for name, given in (("none", [None] * 800), ("wrong", wrong.tolist()))
    ]
    assert told[0] == told[1]


def test_how_far_below_is_not_told_where_measured_estimates_were_wrong(write_run: Any) -> None:
    (known, labels), (new, _) = images(1000, 4.0), images(500, 1.0)
    told = estimate_accuracy(
        survey(write_run, "known", known, labels.tolist()), survey(write_run, "new", new, [None] * 500)
    )
    assert told is not None
    assert (told["accuracy"], told["interval"], told["farthest"]) == (None, None, 0.05)
    (said,) = estimate_in_words(told, "baseline")
    assert "its accuracy is more than 5 points lower, and how much lower cannot be told without labels" in said
    few = survey(write_run, "few", known[:99], labels[:99].tolist())
    assert estimate_accuracy(few, few) is None
    assert estimate_in_words(None, "baseline") == []


def test_the_words_have_the_interval() -> None:
    told = {"accuracy": 0.912, "interval": [0.88, 0.934], "known": 0.93, "farthest": 0.05}
    assert estimate_in_words(told, "reference") == [
        "Estimated without labels, the network is right on 91.2 % (88.0 % to 93.4 %) if all images are of classes that "
        "it knows; it is on 93.0 % of the labelled images of the reference."
    ]
