"""A calibration from a run: each half used for one thing, and what is no run for it refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special

from regrad.errors import UsageError
from regrad.metrics.calibration import ece
from regrad.metrics.temperature import fit_temperature
from regrad.runs import scored
from regrad.runs.calibrate import fit_calibration
from regrad.runs.labelled import read_labelled


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits twice as large as they should be, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, 10)).astype(np.float32)
    return logits, (logits / 2 + rng.gumbel(size=logits.shape)).argmax(1)


def run(write_run: Any, count: int = 600, name: str = "run", **more: Any) -> scored.Run:
    logits, labels = drawn(count)
    more = {"logits": logits, "labels": labels.tolist(), "predictions": logits.argmax(1).tolist()} | more
    return scored.load_run(name, write_run(name, {"entropy": np.ones(count)}, **more))


def test_one_half_gives_the_temperature_the_other_the_quantiles(write_run: Any) -> None:
    held = run(write_run, 601)
    made = fit_calibration(held)
    rows = read_labelled(held)
    first, second = slice(0, 300), slice(300, 601)
    assert made.temperature == fit_temperature(rows.logits[first], rows.labels[first]) == pytest.approx(2, rel=0.2)
    p = scipy.special.softmax(rows.logits[second].astype(float) / made.temperature, axis=1)
    losses = np.sort(-np.log(p[np.arange(301), rows.labels[second]]))
    assert made.quantiles.images == 301
    assert made.loss_bound(0.9) == pytest.approx(losses[271], rel=1e-9)  # ceil(302 * 0.9) = 272
    assert made.about["fitted_on"]["quantile_images"] == 301


def test_what_it_does_is_told_of_images_it_was_not_fitted_on(write_run: Any) -> None:
    held = run(write_run)
    made = fit_calibration(held)
    rows = read_labelled(held)
    halves = (slice(0, 300), slice(300, 600))
    temperatures = [fit_temperature(rows.logits[half], rows.labels[half]) for half in halves]
    assert [made.temperature, made.about["temperature_of_other_half"]] == temperatures
    for name, divided in (("before", (1.0, 1.0)), ("after", temperatures[::-1])):
        p = np.concatenate(
            [
                scipy.special.softmax(rows.logits[half].astype(float) / t, axis=1)
                for half, t in zip(halves, divided, strict=True)
            ]
        )
        told = made.about["held_out"][name]
        assert told["nll"] == pytest.approx(-np.log(p[np.arange(600), rows.labels]).mean(), rel=1e-9)
        assert told["ece"] == pytest.approx(ece(p.max(1), p.argmax(1) == rows.labels), rel=1e-9)
        for metric in ("nll", "ece"):
            low, high = told["intervals"][metric]
            assert low < high
    before, after = (made.about["held_out"][name] for name in ("before", "after"))
    assert after["nll"] < before["nll"]
    assert after["ece"] < before["ece"] / 2


@pytest.mark.parametrize(
    ("count", "more", "message"),
    [
        (99, {}, "99 labelled images; a calibration takes 100 at least"),
        (120, {"logits": None}, "the run kept no logits"),
        (120, {"labels": None}, "no image has a label"),
        (120, {"config": {"temperature": 2.0}}, "scored with --temperature 2.0; calibrate a run without one"),
        (120, {"status": "running"}, r"its run is not complete \(status running\)"),
        (120, {"labels": drawn(120)[0].argmax(1).tolist()}, "every label is the most probable class"),
    ],
)
def test_what_does_not_fit_is_refused(count: int, more: dict[str, Any], message: str, write_run: Any) -> None:
    held = run(write_run, count, **more)
    with pytest.raises(UsageError, match=message) as caught:
        fit_calibration(held)
    assert held.output in str(caught.value)
