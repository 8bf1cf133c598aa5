"""The report's numbers against scikit-learn on the same rows, and what is refused or left out."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from regrad import metrics
from regrad.errors import RegradError, UsageError
from regrad.report import numbers
from regrad.runs import scored

RNG = np.random.default_rng(0)
KNOWN = {"regrad": RNG.normal(0, 1, 60), "entropy": RNG.normal(0, 1, 60)}
NEAR = {"regrad": RNG.normal(1, 1, 40), "entropy": RNG.normal(0.5, 1, 40)}
FAR = {"regrad": RNG.normal(3, 1, 30), "entropy": RNG.normal(2, 1, 30)}
PREDICTIONS = RNG.integers(0, 10, 60)
LABELS = np.where(RNG.random(60) < 0.8, PREDICTIONS, (PREDICTIONS + 1) % 10)


def summary(write_run: Any, **changes: Any) -> dict[str, Any]:
    known = {"scores": KNOWN, "labels": LABELS.tolist(), "predictions": PREDICTIONS.tolist()} | changes
    known, near, far = write_run("digits", **known), write_run("near", NEAR, labels=[3] * 40), write_run("far", FAR)
    return report_of(
        scored.load_run(scored.ID_NAME, known), [scored.load_run("near", near), scored.load_run("far", far)], top=5
    )


def report_of(known: scored.Run, unknown: list[scored.Run], **more: Any) -> dict[str, Any]:
    return numbers.summarise(known, unknown, known.output + "-report", **more)[0]


@pytest.mark.parametrize("score", ["regrad", "entropy"])
@pytest.mark.parametrize(("name", "ood"), [("near", NEAR), ("far", FAR)])
def test_separation_equals_scikit_learn(write_run: Any, score: str, name: str, ood: dict[str, Any]) -> None:
    found = summary(write_run)["scores"][score]["ood"][name]
    y, s = np.r_[np.zeros(60), np.ones(len(ood[score]))], np.r_[KNOWN[score], ood[score]]
    assert found["auroc"] == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert found["aupr_ood"] == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert found["aupr_id"] == pytest.approx(average_precision_score(1 - y, -s), abs=1e-12)
    assert found["fpr95"] == np.mean(KNOWN[score] > found["threshold95"])
    assert np.mean(ood[score] > found["threshold95"]) >= 0.95


def test_accuracy_and_raulc_are_of_the_in_distribution_labels(write_run: Any) -> None:
    report = summary(write_run)
    correct = LABELS == PREDICTIONS
    assert report["id"]["accuracy"] == pytest.approx(correct.mean())
    assert report["id"]["labelled"] == 60
    assert report["scores"]["entropy"]["errors"]["raulc"] == pytest.approx(metrics.raulc(KNOWN["entropy"], correct))
    assert all("accuracy" not in run for run in report["ood"])


def test_what_finds_errors_best_is_told_of_the_labelled_images_alone(write_run: Any) -> None:
    wrong = np.where(LABELS == PREDICTIONS, 0.0, 1.0)
    labels = [None, *LABELS.tolist()[1:]]  # the row without a label would spoil a perfect score
    perfect = np.r_[9.0, (wrong + 0.5 * RNG.random(60))[1:]]
    report = summary(write_run, labels=labels, scores={"regrad": KNOWN["regrad"], "entropy": perfect})
    told = report["best_at_errors"]
    assert (told["score"], told["auroc"], told["level"], told["sampled"]) == ("entropy", 1.0, [], 59)
    behind = 1 - report["scores"]["regrad"]["errors"]["auroc"]
    assert told["behind"]["regrad"]["difference"] == pytest.approx(behind)
    assert 0 < told["behind"]["regrad"]["interval"][0] < behind < told["behind"]["regrad"]["interval"][1]
    assert any(line.startswith("entropy finds the classifier's errors best") for line in report["headline"])
    assert summary(write_run_once(write_run), labels=None)["best_at_errors"] is None


@pytest.mark.parametrize("outside", [10, 658, -1])
def test_labels_outside_the_classes_are_counted_and_left_out(write_run: Any, outside: int) -> None:
    labels = [None, outside, outside, *LABELS.tolist()[3:]]
    report = summary(write_run, labels=labels)
    correct = (LABELS == PREDICTIONS)[3:]
    assert (report["id"]["labelled"], report["id"]["labels_outside"]) == (57, 2)
    assert report["id"]["accuracy"] == pytest.approx(correct.mean())
    assert report["scores"]["regrad"]["errors"]["raulc"] == pytest.approx(metrics.raulc(KNOWN["regrad"][3:], correct))
    assert any("2 in-distribution images with a label outside the model's 10 classes" in s for s in report["headline"])


def test_without_labels_there_is_no_accuracy(write_run: Any) -> None:
    report = summary(write_run, labels=None)
    assert report["id"]["accuracy"] is None
    assert report["scores"]["regrad"]["errors"] is None
    assert report["reliability"] == {"images": [], "confidence": [], "accuracy": [], "intervals": []}
    assert report["rates"][scored.ID_NAME]["classes"][0]["wrong"] is None


def test_without_unknown_images_there_are_no_separations(write_run: Any) -> None:
    known = scored.load_run(scored.ID_NAME, write_run("digits", KNOWN))
    report = report_of(known, [], top=3)
    assert report["scores"]["regrad"]["ood"] == {}
    assert sum(report["scores"]["regrad"]["histogram"]["shares"][scored.ID_NAME]) == pytest.approx(1.0)


def test_only_common_scores_are_reported_and_regrad_goes_first(write_run: Any) -> None:
    known = scored.load_run("known", write_run("digits", {"entropy": KNOWN["entropy"], **KNOWN}))
    other = scored.load_run("near", write_run("near", {"regrad": NEAR["regrad"], "exgrad": NEAR["regrad"]}))
    report = report_of(known, [other])
    assert list(report["scores"]) == ["regrad"]
    entropy = scored.load_run("near", write_run("other", {"entropy": NEAR["entropy"]}))
    assert report_of(known, [entropy])["main_score"] == "entropy"


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
        report_of(scored.load_run("known", known), [scored.load_run("near", other)])


def test_another_preprocessing_of_the_same_model_is_accepted(write_run: Any) -> None:
    inverted = {
        "model": {"spec": "tests:network", "fingerprint": "e" * 64, "network": "f" * 64, "classes": 10},
        "config": {"weights": None, "sigma": 0.02, "samples": 10, "transform": "tests:invert"},
    }
    known, other = write_run("digits", KNOWN), write_run("near", NEAR, **inverted)
    report = report_of(scored.load_run("known", known), [scored.load_run("near", other)])
    assert report["scores"]["regrad"]["ood"]["near"]["auroc"] == metrics.auroc(KNOWN["regrad"], NEAR["regrad"])


def test_names_and_scores_must_fit(write_run: Any) -> None:
    known = scored.load_run("known", write_run("digits", KNOWN))
    near = scored.load_run("near", write_run("near", NEAR))
    with pytest.raises(UsageError, match="two runs are called 'near'"):
        report_of(known, [near, near])
    with pytest.raises(UsageError, match=r"has the scores exgrad, .* regrad, entropy"):
        report_of(known, [scored.load_run("x", write_run("x", {"exgrad": NEAR["regrad"]}))])


def test_outputs_without_a_run_or_rows_are_refused(write_run: Any, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match=r"no run\.json here"):
        scored.load_run("known", str(tmp_path / "nowhere"))
    (tmp_path / "runs/empty").mkdir(parents=True)
    run = write_run("digits", KNOWN)
    (tmp_path / "runs/empty/run.json").write_text((tmp_path / "runs/digits/run.json").read_text())
    with pytest.raises(UsageError, match="no rows under scores/"):
        scored.load_run("known", str(tmp_path / "runs/empty"))
    (tmp_path / "runs/digits/scores/part-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(RegradError, match="cannot read"):
        scored.load_run("known", run)


def test_unfinished_runs_and_quarantined_rows_are_said_out_loud(write_run: Any) -> None:
    report = summary(write_run, status="running", counts={"rows_quarantined": 7})
    assert any("in-distribution is not complete (status: running)" in sentence for sentence in report["headline"])
    assert any(sentence.startswith("7 images of in-distribution") for sentence in report["headline"])


def test_report_and_metrics_never_import_ray() -> None:
    code = (
        "import sys, regrad.metrics; from regrad.report import headline, numbers, page;"
        "from regrad.pages import thumbnails;"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] == 'ray'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_columns_that_no_number_needs_are_not_read(write_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    known = scored.load_run("known", write_run("digits", KNOWN))
    asked = []
    tables = scored.Run.tables
    monkeypatch.setattr(scored.Run, "tables", lambda run, columns: asked.append(columns) or tables(run, columns))
    report_of(known, [])
    first, second = asked
    assert first == ["label", "prediction", "confidence", "nll", "regrad", "entropy"]
    assert second == ["id", "source", "row", "label", "prediction", "confidence", "regrad"]


def test_intervals_hold_their_metric_and_repeat(write_run: Any) -> None:
    report = summary(write_run)
    for entry in (report["id"], *report["scores"]["regrad"]["ood"].values(), report["scores"]["regrad"]["errors"]):
        for name, (low, high) in entry["intervals"].items():
            assert low <= entry[name] <= high
            assert low < high or name == "nll"  # the same for every image here
    again = report_of(scored.load_run("a", write_run("d2", KNOWN)), [scored.load_run("near", write_run("n2", NEAR))])
    expected = report["scores"]["regrad"]["ood"]["near"]["intervals"]
    assert again["scores"]["regrad"]["ood"]["near"]["intervals"] == expected


def test_calibration_and_errors_equal_the_metrics(write_run: Any) -> None:
    report, correct = summary(write_run), LABELS == PREDICTIONS
    confidence = np.full(60, 0.5)
    assert report["id"]["ece"] == pytest.approx(metrics.ece(confidence, correct))
    assert report["id"]["nll"] == pytest.approx(0.7)  # of every label that write_run writes
    found = report["scores"]["regrad"]["errors"]
    assert found["auroc"] == pytest.approx(metrics.error_auroc(KNOWN["regrad"], correct))
    assert found["aurc"] == pytest.approx(metrics.aurc(KNOWN["regrad"], correct))
    assert found["augrc"] == pytest.approx(metrics.augrc(KNOWN["regrad"], correct))


def test_a_reference_sets_the_threshold_and_is_no_unknown_set(write_run: Any) -> None:
    tonight = scored.load_run(scored.ID_NAME, write_run("tonight", FAR))
    reference = scored.load_run(scored.REFERENCE_NAME, write_run("digits", KNOWN))
    report = report_of(tonight, [], reference=reference, threshold="quantile=0.9")
    value = np.sort(KNOWN["regrad"])[-7]  # six of sixty images lie above
    assert report["threshold"] == {"value": value, "quantile": 0.9, "reference": reference.output}
    assert report["rates"][scored.ID_NAME]["flagged"] == (FAR["regrad"] > value).sum()
    assert report["scores"]["regrad"]["ood"] == {}
    assert set(report["scores"]["regrad"]["histogram"]["shares"]) == {scored.ID_NAME, scored.REFERENCE_NAME}
    assert list(report["pictures"]) == [scored.ID_NAME]
    assert any("more than the 10.0 % that the threshold flags" in sentence for sentence in report["headline"])


def test_doubtful_labels_are_counted_and_listed_with_the_reference(write_run: Any) -> None:
    p = {name: RNG.dirichlet(np.full(10, 0.4), 60) for name in ("digits", "known")}
    labels = {"digits": LABELS, "known": p["known"].argmax(1)}
    run, reference = (
        scored.load_run(name, write_run(name, KNOWN, labels=labels[name].tolist(), probabilities=p[name])) for name in p
    )
    alone, together = report_of(run, []), report_of(run, [], reference=reference, threshold=1.0)
    for told, sets in ((alone, ["digits"]), (together, ["digits", "known"])):
        every, given = (np.concatenate([held[name] for name in sets]) for held in (p, labels))
        t = np.array([every[given == j, j].mean() if (given == j).any() else np.inf for j in range(10)])
        top = p["digits"].argmax(1)
        count = int(((top != LABELS) & (p["digits"].max(1) >= t[top])).sum())
        assert (told["doubtful"]["doubtful"], told["doubtful"]["labelled"]) == (count, 60)
    assert alone["doubtful"]["doubtful"] > together["doubtful"]["doubtful"] > 0
    listed = Path(f"{run.output}-report/doubtful.csv").read_text().splitlines()
    assert len(listed) == 1 + together["doubtful"]["doubtful"]
    assert any(f"contradicts {len(listed) - 1} of 60 labels" in sentence for sentence in together["headline"])


def test_the_accuracy_is_estimated_from_a_labelled_reference(write_run: Any) -> None:
    p = RNG.dirichlet(np.full(10, 0.3), 300)
    labels = np.where(RNG.random(300) < p.max(1), p.argmax(1), (p.argmax(1) + 1) % 10)
    scores = {"regrad": RNG.normal(size=300)}
    new = scored.load_run("new", write_run("new", scores, probabilities=p))
    known = scored.load_run(scored.REFERENCE_NAME, write_run("known", scores, labels=labels.tolist(), probabilities=p))
    report = report_of(new, [], reference=known)
    told, right = report["accuracy_estimate"], (p.argmax(1) == labels).mean()
    assert report["id"]["accuracy"] is None
    assert (told["accuracy"], told["known"]) == (pytest.approx(right), pytest.approx(right))
    assert any(sentence.startswith("Estimated without labels") for sentence in report["headline"])
    assert report_of(new, [])["accuracy_estimate"] is None


def test_a_run_without_rows_is_refused(write_run: Any) -> None:
    with pytest.raises(UsageError, match="scored no image"):
        report_of(scored.load_run("known", write_run("empty", {"regrad": []})), [])


def test_every_key_is_documented(write_run: Any) -> None:
    known, near, fine = (
        scored.load_run(name, write_run(name, scores, labels=LABELS.tolist()[: len(scores["regrad"])]))
        for name, scores in (("digits", KNOWN), ("near", NEAR), (scored.REFERENCE_NAME, KNOWN))
    )
    report, chosen = numbers.summarise(known, [near], known.output + "-report", fine)
    report["runs"] = {}  # run.json is described elsewhere
    threshold = json.loads(chosen.to_json()) | {"settings": {}}
    assert keys(report) | keys(threshold) <= documented() | {
        "digits",
        "near",
        scored.REFERENCE_NAME,
        "regrad",
        "entropy",
    }


def keys(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def documented() -> set[str]:
    text = (Path(__file__).parents[2] / "docs/report.md").read_text()
    return {name for code in re.findall(r"`([^`]+)`", text) for name in re.findall(r"\w+", code)}
