"""Flags, rates and pictures against a table held in memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad.metrics import wilson
from regrad.metrics.conformal import PValues
from regrad.runs import scored, sift
from regrad.runs.threshold import Threshold

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=90).round(1)  # with ties
SCORES[7] = math.nan
PREDICTIONS = RNG.integers(0, 10, 90)
LABELS = np.where(RNG.random(90) < 0.7, PREDICTIONS, (PREDICTIONS + 1) % 10)
RULE = Threshold("regrad", 0.8, {})
BASELINE = np.array([0.0, 0.9, 1.5])
UNLIKE = PValues(BASELINE, np.array([5, 3, 1]))


def sifted(write_run: Any, top: int = 10, judge: bool = True, **more: Any) -> tuple[sift.Sifted, pa.Table]:
    labels = {"labels": LABELS.tolist(), "predictions": PREDICTIONS.tolist()} | more
    run = scored.load_run("digits", write_run("digits", {"regrad": SCORES}, **labels))
    flagged: list[pa.Table] = []
    found = sift.sift(run, RULE, top, judge, flagged.append, UNLIKE)
    return found, pa.concat_tables(flagged)


def test_flags_are_the_images_above_the_threshold_and_none_that_ties_with_it(write_run: Any) -> None:
    _, flags = sifted(write_run)
    assert (SCORES == 0.8).any()
    places = np.flatnonzero(SCORES > 0.8)
    assert flags.schema == sift.FLAG_SCHEMA
    assert flags["row"].to_pylist() == places.tolist()
    assert flags["id"].to_pylist() == [f"digits/{place:04}" for place in places]
    assert flags["score"].to_pylist() == SCORES[places].tolist()
    larger = np.repeat(BASELINE, [5, 3, 1])[None] >= SCORES[places][:, None]
    assert flags["p_value"].to_pylist() == ((1 + larger.sum(1)) / 10).tolist()
    assert set(flags["set"].to_pylist()) == {"digits"}


def test_rates_by_class_and_source(write_run: Any) -> None:
    rates = sifted(write_run)[0].rates
    flagged, wrong = SCORES > 0.8, LABELS != PREDICTIONS
    assert (rates["images"], rates["flagged"], rates["share"]) == (90, flagged.sum(), flagged.mean())
    for entry in rates["classes"]:
        of_class = entry["class"] == PREDICTIONS
        assert entry["images"] == of_class.sum()
        assert entry["flagged"] == (flagged & of_class).sum()
        assert entry["wrong"] == (wrong & of_class).sum()
    lows = [wilson.share_interval(entry["flagged"], entry["images"])[0] for entry in rates["classes"]]
    assert lows == sorted(lows, reverse=True)
    assert [entry["images"] for entry in rates["sources"]] == [90]
    assert rates["sources_total"] == 1


def test_pictures_are_the_most_uncertain_and_the_most_certain_errors(write_run: Any) -> None:
    pictures = sifted(write_run)[0].pictures
    assert len(pictures) == 10
    by_sheet = {sheet: [row["row"] for row in pictures if sheet in row["sheets"]] for sheet in ("uncertain", "errors")}
    descending = np.argsort(np.where(np.isnan(SCORES), math.inf, -SCORES), kind="stable")
    wrong = np.flatnonzero((LABELS != PREDICTIONS) & ~np.isnan(SCORES))
    assert by_sheet["errors"] == wrong[np.argsort(SCORES[wrong], kind="stable")][:5].tolist()
    assert by_sheet["uncertain"] == descending[:5].tolist()
    for row in pictures:
        assert row["correct"] == (LABELS == PREDICTIONS)[row["row"]]
        assert row["flagged"] == (SCORES[row["row"]] > 0.8)


def test_of_unknown_images_the_misses_are_shown_and_labels_are_not_judged(write_run: Any) -> None:
    found, _ = sifted(write_run, judge=False)
    missed = np.flatnonzero(SCORES <= 0.8)
    expected = missed[np.argsort(SCORES[missed], kind="stable")][:5].tolist()
    assert [row["row"] for row in found.pictures if "misses" in row["sheets"]] == expected
    assert {row["correct"] for row in found.pictures} == {None}
    assert {entry["wrong"] for entry in found.rates["classes"]} == {None}


def test_labels_that_are_missing_or_no_class_are_not_judged(write_run: Any) -> None:
    labels = [None, 10, -1, *LABELS[3:].tolist()]
    pictures = sifted(write_run, top=200, labels=labels)[0].pictures
    judged = {row["row"]: row["correct"] for row in pictures}
    assert (judged[0], judged[1], judged[2]) == (None, None, None)
    assert judged[3] is not None


def test_without_errors_the_uncertain_fill_the_page(write_run: Any) -> None:
    pictures = sifted(write_run, labels=PREDICTIONS.tolist())[0].pictures
    assert [row["sheets"] for row in pictures] == [["uncertain"]] * 10
    assert sifted_none(write_run) == []


def sifted_none(write_run: Any) -> list[Any]:
    run = scored.load_run("digits", write_run("none", {"regrad": SCORES}))
    return sift.sift(run, RULE, 0, True, lambda rows: None, UNLIKE).pictures


def test_a_picture_in_both_sheets_counts_once() -> None:
    rows = [{"source": "a", "row": row} for row in range(6)]
    picked = sift.pick_images(rows, rows[::-1], "errors", 6)
    assert [row["row"] for row in picked] == list(range(6))
    assert [row["sheets"] for row in picked] == [["uncertain"]] * 3 + [["uncertain", "errors"]] * 3


def test_best_rows_do_not_depend_on_how_they_come(write_run: Any) -> None:
    keys = RNG.integers(0, 20, 300).astype(float)
    table = pa.table({"row": range(300)})
    expected = np.argsort(keys, kind="stable")[:25].tolist()
    for size in (1, 7, 300):
        best = sift.Best(25)
        for begin in range(0, 300, size):
            best.offer(table.slice(begin, size), keys[begin : begin + size], np.ones(min(size, 300 - begin), bool))
        assert [row["row"] for row in best.rows()] == expected


def test_flag_parts_replace_those_of_an_earlier_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sift, "PART_ROWS", 2)
    rows = pa.Table.from_pylist([{"set": "a", "row": row} for row in range(2)], schema=sift.FLAG_SCHEMA)
    with sift.Flags(str(tmp_path)) as flags:
        for _ in range(3):
            flags.add(rows)
    assert len(list((tmp_path / "flags").iterdir())) == 3
    assert pa.parquet.read_table(tmp_path / "flags").num_rows == 6
    with sift.Flags(str(tmp_path)):
        pass  # nothing is flagged
    assert [file.name for file in (tmp_path / "flags").iterdir()] == ["part-00000.parquet"]
    assert pa.parquet.read_table(tmp_path / "flags").num_rows == 0


def test_a_failure_leaves_the_parts_that_were_there(tmp_path: Path) -> None:
    with sift.Flags(str(tmp_path)):
        pass
    with pytest.raises(OSError), sift.Flags(str(tmp_path)):
        raise OSError
    assert len(list((tmp_path / "flags").iterdir())) == 1
