"""Rows against the truth."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from regrad.benchmarks.peers.counted import count_rows, scores_of


def write(path: Path, rows: dict[str, float | None]) -> None:
    path.parent.mkdir(exist_ok=True)
    pa.parquet.write_table(pa.table({"id": list(rows), "entropy": pa.array(rows.values(), pa.float64())}), path)


def test_what_became_of_every_image(tmp_path: Path) -> None:
    write(tmp_path / "out/a.parquet", {"/in/a": 1.0, "/in/b": None, "/in/c": float("nan"), "/in/d": 4.0})
    write(tmp_path / "out/b.parquet", {"/in/d": 4.0, "e": 5.0, "of nobody": 6.0})
    write(tmp_path / "quarantine/a.parquet", {})
    pa.parquet.write_table(pa.table({"id": ["f"], "reason": ["truncated"]}), tmp_path / "quarantine/b.parquet")
    (tmp_path / "out/c.parquet").write_bytes(b"PAR1 and no end")
    os.utime(tmp_path / "out/a.parquet", (2e9, 2e9))
    counted = count_rows([tmp_path / "out", tmp_path / "quarantine", tmp_path / "nowhere"], "entropy", "abcdefgh")
    assert counted.as_dict() == {
        "scored": 2,  # a, e
        "told": 3,  # b, c, f
        "doubled": 1,  # d
        "lost": 2,  # g, h
        "foreign": 1,
        "unreadable": 1,
        "last": 2e9,
    }


def test_nothing_is_there(tmp_path: Path) -> None:
    counted = count_rows([tmp_path], "entropy", "ab")
    assert (counted.lost, counted.last) == (2, None)


def test_scores_go_by_the_last_part_of_an_id(tmp_path: Path) -> None:
    write(tmp_path / "out/a.parquet", {"/in/a": 1.0, "b": 2.0, "c": None})
    assert scores_of([tmp_path / "out"], "entropy") == {"a": 1.0, "b": 2.0}
