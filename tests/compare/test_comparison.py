"""A comparison's numbers against scipy and scikit-learn on the same rows, and what is refused or said."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from regrad import metrics, storage
from regrad.compare import comparison, movement
from regrad.compare import words as compare_words
from regrad.errors import RegradError, UsageError
from regrad.report import numbers
from regrad.runs import scored

RNG = np.random.default_rng(0)
COUNT = 200
LABELS = RNG.integers(0, 10, COUNT)
PREDICTIONS = [np.where(RNG.random(COUNT) < share, LABELS, (LABELS + 1) % 10) for share in (0.8, 0.9)]
FIRST = (RNG.normal(0, 1, COUNT) + (PREDICTIONS[0] != LABELS)).round(1)  # with ties
SECOND = (FIRST + RNG.normal(0.2, 0.3, COUNT)).round(1)
PHOTOS = [RNG.normal(1, 1, 80), RNG.normal(1.5, 1, 80)]


def run(write_run: Any, side: int, name: str = "digits", scores: Any = None, **more: Any) -> scored.Run:
    values = {"regrad": (FIRST, SECOND)[side], "entropy": RNG.normal(0, 1, COUNT)} if scores is None else scores
    given = {"labels": LABELS.tolist(), "predictions": PREDICTIONS[side].tolist()} if name == "digits" else {}
    return scored.load_run(
        name if name != "digits" else "AB"[side],
        write_run(name, values, **given, folder=f"{name}-{side}-{len(more)}", **more),
    )


def photos(write_run: Any, side: int) -> scored.Run:
    scores = {"regrad": PHOTOS[side], "entropy": RNG.normal(0, 1, 80)}
    return run(write_run, side, "photos", scores)


@pytest.fixture
def report(write_run: Any) -> dict[str, Any]:
    ood = [(photos(write_run, 0), photos(write_run, 1))]
    return comparison.compare(run(write_run, 0), run(write_run, 1), ood, "quantile=0.9", 10)


def test_differences_and_ranks(report: dict[str, Any]) -> None:
    found, moved = report["scores"]["regrad"], SECOND - FIRST
    assert found["difference"]["mean"]["value"] == pytest.approx(moved.mean())
    assert found["difference"]["median"]["value"] == np.quantile(moved, 0.5, method="inverted_cdf")
    expected = scipy.stats.spearmanr(FIRST, SECOND).statistic
    assert found["rank_correlation"]["value"] == pytest.approx(expected, abs=1e-12)
    for metric in (found["difference"]["mean"], found["difference"]["median"], found["rank_correlation"]):
        low, high = metric["interval"]
        assert low <= metric["value"] <= high
        assert low < high
    spread = 1.96 * moved.std() / COUNT**0.5
    low, high = found["difference"]["mean"]["interval"]
    assert (low, high) == pytest.approx((moved.mean() - spread, moved.mean() + spread), abs=0.25 * spread)


def test_each_run_flags_by_its_own_quantile(report: dict[str, Any]) -> None:
    found = report["scores"]["regrad"]["flagged"]
    bounds = [np.quantile(values, 0.9, method="inverted_cdf") for values in (FIRST, SECOND)]
    assert [found["threshold_a"], found["threshold_b"]] == bounds
    flags = [values > bound for values, bound in zip((FIRST, SECOND), bounds, strict=True)]
    assert (found["a"], found["b"]) == (flags[0].mean(), flags[1].mean())
    assert found["both"]["value"] == (flags[0] & flags[1]).mean()
    assert found["interval"] is None


def test_what_labels_tell(report: dict[str, Any]) -> None:
    errors = report["scores"]["regrad"]["errors"]
    right = [prediction == LABELS for prediction in PREDICTIONS]
    for side, correct, values in zip("ab", right, (FIRST, SECOND), strict=True):
        assert errors["auroc"][side] == pytest.approx(roc_auc_score(~correct, values))
        assert errors["raulc"][side] == pytest.approx(metrics.raulc(values, correct))
        assert errors["aurc"][side] == pytest.approx(metrics.aurc(values, correct))
        assert report["labels"]["accuracy"][side] == pytest.approx(correct.mean())
        assert report["labels"]["ece"][side] == pytest.approx(metrics.ece(np.full(COUNT, 0.5), correct))
        assert report["labels"]["nll"][side] == pytest.approx(0.7)
    for metric in (*errors.values(), report["labels"]["accuracy"], report["labels"]["ece"]):
        low, high = metric["interval"]
        assert metric["difference"] == metric["b"] - metric["a"]
        assert low < metric["difference"] < high
    # McNemar: of pairs, only those that one run gets right alone make the accuracies differ.
    alone = [(right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()]
    spread = 1.96 * math.sqrt(sum(alone) - (alone[0] - alone[1]) ** 2 / COUNT) / COUNT
    low, high = report["labels"]["accuracy"]["interval"]
    assert high - low == pytest.approx(2 * spread, rel=0.15)


def test_separation_from_unknown_images(report: dict[str, Any]) -> None:
    found = report["ood"]["photos"]
    assert (found["paired"], found["a"]["only"], found["b"]["only"]) == (80, 0, 0)
    for side, known, unknown in zip("ab", (FIRST, SECOND), PHOTOS, strict=True):
        expected = roc_auc_score([0] * COUNT + [1] * 80, np.r_[known, unknown])
        assert found["scores"]["regrad"][side] == pytest.approx(expected)
    low, high = found["scores"]["regrad"]["interval"]
    assert low < found["scores"]["regrad"]["difference"] < high
    assert found["scores"]["regrad"]["auroc_error"] == 0


def test_the_images_that_moved_most(report: dict[str, Any]) -> None:
    ranks = [scipy.stats.rankdata(values) / COUNT - 0.5 / COUNT for values in (FIRST, SECOND)]
    moved = ranks[1] - ranks[0]
    for key, expected in (("risen", np.sort(moved)[::-1][:5]), ("fallen", np.sort(moved)[:5])):
        rows = report["moved"][key]
        assert [row["b.rank"] - row["a.rank"] for row in rows] == pytest.approx(expected)
        for row in rows:
            assert (row["a.score"], row["b.score"]) == (FIRST[row["row"]], SECOND[row["row"]])
            assert (row["a.prediction"], row["b.prediction"]) == tuple(side[row["row"]] for side in PREDICTIONS)


def test_the_plane_holds_every_pair(report: dict[str, Any]) -> None:
    plane = report["scores"]["regrad"]["plane"]
    assert np.sum(plane["images"]) == COUNT
    assert np.shape(plane["images"]) == (len(plane["b"]["edges"]) - 1, len(plane["a"]["edges"]) - 1)
    column = int(np.searchsorted(plane["a"]["edges"], np.median(FIRST), side="right")) - 1
    low, high = plane["a"]["edges"][column : column + 2]
    assert np.sum(plane["images"], 0)[column] == ((low <= FIRST) & (high > FIRST)).sum()


def test_a_run_against_itself_differs_in_nothing(write_run: Any) -> None:
    a = run(write_run, 0)
    report = comparison.compare(a, a, [], "quantile=0.9", 10)
    assert report["settings"] == []
    for found in report["scores"].values():
        assert found["rank_correlation"]["value"] == pytest.approx(1)
        assert found["difference"] == {
            "mean": {"value": 0, "interval": (0, 0)},
            "median": {"value": 0, "interval": (0, 0)},
        }
        assert all(metric["interval"] == (0, 0) for metric in found["errors"].values())
    assert report["moved"] == {"risen": [], "fallen": []}
    assert "almost the same order" in report["headline"][0]
    assert report["headline"][1].startswith("No setting differs")


def test_settings_that_differ_are_listed_and_not_refused(write_run: Any) -> None:
    model = {"spec": "tests:other", "network": "e" * 64, "classes": 12, "class_names": None}
    config = {"weights": None, "sigma": 0.05, "samples": 10, "transform": None, "image_column": None}
    report = comparison.compare(run(write_run, 0), run(write_run, 1, model=model, config=config), [], 0.5, 4)
    listed = {entry["setting"]: (entry["a"], entry["b"]) for entry in report["settings"]}
    assert listed == {
        "model.spec": ("tests:network", "tests:other"),
        "model.network": ("f" * 64, "e" * 64),
        "model.classes": (10, 12),
        "config.sigma": (0.02, 0.05),
    }
    assert report["headline"][1] == "They differ in spec, network, classes, sigma."


def test_a_given_value_is_of_one_score_in_both_runs(write_run: Any, tmp_path: Any) -> None:
    a, b = run(write_run, 0), run(write_run, 1)
    report = comparison.compare(a, b, [], 0.8, 4)
    found = report["scores"]["regrad"]["flagged"]
    assert (found["a"], found["b"]) == ((FIRST > 0.8).mean(), (SECOND > 0.8).mean())
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert report["scores"]["entropy"]["flagged"] is None
    _, rule = numbers.summarise(a, [], str(tmp_path / "report"), threshold="quantile=0.9")
    (tmp_path / "threshold.json").write_text(rule.to_json())
    again = comparison.compare(a, b, [], str(tmp_path / "threshold.json"), 4)["scores"]["regrad"]["flagged"]
    assert again["threshold_a"] == again["threshold_b"] == rule.value
    other = run(write_run, 1, config={"sigma": 0.5})
    with pytest.raises(
        UsageError, match=r"threshold\.json: chosen on a run scored with sigma 0\.02, this one is with 0\.5"
    ):
        comparison.compare(a, other, [], str(tmp_path / "threshold.json"), 4)


def test_without_labels_nothing_is_judged(write_run: Any) -> None:
    sides = [photos(write_run, side) for side in (0, 1)]
    report = comparison.compare(sides[0], sides[1], [], "quantile=0.9", 4)
    assert report["labels"] is None
    assert report["scores"]["regrad"]["errors"] is None
    assert any(sentence.startswith("No labels") for sentence in report["headline"])


def test_rows_of_one_run_and_values_that_are_none_are_counted_and_said(write_run: Any) -> None:
    fewer = {"regrad": SECOND[:150].copy(), "exgrad": RNG.normal(size=150)}
    fewer["regrad"][[3, 4]] = math.nan
    labels = [*LABELS[:149].tolist(), (LABELS[149] + 1) % 10]
    b = write_run(
        "digits", fewer, labels=labels, predictions=PREDICTIONS[1][:150].tolist(), folder="b", status="running"
    )
    report = comparison.compare(run(write_run, 0), scored.load_run("B", b), [], "quantile=0.9", 4)
    assert (report["paired"], report["a"]["only"], report["b"]["only"]) == (150, 50, 0)
    assert (report["scores"]["regrad"]["pairs"], report["scores"]["regrad"]["left_out"]) == (148, 2)
    kept = np.delete(np.arange(150), [3, 4])
    expected = scipy.stats.spearmanr(FIRST[kept], SECOND[kept]).statistic
    assert report["scores"]["regrad"]["rank_correlation"]["value"] == pytest.approx(expected)
    assert report["labels_differ"] == 1
    text = "\n".join(report["headline"])
    for words in (
        "150 images in both runs; 50 only in A, 0 only in B.",
        "2 pairs without a finite value of regrad",
        "Only A has entropy: not compared.",
        "Only B has exgrad: not compared.",
        "A run of B is not complete (status: running)",
        "1 image with another label in B than in A",
    ):
        assert words in text


def test_runs_that_cannot_be_compared_are_refused(write_run: Any) -> None:
    a = run(write_run, 0)
    other = run(write_run, 1, scores={"exgrad": SECOND})
    with pytest.raises(UsageError, match=r"has the scores regrad, entropy, .* has exgrad: nothing to compare"):
        comparison.compare(a, other, [], "quantile=0.9", 4)
    broken = run(write_run, 1, scores={"regrad": [math.nan] * COUNT}, status="done", more=1)
    with pytest.raises(RegradError, match="no image has a finite value of regrad in both"):
        comparison.compare(a, broken, [], "quantile=0.9", 4)
    with pytest.raises(UsageError, match=r"--ood photos=one,two,three: a comparison needs photos=URI_A,URI_B"):
        comparison.load_pairs(["a", "b"], [("photos", "one,two,three")])


def test_a_constant_score_has_no_rank_correlation(write_run: Any) -> None:
    b = run(write_run, 1, scores={"regrad": [1.0] * COUNT})
    report = comparison.compare(run(write_run, 0), b, [], "quantile=0.9", 4)
    assert report["scores"]["regrad"]["rank_correlation"] == {"value": None, "interval": None}
    assert "cannot be ranked" in report["headline"][0]
    json.dumps(storage.published(report), allow_nan=False)


def test_many_values_are_ranked_to_a_small_error(write_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with more distinct values than a tally keeps apart."""
    from regrad.runs import tally

    monkeypatch.setattr(tally.Tally.__init__, "__defaults__", (64,))
    a, b = (
        run(write_run, side, scores={"regrad": np.exp(values) + RNG.random(COUNT) / 100})
        for side, values in enumerate((FIRST, SECOND))
    )
    report = comparison.compare(a, b, [], "quantile=0.9", 4)
    expected = scipy.stats.spearmanr(FIRST, SECOND).statistic
    assert report["scores"]["regrad"]["rank_correlation"]["value"] == pytest.approx(expected, abs=0.02)
    assert report["scores"]["regrad"]["flagged"]["a"] <= 0.1


@pytest.mark.parametrize(
    ("interval", "words"),
    [((0.01, 0.03), "B is better for"), ((-0.03, -0.01), "B is worse for"), ((-0.01, 0.03), "No sure difference for")],
)
def test_better_and_worse_are_said_only_when_sure(interval: tuple[float, float], words: str) -> None:
    metric = {"a": 0.8, "b": 0.82, "difference": 0.02, "interval": interval}
    assert compare_words._better("the classifier (accuracy)", metric).startswith(words)


def test_pairs_are_read_a_few_columns_at_a_time(write_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    tables = movement.Pairs.tables
    monkeypatch.setattr(
        movement.Pairs, "tables", lambda pairs, columns: asked.append(len(columns)) or tables(pairs, columns)
    )
    comparison.compare(run(write_run, 0), run(write_run, 1), [], "quantile=0.9", 4)
    assert max(asked) <= 12
