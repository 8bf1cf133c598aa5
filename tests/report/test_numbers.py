"""The report's numbers against scikit-learn on the same rows, and what is refused or left out."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from regrad import metrics
from regrad.errors import RegradError, UsageError
from regrad.report import numbers

RNG = np.random.default_rng(0)
KNOWN = {"regrad": RNG.normal(0, 1, 60), "entropy": RNG.normal(0, 1, 60)}
NEAR = {"regrad": RNG.normal(1, 1, 40), "entropy": RNG.normal(0.5, 1, 40)}
FAR = {"regrad": RNG.normal(3, 1, 30), "entropy": RNG.normal(2, 1, 30)}
PREDICTIONS = RNG.integers(0, 10, 60)
LABELS = np.where(RNG.random(60) < 0.8, PREDICTIONS, (PREDICTIONS + 1) % 10)


def summary(write_run: Any, **changes: Any) -> dict[str, Any]:
    known = {"scores": KNOWN, "labels": LABELS.tolist(), "predictions": PREDICTIONS.tolist()} | changes
    runs = [write_run("digits", **known), write_run("near", NEAR, labels=[3] * 40), write_run("far", FAR)]
    return numbers.summarise(
        numbers.load(numbers.ID_NAME, runs[0]), [numbers.load("near", runs[1]), numbers.load("far", runs[2])], top=5
    )


@pytest.mark.parametrize("score", ["regrad", "entropy"])
@pytest.mark.parametrize(("name", "ood"), [("near", NEAR), ("far", FAR)])
def test_separation_equals_scikit_learn(write_run: Any, score: str, name: str, ood: dict[str, Any]) -> None:
    found = summary(write_run)["scores"][score]["ood"][name]
    y, s = np.r_[np.zeros(60), np.ones(len(ood[score]))], np.r_[KNOWN[score], ood[score]]
    assert found["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert found["aupr_ood"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert found["aupr_id"] == pytest.approx(average_precision_score(1 - y, -s), abs=1e-12)
    assert found["fpr95"] == np.mean(KNOWN[score] >= found["threshold95"])
    assert np.mean(ood[score] >= found["threshold95"]) >= 0.95


def test_accuracy_and_raulc_are_of_the_in_distribution_labels(write_run: Any) -> None:
    report = summary(write_run)
    correct = LABELS == PREDICTIONS
    assert report["id"]["accuracy"] == pytest.approx(correct.mean())
    assert report["id"]["labelled"] == 60
    assert report["scores"]["entropy"]["raulc"] == pytest.approx(metrics.raulc(KNOWN["entropy"], correct))
    assert all("accuracy" not in run for run in report["ood"])


@pytest.mark.parametrize("outside", [10, 658, -1])
def test_labels_outside_the_classes_are_counted_and_left_out(write_run: Any, outside: int) -> None:
    labels = [None, outside, outside, *LABELS.tolist()[3:]]
    report = summary(write_run, labels=labels)
    correct = (LABELS == PREDICTIONS)[3:]
    assert (report["id"]["labelled"], report["id"]["labels_outside"]) == (57, 2)
    assert report["id"]["accuracy"] == pytest.approx(correct.mean())
    assert report["scores"]["regrad"]["raulc"] == pytest.approx(metrics.raulc(KNOWN["regrad"][3:], correct))
    assert any("2 in-distribution images with a label outside the model's 10 classes" in s for s in report["headline"])


def test_without_labels_there_is_no_accuracy(write_run: Any) -> None:
    report = summary(write_run, labels=None)
    assert report["id"]["accuracy"] is None
    assert report["scores"]["regrad"]["raulc"] is None


def test_without_unknown_images_there_are_no_separations(write_run: Any) -> None:
    known = numbers.load(numbers.ID_NAME, write_run("digits", KNOWN))
    report = numbers.summarise(known, [], top=3)
    assert report["scores"]["regrad"]["ood"] == {}
    assert sum(report["scores"]["regrad"]["histogram"]["id"]) == pytest.approx(1.0)


def test_most_uncertain_rows_are_the_largest_scores_with_their_own_ids(write_run: Any) -> None:
    report = summary(write_run)
    order = np.argsort(-KNOWN["regrad"])[:5]
    rows = report["most_uncertain"][numbers.ID_NAME]
    assert [row["id"] for row in rows] == [f"digits/{place:04}" for place in order]
    assert [row["row"] for row in rows] == order.tolist()
    assert [row["score"] for row in rows] == KNOWN["regrad"][order].tolist()
    assert [row["correct"] for row in rows] == (LABELS == PREDICTIONS)[order].tolist()
    assert {row["correct"] for row in report["most_uncertain"]["near"]} == {None}


def test_ties_at_the_cut_stay_in_table_order(write_run: Any) -> None:
    known = numbers.load("known", write_run("digits", {"regrad": [1.0, 2.0, 2.0, 2.0, 3.0, 0.0]}))
    rows = numbers.most_uncertain(known, "regrad", 3, judge=True)
    assert [row["row"] for row in rows] == [4, 1, 2]


def test_only_common_scores_are_reported_and_regrad_goes_first(write_run: Any) -> None:
    known = numbers.load("known", write_run("digits", {"entropy": KNOWN["entropy"], **KNOWN}))
    other = numbers.load("near", write_run("near", {"regrad": NEAR["regrad"], "exgrad": NEAR["regrad"]}))
    report = numbers.summarise(known, [other])
    assert list(report["scores"]) == ["regrad"]
    entropy = numbers.load("near", write_run("other", {"entropy": NEAR["entropy"]}))
    assert numbers.summarise(known, [entropy])["main_score"] == "entropy"


def test_a_nan_score_is_left_out_and_counted(write_run: Any) -> None:
    scores = KNOWN["regrad"].copy()
    scores[[3, 9]] = math.nan
    report = summary(write_run, scores={"regrad": scores, "entropy": KNOWN["entropy"]})
    clean = np.delete(KNOWN["regrad"], [3, 9])
    assert report["scores"]["regrad"]["left_out"] == 2
    assert report["scores"]["entropy"]["left_out"] == 0
    assert report["scores"]["regrad"]["ood"]["far"]["auroc"] == pytest.approx(metrics.auroc(clean, FAR["regrad"]))
    with pytest.raises(RegradError, match="every value of regrad is NaN"):
        summary(write_run_once(write_run), scores={"regrad": [math.nan] * 60, "entropy": KNOWN["entropy"]})


def write_run_once(write_run: Any) -> Any:
    return lambda name, *arguments, **more: write_run(f"again-{name}", *arguments, **more)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"spec": "m", "network": "e" * 64, "classes": 10}}, r"scored with network e{12}, the .* f{12}"),
        ({"config": {"sigma": 0.05, "samples": 10}}, r"scored with sigma 0.05, the .* with 0.02"),
        ({"config": {"sigma": 0.02, "samples": 3}}, r"scored with samples 3, the .* with 10"),
    ],
)
def test_runs_that_do_not_compare_are_refused(write_run: Any, change: dict[str, Any], message: str) -> None:
    known, other = write_run("digits", KNOWN), write_run("near", NEAR, **change)
    with pytest.raises(UsageError, match=message):
        numbers.summarise(numbers.load("known", known), [numbers.load("near", other)])


def test_another_preprocessing_of_the_same_model_is_accepted(write_run: Any) -> None:
    inverted = {
        "model": {"spec": "tests:network", "fingerprint": "e" * 64, "network": "f" * 64, "classes": 10},
        "config": {"weights": None, "sigma": 0.02, "samples": 10, "transform": "tests:invert"},
    }
    known, other = write_run("digits", KNOWN), write_run("near", NEAR, **inverted)
    report = numbers.summarise(numbers.load("known", known), [numbers.load("near", other)])
    assert report["scores"]["regrad"]["ood"]["near"]["auroc"] == metrics.auroc(KNOWN["regrad"], NEAR["regrad"])


def test_names_and_scores_must_fit(write_run: Any) -> None:
    known = numbers.load("known", write_run("digits", KNOWN))
    near = numbers.load("near", write_run("near", NEAR))
    with pytest.raises(UsageError, match="two runs are called 'near'"):
        numbers.summarise(known, [near, near])
    with pytest.raises(UsageError, match=r"has the scores exgrad, .* regrad, entropy"):
        numbers.summarise(known, [numbers.load("x", write_run("x", {"exgrad": NEAR["regrad"]}))])


def test_outputs_without_a_run_or_rows_are_refused(write_run: Any, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=r"no run\.json here"):
        numbers.load("known", str(tmp_path / "nowhere"))
    (tmp_path / "runs/empty").mkdir(parents=True)
    run = write_run("digits", KNOWN)
    (tmp_path / "runs/empty/run.json").write_text((tmp_path / "runs/digits/run.json").read_text())
    with pytest.raises(UsageError, match="no rows under scores/"):
        numbers.load("known", str(tmp_path / "runs/empty"))
    (tmp_path / "runs/digits/scores/part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(RegradError, match="cannot read"):
        numbers.load("known", run)


def test_unfinished_runs_and_quarantined_rows_are_said_out_loud(write_run: Any) -> None:
    report = summary(write_run, status="running", counts={"rows_quarantined": 7})
    assert any("in-distribution is not complete (status: running)" in sentence for sentence in report["headline"])
    assert any(sentence.startswith("7 images of in-distribution") for sentence in report["headline"])


def test_histogram_shares_are_of_the_same_bins() -> None:
    known, unknown = RNG.normal(0, 1, 1000), RNG.normal(2, 1, 500)
    made = numbers.histogram(known, {"ood": unknown}, bins=10)
    edges = np.array(made["edges"])
    assert not made["log"]
    assert np.allclose(np.diff(edges), np.diff(edges)[0])
    inner = np.histogram(known, edges)[0][1:-1] / 1000
    assert made["id"][1:-1] == pytest.approx(inner)
    assert sum(made["id"]) == pytest.approx(1)
    assert sum(made["ood"]["ood"]) == pytest.approx(1)
    assert made["ood"]["ood"][-1] == pytest.approx((unknown >= edges[-2]).mean())


@pytest.mark.parametrize(
    ("values", "log"),
    [
        (np.geomspace(1e-3, 10, 500), True),
        (np.linspace(1, 10, 500), False),
        (np.linspace(-5, 5, 500), False),
        (np.zeros(5), False),
        (np.r_[np.ones(5), math.inf], False),
    ],
)
def test_histogram_is_logarithmic_only_for_positive_values_over_decades(values: np.ndarray, log: bool) -> None:
    made = numbers.histogram(values, {}, bins=8)
    assert made["log"] == log
    assert np.all(np.diff(made["edges"]) > 0)
    assert sum(made["id"]) == pytest.approx(1)


def test_published_masks_credentials_and_is_plain_json() -> None:
    report = {"a": ["s3://key:secret@bucket/x", {"b": math.inf, "c": (1, None)}], "s3://k:s@b": 1.5}
    text = json.dumps(numbers.published(report), allow_nan=False)
    assert "secret" not in text
    assert "k:s@" not in text
    assert json.loads(text) == {"a": ["s3://***@bucket/x", {"b": "inf", "c": [1, None]}], "s3://***@b": 1.5}


def test_report_and_metrics_never_import_ray() -> None:
    code = (
        "import sys, regrad.metrics; from regrad.report import figures, headline, numbers, page, thumbnails;"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] == 'ray'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_only_the_needed_columns_are_read(write_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    output = write_run("digits", KNOWN)
    asked = []
    read = numbers.table.read
    monkeypatch.setattr(numbers.table, "read", lambda uri, columns: asked.append(columns) or read(uri, columns))
    numbers.load("known", output)
    assert asked == [["label", "prediction", "regrad", "entropy"]]
