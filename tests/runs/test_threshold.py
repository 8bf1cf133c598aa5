"""A threshold: chosen, given, stored, and refused where it would mean something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad.errors import UsageError
from regrad.runs import rule, scored, threshold
from regrad.runs.survey import Survey

SCORES = np.random.default_rng(0).normal(size=200)


@pytest.fixture
def survey(write_run: Any) -> Survey:
    return Survey(scored.load_run("reference", write_run("digits", {"regrad": SCORES})), ["regrad"])


@pytest.mark.parametrize(("share", "flagged"), [(0.95, 10), (0.5, 100), (0.999, 0)])
def test_a_quantile_flags_at_most_its_share_of_the_reference(survey: Survey, share: float, flagged: int) -> None:
    chosen = threshold.choose_threshold(f"quantile={share}", ["regrad"], "regrad", survey)
    assert (chosen.value < SCORES).sum() == flagged
    assert chosen.value == np.quantile(SCORES, share, method="inverted_cdf")
    assert (chosen.quantile, chosen.reference, chosen.images) == (share, survey.run.output, 200)


def test_ties_are_flagged_together_or_not_at_all(write_run: Any) -> None:
    tied = Survey(scored.load_run("reference", write_run("tied", {"regrad": [1.0] * 90 + [2.0] * 10})), ["regrad"])
    assert threshold.choose_threshold("quantile=0.9", ["regrad"], "regrad", tied).value == 1.0
    assert threshold.choose_threshold("quantile=0.95", ["regrad"], "regrad", tied).value == 2.0  # flags none


def test_of_merged_cells_no_more_than_the_share_lies_above() -> None:
    values, images = np.array([1.0, 2.0, 3.0]), np.array([90, 8, 2])  # a cell holds its smallest value and more
    assert threshold.at_quantile(values, images, True, 0.95) == 2.0
    assert threshold.at_quantile(values, images, False, 0.95) == np.nextafter(3.0, 0)


def test_a_stored_threshold_is_used_again(survey: Survey, tmp_path: Path) -> None:
    chosen = threshold.choose_threshold("quantile=0.95", ["regrad"], "regrad", survey)
    (tmp_path / "threshold.json").write_text(chosen.to_json())
    again = threshold.choose_threshold(str(tmp_path / "threshold.json"), ["regrad"], "regrad", survey)
    assert again == chosen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "entropy"}, "a threshold of entropy; the scores here are regrad"),
        ({"settings": {"network": "e" * 12}}, "with network eeeeeeeeeeee, this one is with ffffffffffff"),
        ({"threshold_version": 9}, "version 9"),
        ({"value": "much"}, "not a threshold.json"),
        ({"extra": 1}, "not a threshold.json"),
    ],
)
def test_a_threshold_of_something_else_is_refused(
    survey: Survey, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = json.loads(threshold.choose_threshold("quantile=0.95", ["regrad"], "regrad", survey).to_json())
    (tmp_path / "threshold.json").write_text(json.dumps(content | change))
    with pytest.raises(UsageError, match=message):
        threshold.choose_threshold(str(tmp_path / "threshold.json"), ["regrad"], "regrad", survey)


def test_a_stored_threshold_may_be_older_than_a_setting(survey: Survey, tmp_path: Path) -> None:
    content = json.loads(threshold.choose_threshold("quantile=0.95", ["regrad"], "regrad", survey).to_json())
    file = tmp_path / "threshold.json"
    assert content["settings"].pop("exponent") == 0.5
    file.write_text(json.dumps(content))
    assert threshold.choose_threshold(str(file), ["regrad"], "regrad", survey).score == "regrad"
    content["settings"]["exponent"] = 0.25
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"with exponent 0\.25, this one is with 0\.5"):
        threshold.choose_threshold(str(file), ["regrad"], "regrad", survey)


def test_no_file_and_no_json_are_refused(survey: Survey, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        threshold.choose_threshold(str(tmp_path / "threshold.json"), ["regrad"], "regrad", survey)
    (tmp_path / "threshold.json").write_text("[]")
    with pytest.raises(UsageError, match=r"not a threshold\.json"):
        threshold.choose_threshold(str(tmp_path / "threshold.json"), ["regrad"], "regrad", survey)


def test_a_value_is_a_value(survey: Survey) -> None:
    chosen = threshold.choose_threshold(rule.parse_rule("1.5"), ["regrad"], "regrad", survey)
    assert (chosen.value, chosen.quantile, chosen.reference) == (1.5, None, None)


def test_credentials_are_not_stored() -> None:
    text = threshold.Threshold(
        "regrad", 1.0, {"depth_decay": float("inf")}, 0.9, "s3://key:secret@bucket/a", 5
    ).to_json()
    assert "secret" not in text
    assert json.loads(text)["settings"] == {"depth_decay": "inf"}
