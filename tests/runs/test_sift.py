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
    sheets = sifted(write_run)[0].sheets
    pictures = [row for rows in sheets.values() for row in rows]
    by_sheet = {sheet: [row["row"] for row in rows] for sheet, rows in sheets.items()}
    descending = np.argsort(np.where(np.isnan(SCORES), math.inf, -SCORES), kind="stable")
    wrong = np.flatnonzero((LABELS != PREDICTIONS) & ~np.isnan(SCORES))
    assert by_sheet["errors"] == wrong[np.argsort(SCORES[wrong], kind="stable")][:10].tolist()
    assert by_sheet["uncertain"] == descending[:10].tolist()
    for row in pictures:
        assert row["correct"] == (LABELS == PREDICTIONS)[row["row"]]
        assert row["flagged"] == (SCORES[row["row"]] > 0.8)


def test_of_unknown_images_the_misses_are_shown_and_labels_are_not_judged(write_run: Any) -> None:
    found, _ = sifted(write_run, judge=False)
    missed = np.flatnonzero(SCORES <= 0.8)
    expected = missed[np.argsort(SCORES[missed], kind="stable")][:10].tolist()
    assert [row["row"] for row in found.sheets["misses"]] == expected
    assert {row["correct"] for rows in found.sheets.values() for row in rows} == {None}
    assert {entry["wrong"] for entry in found.rates["classes"]} == {None}


def test_labels_that_are_missing_or_no_class_are_not_judged(write_run: Any) -> None:
    labels = [None, 10, -1, *LABELS[3:].tolist()]
    sheets = sifted(write_run, top=200, labels=labels)[0].sheets
    judged = {row["row"]: row["correct"] for row in sheets["uncertain"]}
    assert (judged[0], judged[1], judged[2]) == (None, None, None)
    assert judged[3] is not None


def test_without_errors_the_uncertain_fill_the_page(write_run: Any) -> None:
    sheets = sifted(write_run, labels=PREDICTIONS.tolist())[0].sheets
    assert [row["sheets"] for row in sift.pick_images(sheets, 10)] == [["uncertain"]] * 10
    assert sift.pick_images(sheets, 0) == []


def test_where_no_picture_is_wanted_none_is_picked(write_run: Any) -> None:
    assert sifted(write_run, top=0)[0].sheets == {"uncertain": [], "errors": []}


def made_up(*places: int) -> list[dict[str, Any]]:
    return [{"source": "a", "row": place} for place in places]


def test_a_picture_in_both_sheets_counts_once() -> None:
    picked = sift.pick_images({"uncertain": made_up(*range(6)), "errors": made_up(*range(5, -1, -1))}, 6)
    assert [row["row"] for row in picked] == list(range(6))
    assert [row["sheets"] for row in picked] == [["uncertain"]] * 3 + [["uncertain", "errors"]] * 3


def test_sheets_share_the_page_and_the_first_one_takes_what_is_left() -> None:
    rare = [row | {"self_confidence": 0.1} for row in made_up(2, 9)]
    sheets = {"uncertain": made_up(*range(9)), "errors": made_up(8, 1, 2, 3), "doubtful": rare}
    picked = sift.pick_images(sheets, 7)  # two of each, and what is left for the first
    assert {row["row"]: " ".join(row["sheets"]) for row in picked} == {
        **dict.fromkeys((0, 3, 4), "uncertain"),
        **dict.fromkeys((1, 8), "uncertain errors"),
        2: "uncertain doubtful",
        9: "doubtful",
    }
    assert [row["row"] for row in picked if "self_confidence" in row] == [2, 9]
    both = sift.pick_images({"uncertain": [], "errors": made_up(1), "doubtful": rare[:1] + made_up(1)}, 9)
    assert [(row["row"], row["sheets"]) for row in both] == [(1, ["errors", "doubtful"]), (2, ["doubtful"])]


class Counter:
    """A watcher that keeps what it is offered."""

    columns = ("nll", "digest")

    def __init__(self) -> None:
        self.held: list[tuple[pa.Table, pa.Table]] = []

    def offer(self, rows: pa.Table, shown: pa.Table) -> None:
        self.held.append((rows, shown))


def test_a_watcher_sees_every_row_with_the_columns_it_asks_for(write_run: Any) -> None:
    run = scored.load_run("digits", write_run("digits", {"regrad": SCORES}, labels=LABELS.tolist()))
    counter = Counter()
    sift.sift(run, RULE, 3, True, lambda rows: None, UNLIKE, counter)
    assert sum(len(rows) for rows, _ in counter.held) == 90
    for rows, shown in counter.held:
        assert {"nll", "digest"} <= set(rows.column_names)
        assert shown["row"].to_pylist() == rows["row"].to_pylist()
        assert {"score", "correct", "flagged"} <= set(shown.column_names)


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
