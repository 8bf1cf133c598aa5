"""Nights as they come: a baseline, new shards, gates, a run that is cut short, and a baseline that does not fit."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import scipy.stats

from regrad import storage
from regrad.audit import run as audits
from regrad.audit.options import OPTIONS
from regrad.errors import RegradError, UsageError
from regrad.ledger import contents, lease
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.nights import Nights, noise
from tests.services import Bucket
from tests.shards import digits


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    found = Nights(tmp_path / "in", str(tmp_path / "out"))
    found.arrive("known.parquet", digits(300))
    found.baseline()
    return found


def entropies(output: str, source: str = "") -> np.ndarray:
    rows = pyarrow.parquet.read_table(f"{output}/scores", columns=["entropy", "source"]).to_pylist()
    return np.array([row["entropy"] for row in rows if source in row["source"]])


def test_each_night_is_what_has_come_in_since(nights: Nights) -> None:
    nights.arrive("a.parquet", digits(90)[30:90])
    outcome, first = nights.audit("--night", "n1")
    # The baseline's shard is in the same folder, and no news.
    assert outcome.this_run["rows_scored"] == first["images"] == 60
    assert first["exit_code"] == 0
    nights.arrive("b.parquet", [*digits(30), *noise(40), ("bad", b"no image", 1)])
    outcome, second = nights.audit("--night", "n2", "--gate", "flagged_share < 0.2", "images > 10")
    assert outcome.this_run["rows_scored"] == second["images"] == 70
    # Independent references on what the Parquet files hold.
    known, new = entropies(f"{nights.outputs}/baseline"), entropies(f"{nights.outputs}/audit", "b.parquet")
    threshold = np.sort(known)[int(np.ceil(0.95 * len(known))) - 1]
    assert second["threshold"]["value"] == threshold
    assert second["metrics"]["flagged"] == (new > threshold).sum() > 10
    expected = scipy.stats.ks_2samp(new, known, method="asymp")
    assert second["metrics"]["ks"] == pytest.approx(expected.statistic, abs=1e-12)
    assert second["metrics"]["ks_p"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert second["metrics"]["quarantined"] == pytest.approx(1 / 71)
    assert second["baseline"]["flagged_share"] == (known > threshold).mean()
    assert second["compared"]["nights"] == ["n1"]
    before = entropies(f"{nights.outputs}/audit", "a.parquet")
    change = (new > threshold).mean() - (before > threshold).mean()
    assert second["metrics"]["flagged_share_change"] == pytest.approx(change)
    assert second["exit_code"] == 3
    assert [gate["verdict"] for gate in second["gates"]] == ["exceeded", "held"]
    assert any("flagged_share < 0.2" in sentence for sentence in second["headline"])
    assert any("1 decode: " in sentence for sentence in second["headline"])
    (source,) = second["rates"]["sources"]
    assert source["drifted"]
    place = Path(nights.outputs, "audit/nights/n2")
    flags = pyarrow.parquet.read_table(place / "flags")
    assert len(flags) == second["metrics"]["flagged"]
    assert json.loads((place / "audit.json").read_text()) == json.loads(
        Path(nights.outputs, "audit/audit.json").read_text()
    )
    assert "gate exceeded" in (place / "audit.html").read_text()
    assert [(row["night"], row["images"], row["exit_code"]) for row in nights.history()] == [
        ("n1", 60, 0),
        ("n2", 70, 3),
    ]


def test_a_night_lies_on_a_map_beside_its_baseline(tmp_path: Path, plain_maps: None) -> None:
    nights = Nights(tmp_path / "in", str(tmp_path / "out"))
    nights.settings = [flag for flag in nights.settings if flag != "--no-thumbnails"] + ["--embeddings"]
    nights.arrive("known.parquet", digits(80))
    nights.baseline()
    nights.arrive("a.parquet", digits(40))
    nights.audit("--night", "n1")
    nights.arrive("b.parquet", noise(30))
    audit = nights.audit("--night", "n2", "--map-points", "70")[1]
    assert [(each["name"], each["images"], each["points"]) for each in audit["map"]["sets"]] == [
        ("baseline", 80, 40),
        ("this night", 30, 30),  # without the night before
    ]
    html = Path(nights.outputs, "audit/nights/n2/audit.html").read_text()
    points = json.loads(re.findall(r'id="data">(.*?)</script>', html, re.DOTALL)[0])["map"]
    assert {name for name, of in zip(points["id"], points["set"], strict=True) if of} == {
        f"noise/{row}" for row in range(30)
    }
    assert len(points["pictures"]) > 30
    assert nights.audit("--night", "n2", "--map-points", "0")[1]["map"] is None


def test_an_audit_that_lies_among_its_inputs_is_none_of_them(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "in", str(tmp_path / "in/audits"))
    nights.arrive("known.parquet", digits(100))
    nights.baseline()
    for night, name in enumerate(("a.parquet", "b.parquet")):
        nights.arrive(name, digits(30))
        outcome, found = nights.audit("--night", f"n{night}")
        assert (outcome.counts["rows_in"], found["images"]) == (30 * (night + 1), 30)
    settings = ["--model", "tests.shards:build", "--scores", "entropy", "--output", str(tmp_path / "all")]
    anew = prepare(parse([str(tmp_path / "in"), *settings], "score", None))
    assert execute(anew, score_here).counts["rows_in"] == 160


def test_what_the_baseline_holds_is_not_missing(nights: Nights) -> None:
    nights.arrive("a.parquet", digits(30))
    nights.audit("--night", "n1")
    found = check(f"{nights.outputs}/audit")
    assert (found.problems, found.notes, found.rows_scored) == ([], [], 30)
    nights.arrive("b.parquet", digits(20))
    assert check(f"{nights.outputs}/audit").notes == ["not scored yet: 1 unit (20 rows)"]


def test_the_same_audit_again_changes_nothing(nights: Nights) -> None:
    nights.arrive("a.parquet", digits(50))
    first = nights.audit("--night", "n1")[1]
    again = nights.audit("--night", "n1")[1]
    moving = ("finished", "run")
    assert {key: value for key, value in again.items() if key not in moving} == {
        key: value for key, value in first.items() if key not in moving
    }
    assert len(nights.history()) == 1


def test_an_empty_night_is_a_row_of_its_own(nights: Nights) -> None:
    found = nights.audit("--night", "n1", "--gate", "flagged_share < 0.1")[1]
    assert found["headline"][0] == "No image came in since the last audit"
    assert (found["exit_code"], found["gates"][0]["verdict"]) == (0, "not evaluated")
    assert nights.audit("--night", "n2", "--gate", "images > 0")[1]["exit_code"] == 3
    assert [row["images"] for row in nights.history()] == [0, 0]
    nights.arrive("a.parquet", digits(40))
    assert nights.audit("--night", "n3")[1]["compared"]["nights"] == []


@pytest.mark.parametrize("place", ["history.parquet", "audited.parquet", "n2/audit.json", "n2/audit.html"])
def test_an_audit_that_dies_at_any_write_is_made_up_for(
    nights: Nights, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    nights.arrive("a.parquet", digits(30))
    nights.audit("--night", "n1")
    nights.arrive("b.parquet", digits(30))
    real = storage.write_atomically

    def dying(uri: str, content: bytes) -> None:
        if uri.endswith(place):
            raise RegradError("a full disk")
        real(uri, content)

    monkeypatch.setattr(storage, "write_atomically", dying)
    with pytest.raises(RegradError, match="a full disk"):
        nights.audit("--night", "n2")
    monkeypatch.undo()
    told = json.loads(Path(nights.outputs, "audit/audit.json").read_text())
    assert (told["status"], told["exit_code"], told["error"]) == ("failed", 1, "a full disk")
    outcome, found = nights.audit("--night", "n3")
    assert (outcome.this_run["rows_scored"], found["images"]) == (0, 30)
    assert [(row["night"], row["images"]) for row in nights.history()] == [("n1", 30), ("n3", 30)]


def test_of_a_shard_that_changed_what_is_new_is_news(nights: Nights) -> None:
    nights.arrive("a.parquet", digits(30))
    nights.audit("--night", "n1")
    nights.arrive("a.parquet", digits(45))
    outcome, found = nights.audit("--night", "n2")
    assert (outcome.this_run["rows_scored"], found["images"], found["again"]["scored"]) == (45, 15, 30)
    assert [row["images"] for row in nights.history()] == [30, 15]


def test_in_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    nights = Nights(tmp_path / "in", bucket.uri)
    nights.arrive("known.parquet", digits(100))
    nights.baseline()
    for number in range(3):
        nights.arrive(f"{number}.parquet", digits(40))
        nights.audit("--night", f"n{number}", "--nights", "1", "--keep-nights", "2")
    assert [row["images"] for row in nights.history()] == [40, 40, 40]
    kept = {path.parent.name for path in bucket.folder.glob("audit/nights/*/audit.json")}
    assert kept == {"n1", "n2"}
    assert not (bucket.folder / "audit/lease").exists() or not list((bucket.folder / "audit/lease").iterdir())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--sigma", "0.5"],
            r"--baseline .*: scored with another model or other settings: sigma 0.02, now 0.5; score both",
        ),
        (["--model", "tests.shards:build_nan"], "model tests.shards:build, now tests.shards:build_nan"),
        (["--scores", "entropy,energy", "--score", "energy"], "has the scores entropy, not energy"),
        (["--score", "energy"], "--score energy: not among --scores entropy"),
        (["--gate", "nope < 1"], "no metric nope; the metrics are images,"),
        (["--threshold", "quantile=7"], "between 0 and 1"),
        (["--keep-nights", "3"], "must be at least --nights 7"),
        (["--notify", "ftp://x"], "--notify: not an http"),
        (["--night", "a/b"], "--night 'a/b'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(nights: Nights, more: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nights.audit(*more)
    assert not Path(nights.outputs, "audit").exists()


def test_other_scores_and_units_are_no_other_baseline(nights: Nights) -> None:
    nights.arrive("a.parquet", digits(30))
    outcome, found = nights.audit("--scores", "entropy,energy", "--unit-rows", "7", "--night", "n1")
    assert outcome.this_run["rows_scored"] == found["images"] == 30  # what the baseline holds is still no news


def test_a_baseline_that_is_missing_or_unfinished_is_refused(tmp_path: Path) -> None:
    nights = Nights(tmp_path / "in", str(tmp_path / "out"))
    nights.arrive("a.parquet", digits(30))
    with pytest.raises(UsageError, match=r"no run\.json here.*--make-baseline makes it of INPUT"):
        nights.audit()
    assert audits.needs_baseline(nights.options("--make-baseline"))
    nights.baseline()
    assert not audits.needs_baseline(nights.options("--make-baseline"))
    path = tmp_path / "out/baseline/run.json"
    path.write_text(path.read_text().replace('"done"', '"interrupted"'))
    assert audits.needs_baseline(nights.options("--make-baseline"))
    with pytest.raises(UsageError, match="its run is not complete"):
        nights.audit()


def test_two_audits_at_once_are_refused(nights: Nights) -> None:
    with lease.hold(f"{nights.outputs}/audit", seconds=1.0), pytest.raises(UsageError, match="another run is at work"):
        nights.audit()


def test_ledger_keys_are_what_a_night_is_of(nights: Nights) -> None:
    nights.arrive("a.parquet", digits(30))
    nights.audit("--night", "n1", "--unit-rows", "10")
    audited = pyarrow.parquet.read_table(Path(nights.outputs, "audit/audited.parquet"))
    assert set(audited["unit"].to_pylist()) == contents.committed(f"{nights.outputs}/audit")


def test_the_options_are_those_of_scoring_and_these() -> None:
    names = [option.key for option in OPTIONS]
    assert len(set(names)) == len(names)
    options = parse(
        ["x", "--model", "m", "--output", "o", "--gate", "psi < 1", "--gate", "ks < 1"], "audit", None, OPTIONS
    )
    assert options.gate == ["psi < 1", "ks < 1"]
    assert dataclasses.is_dataclass(options)
