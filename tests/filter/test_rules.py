"""Rules against the same rules in numpy, and every image on one of the two lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import table
from regrad.errors import UsageError
from regrad.filter import rules
from regrad.runs import scored, tally
from tests.outputs import commit_rows

RNG = np.random.default_rng(0)


@pytest.fixture
def run(write_run: Any) -> scored.Run:
    return scored.load_run(
        "run", write_run("digits", {"regrad": RNG.normal(0, 1, 300).round(1), "entropy": RNG.random(300)})
    )


def columns(run: scored.Run) -> dict[str, np.ndarray]:
    rows = pyarrow.parquet.read_table(f"{run.output}/scores").sort_by("row")
    return {name: rows[name].to_numpy() for name in ("row", "prediction", "regrad", "entropy")}


def dropped(run: scored.Run, rule: rules.Rule) -> set[int]:
    found: dict[str, list[Any]] = {"keep": [], "drop": []}
    counts = rules.sort_out(run, rule, lambda kind, rows: found[kind].extend(rows.to_pylist()))
    assert (counts.kept, counts.dropped) == (len(found["keep"]), len(found["drop"]))
    assert sorted(row["row"] for row in [*found["keep"], *found["drop"]]) == list(range(300))
    assert all(row["reason"] for rows in found.values() for row in rows)
    return {row["row"] for row in found["drop"]}


def test_a_condition(run: scored.Run) -> None:
    held = columns(run)
    rule = rules.make_rule(run, "regrad > 1 and prediction in (3, 5)", None, None, "regrad", False)
    expected = np.flatnonzero((held["regrad"] > 1) & np.isin(held["prediction"], (3, 5)))
    assert dropped(run, rule) == set(expected.tolist())


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("cells", [rules.CELLS, 16])  # exact, and cells that hold many values
def test_a_quantile(run: scored.Run, per_class: bool, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = columns(run)
    monkeypatch.setattr(rules, "Tally", lambda wanted: tally.Tally(cells))
    rule = rules.make_rule(run, None, 0.9, None, "regrad", per_class)
    expected: set[int] = set()
    for group in np.unique(held["prediction"]) if per_class else [None]:
        own = np.flatnonzero(held["prediction"] == group) if per_class else np.arange(300)
        bound = np.sort(held["regrad"][own])[int(np.ceil(0.9 * own.size)) - 1]
        expected |= set(own[held["regrad"][own] > bound].tolist())  # flagged is strictly above
    assert dropped(run, rule) == expected


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("top", [0, 1, 7, 29, 300, 1000])
@pytest.mark.parametrize("cells", [rules.CELLS, 16])  # exact, and cells that hold many values
def test_the_highest(run: scored.Run, top: int, per_class: bool, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    held = columns(run)
    monkeypatch.setattr(rules, "Tally", lambda wanted: tally.Tally(cells))
    rule = rules.make_rule(run, None, None, top, "regrad", per_class)
    gone = dropped(run, rule)
    for group in np.unique(held["prediction"]) if per_class else [None]:
        own = np.flatnonzero(held["prediction"] == group) if per_class else np.arange(300)
        ours = sorted(gone & set(own.tolist()))
        assert len(ours) == min(top, own.size)
        expected = np.sort(held["regrad"][own])[::-1][:top]
        assert np.sort(held["regrad"][ours])[::-1].tolist() == expected.tolist()


def test_the_choice_among_ties_is_the_same_every_time(write_run: Any) -> None:
    run = scored.load_run("run", write_run("ties", {"regrad": np.zeros(300)}))
    first, second = (dropped(run, rules.make_rule(run, None, None, 9, "regrad", False)) for _ in range(2))
    assert first == second
    assert len(first) == 9


def test_what_was_not_scored_is_dropped_with_its_reason(run: scored.Run, tmp_path: Path) -> None:
    bad = pa.table(
        {"id": ["x"], "source": ["s"], "row": [7], "stage": ["decode"], "reason": ["no picture"], "digest": ["d"]},
        schema=table.QUARANTINE_SCHEMA,
    )
    commit_rows(run.output, "bad", quarantine=bad)
    rule = rules.make_rule(run, "regrad > 99", None, None, "regrad", False)
    with rules.lists(str(tmp_path / "out")) as listed:
        found = rules.sort_out(run, rule, listed)
    assert (found.kept, found.dropped, found.quarantined) == (300, 0, 1)
    (row,) = pyarrow.parquet.read_table(tmp_path / "out/drop.parquet").to_pylist()
    assert (row["id"], row["row"], row["reason"]) == ("x", 7, "not scored: decode: no picture")
    assert len(pyarrow.parquet.read_table(tmp_path / "out/keep.parquet")) == 300
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["drop.parquet", "keep.parquet"]


def test_lists_that_were_not_finished_are_not_there(run: scored.Run, tmp_path: Path) -> None:
    def break_off() -> None:
        with rules.lists(str(tmp_path / "out")) as listed:
            listed("keep", rules.LIST_SCHEMA.empty_table())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list((tmp_path / "out").iterdir()) == []


def test_examples_are_at_the_edge(run: scored.Run) -> None:
    held = columns(run)
    found = rules.sort_out(run, rules.make_rule(run, "regrad > 1", None, None, "regrad", False), top=3)
    shown = {name: [row["score"] for row in rows] for name, rows in found.examples.items()}
    gone, kept = held["regrad"][held["regrad"] > 1], held["regrad"][held["regrad"] <= 1]
    assert shown["dropped, highest"] == np.sort(gone)[::-1][:3].tolist()
    assert shown["dropped, lowest"] == np.sort(gone)[:3].tolist()
    assert shown["kept, highest"] == np.sort(kept)[::-1][:3].tolist()


def test_a_score_that_is_not_there_is_refused(run: scored.Run) -> None:
    assert rules.main_score(run, None) == "regrad"
    with pytest.raises(UsageError, match="has the scores regrad, entropy"):
        rules.main_score(run, "energy")
