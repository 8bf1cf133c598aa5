"""The numbers of a night against scipy on the same rows, and what is compared with what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from regrad.audit import drift, night
from regrad.audit.gates import METRICS, parse_gates
from regrad.runs import scored

RNG = np.random.default_rng(0)
KNOWN = RNG.normal(0, 1, 400)
NEW = RNG.normal(0.8, 1, 150)
LABELS = RNG.integers(0, 10, 150)
PREDICTIONS = np.where(RNG.random(150) < 0.7, LABELS, (LABELS + 1) % 10)


@pytest.fixture
def baseline(write_run: Any) -> night.Baseline:
    run = scored.load_run(night.BASELINE, write_run("known", {"regrad": KNOWN}, [row % 10 for row in range(400)]))
    return night.calibrate(run, "regrad", "quantile=0.9")


def tonight(write_run: Any, values: np.ndarray = NEW, **more: Any) -> scored.Run:
    given = {"labels": LABELS.tolist(), "predictions": PREDICTIONS.tolist()} if len(values) == len(LABELS) else {}
    return scored.load_run(night.NIGHT, write_run("new", {"regrad": values}, **(given | more)))


def counted(run: scored.Run | None, baseline: night.Baseline, before: Any = (), **more: Any) -> dict[str, Any]:
    asked = {"quarantine": {}, "rows_quarantined": 0, "top": 4, "flag": lambda rows: None}
    asked |= {"output": f"{baseline.survey.run.output}-night"} | more
    return night.counted(run, baseline, before, **asked)  # type: ignore[arg-type]


def audit(name: str, counted: dict[str, Any]) -> dict[str, Any]:
    return {"night": name} | counted


def test_the_scores_against_the_baselines(write_run: Any, baseline: night.Baseline) -> None:
    flagged: list[pa.Table] = []
    told = counted(tonight(write_run), baseline, flag=flagged.append)
    metrics = told["metrics"]
    bound = np.quantile(KNOWN, 0.9, method="inverted_cdf")
    expected = scipy.stats.ks_2samp(NEW, KNOWN, method="asymp")
    assert (metrics["ks"], metrics["ks_p"]) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-6)
    assert told["threshold"]["value"] == bound
    assert metrics["flagged"] == (bound < NEW).sum() == sum(map(len, flagged))
    assert metrics["flagged_share"] == metrics["flagged"] / 150
    edges = np.quantile(KNOWN, np.arange(1, 10) / 10, method="inverted_cdf")
    tenths = [np.bincount(np.searchsorted(edges, values), minlength=10) for values in (NEW, KNOWN)]
    assert metrics["psi"] == pytest.approx(drift.psi(*tenths), rel=1e-9)
    assert metrics["accuracy"] == pytest.approx((PREDICTIONS == LABELS).mean())
    assert told["baseline"]["flagged_share"] == pytest.approx((bound < KNOWN).mean())


def test_the_predicted_classes_against_the_baselines(write_run: Any, baseline: night.Baseline) -> None:
    told = counted(tonight(write_run), baseline)
    new, known = np.bincount(PREDICTIONS, minlength=10), np.full(10, 40)
    assert told["predictions"] == {"baseline": known.tolist(), "night": new.tolist()}
    expected = scipy.stats.chi2_contingency(np.stack([new, known])).pvalue
    assert told["metrics"]["prediction_p"] == pytest.approx(expected)
    entry = next(entry for entry in told["rates"]["classes"] if entry["class"] == 3)
    own, held = NEW[PREDICTIONS == 3], KNOWN[np.arange(400) % 10 == 3]
    if entry["ks"] is not None:
        assert entry["ks"] == pytest.approx(scipy.stats.ks_2samp(own, held).statistic, abs=0.03)
    assert entry["baseline_share"] == pytest.approx((held > told["threshold"]["value"]).mean())
    (source,) = told["rates"]["sources"]
    assert source["drifted"]
    entries = [*told["rates"]["classes"], source]
    assert {entry["drifted"] for entry in entries} == {True, False}
    assert all(entry["drifted"] == (entry["p"] is not None and entry["p_adjusted"] < 0.01) for entry in entries)
    assert told["metrics"]["drifted_sources"] == 1


def test_the_nights_before_are_taken_together(write_run: Any, baseline: night.Baseline) -> None:
    before = [
        audit(name, counted(scored.load_run("x", write_run(name, {"regrad": values})), baseline))
        for name, values in (("n1", RNG.normal(0, 1, 100)), ("n2", RNG.normal(1, 1, 60)))
    ]
    sets = [[int(label), (int(label) + 1) % 10] if row % 3 else [] for row, label in enumerate(LABELS)]
    told = counted(tonight(write_run, sets=sets), baseline, before)
    counts = [np.array(each["distribution"]["counts"]) for each in (*before, told)]
    assert told["compared"] == {"nights": ["n1", "n2"], "left_out": []}
    assert told["metrics"]["ks_nights"] == drift.ks(counts[2], counts[0] + counts[1])
    share = sum(each["metrics"]["flagged"] for each in before) / 160
    assert told["metrics"]["flagged_share_change"] == pytest.approx(told["metrics"]["flagged_share"] - share)
    assert (told["metrics"]["coverage"], told["metrics"]["set_size"]) == (2 / 3, 4 / 3)
    assert (before[0]["metrics"]["coverage"], before[0]["metrics"]["set_size"]) == (None, None)
    missing = [name for name in METRICS if told["metrics"][name] is None]
    # A metric that nothing gives would exceed its gate every night. These runs have no embeddings.
    assert missing == [name for name in METRICS if name.startswith("embedding")]
    assert told["metrics"].keys() == METRICS.keys()


def test_a_night_of_another_baseline_is_left_out(write_run: Any, baseline: night.Baseline) -> None:
    other = scored.load_run(night.BASELINE, write_run("other", {"regrad": KNOWN[:300]}))
    before = [
        audit("n1", counted(tonight(write_run), night.calibrate(other, "regrad", "quantile=0.9"))),
        audit("n2", counted(None, baseline)),  # without an image: nothing to compare with, and nothing to tell
    ]
    told = counted(scored.load_run(night.NIGHT, write_run("late", {"regrad": NEW})), baseline, before)
    assert told["compared"] == {"nights": [], "left_out": ["n1"]}
    assert told["metrics"]["ks_nights"] is None


def test_a_night_without_an_image(baseline: night.Baseline) -> None:
    told = counted(None, baseline, quarantine={"decode: bad": 3}, rows_quarantined=3)
    assert (told["images"], told["rates"], told["histogram"], told["pictures"]) == (0, None, None, [])
    numbers = {name: value for name, value in told["metrics"].items() if value is not None}
    assert numbers == {"images": 0, "flagged": 0, "quarantined_rows": 3, "quarantined": 1.0}


def test_pictures_are_the_most_uncertain(write_run: Any, baseline: night.Baseline) -> None:
    told = counted(tonight(write_run), baseline, rows_quarantined=50)
    assert [row["score"] for row in told["pictures"]] == sorted(NEW)[::-1][:4]
    assert told["metrics"]["quarantined"] == 50 / 200


def test_labels_are_doubted_by_what_the_network_is_sure_of_in_baseline_and_night(write_run: Any) -> None:
    p = {name: RNG.dirichlet(np.full(10, 0.3), count) for name, count in (("known", 400), ("new", 150))}
    given = {"known": p["known"].argmax(1), "new": LABELS}
    runs = {
        name: scored.load_run(
            name, write_run(name, {"regrad": KNOWN[: len(own)]}, labels=given[name].tolist(), probabilities=own)
        )
        for name, own in p.items()
    }
    baseline = night.calibrate(runs["known"], "regrad", "quantile=0.9")
    told = counted(runs["new"], baseline)
    both, labels = np.concatenate([*p.values()]), np.concatenate([*given.values()])
    t = np.array([both[labels == j, j].mean() for j in range(10)])
    top = p["new"].argmax(1)
    expected = int(((top != LABELS) & (p["new"].max(1) >= t[top])).sum())
    assert 0 < expected < (top != LABELS).sum()
    assert (told["doubtful"]["doubtful"], told["doubtful"]["labelled"]) == (expected, 150)
    assert told["metrics"]["doubtful_labels"] == expected / 150
    listed = Path(f"{runs['known'].output}-night/doubtful.csv")
    assert len(listed.read_text().splitlines()) == expected + 1
    counted(None, baseline)
    assert not listed.exists()  # a night of nothing has no list of an earlier attempt
    unlabelled = counted(scored.load_run("x", write_run("x", {"regrad": NEW})), baseline)
    assert (unlabelled["doubtful"], unlabelled["metrics"]["doubtful_labels"]) == (None, None)
    judged = night.with_verdicts({"night": "n", "again": {}} | told, parse_gates(["doubtful_labels < 1%"]))
    assert judged["gates"][0]["verdict"] == "exceeded"


def test_the_accuracy_is_estimated_from_the_baselines_labels(write_run: Any) -> None:
    p = RNG.dirichlet(np.full(10, 0.3), 400)
    labels = np.where(RNG.random(400) < p.max(1), p.argmax(1), (p.argmax(1) + 1) % 10)
    runs = [
        scored.load_run(name, write_run(name, {"regrad": KNOWN}, given, probabilities=p))
        for name, given in (("known", labels.tolist()), ("same", [None] * 400))
    ]
    told = counted(runs[1], night.calibrate(runs[0], "regrad", "quantile=0.9"))
    right = (p.argmax(1) == labels).mean()
    assert told["metrics"]["accuracy"] is None
    assert told["metrics"]["accuracy_estimate"] == told["accuracy_estimate"]["accuracy"] == pytest.approx(right)
    assert told["accuracy_estimate"]["known"] == right
    low, high = told["accuracy_estimate"]["interval"]
    assert low < right < high


def test_verdicts_come_with_the_numbers_they_are_of(write_run: Any, baseline: night.Baseline) -> None:
    told = {"night": "n", "again": {}} | counted(tonight(write_run), baseline)
    judged = night.with_verdicts(told, parse_gates(["images == 150", "psi < 0.01", "ks_nights < 1"]))
    assert [gate["verdict"] for gate in judged["gates"]] == ["held", "exceeded", "exceeded"]
    assert judged["gates"][1]["value"] == told["metrics"]["psi"]
    assert judged["headline"][1].startswith("Gate exceeded: psi < 0.01 (it is ")
