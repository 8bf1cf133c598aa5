"""Rows by the ledger: what counts and nothing else, in every way they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import table
from regrad.errors import RegradError
from regrad.ledger import commit, contents, fold, merge
from regrad.ledger.rows import Rows, read_ids
from regrad.pipeline.account import as_table
from tests.outputs import commit_rows


def scores(*names: str, first: int = 0) -> pa.Table:
    rows = [(name, "a", first + row, 1, 1, 0.5, 0.7, "d", 1.0) for row, name in enumerate(names)]
    return as_table(rows, table.score_schema(["entropy"]))


def refused(*names: str) -> pa.Table:
    return as_table([(name, "a", 9, "read", "bad", None) for name in names], table.QUARANTINE_SCHEMA)


def ids(output: Any, **more: Any) -> list[str]:
    return [name for rows in Rows(str(output), **more).tables(["id"]) for name in rows["id"].to_pylist()]


def test_rows_of_units_that_count_and_no_others(tmp_path: Path) -> None:
    output = str(tmp_path)
    commit_rows(output, "1", scores("a", "b"))
    commit_rows(output, "2", scores("c"), refused("x"))
    commit_rows(output, "3", None, refused("y", "z"))
    (tmp_path / "scores/part-4.parquet").write_bytes((tmp_path / "scores/part-1.parquet").read_bytes())
    assert ids(output) == ["a", "b", "c"]
    assert ids(output, kind="quarantine") == ["x", "y", "z"]
    assert ids(output, units={"2", "3", "9"}) == ["c"]
    assert [Rows(output, kind).count() for kind in contents.ONCE] == [3, 3]
    read = dict(Rows(output).by_unit(["id"]))
    assert [(place.unit, place.rows) for place in read] == [("1", 2), ("2", 1)]
    schema = Rows(output).schema()
    assert schema is not None
    assert schema.equals(table.score_schema(["entropy"]))
    assert Rows(output, units=["3"]).schema() is None


def test_columns_that_came_later_are_null_in_parts_of_before(tmp_path: Path) -> None:
    output, path = str(tmp_path), tmp_path / "scores/part-1.parquet"
    for key in "12":
        commit_rows(output, key, scores("a", "b"))
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["digest"]), path)
    columns = [rows["digest"] for rows in Rows(output).tables(["digest", "id"])]
    assert [column.to_pylist() for column in columns] == [[None, None], ["d", "d"]]
    assert {column.type for column in columns} == {pa.string()}
    assert Rows(output).schema().field("digest").type == pa.string()


@pytest.mark.parametrize("harm", ["cut", "gone", "flipped", "lacks a column"])
def test_damage_is_told(tmp_path: Path, harm: str) -> None:
    output, path = str(tmp_path), tmp_path / "scores/part-2.parquet"
    for key in "123":
        commit_rows(output, key, scores("a", "b"))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    match harm:
        case "cut":
            path.write_bytes(content[:-7])
        case "gone":
            path.unlink()
        case "flipped":
            path.write_bytes(content)
        case _:
            pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns(["id"]), path)
    with pytest.raises(RegradError, match="scores: cannot read: "):
        ids(output)
    wrong = {place.unit: isinstance(unit, Exception) for place, unit in Rows(output).by_unit(["id"])}
    assert wrong == {"1": False, "2": True, "3": False}
    records = contents.read_records(output, "123")
    assert [whole is None for whole in read_ids(output, records)] == [False, True, False]


def test_a_unit_that_is_replaced_while_it_is_read_is_told(tmp_path: Path) -> None:
    output = str(tmp_path)
    for key in ("1", "2"):
        commit_rows(output, key, scores("a"))
    placed = Rows(output)
    commit.retire(output, ["2"])
    with pytest.raises(RegradError, match="unit 2 was replaced while it was read; run the same command again"):
        list(placed.tables(["id"]))
    assert [isinstance(unit, Exception) for _, unit in placed.by_unit()] == [False, True]


def test_the_ids_of_a_unit_are_those_of_its_rows_in_order(tmp_path: Path) -> None:
    there = scores("s12", "s10").set_column(2, "row", [[12, 10]])
    bad = refused("q11").set_column(2, "row", [[11]])
    record = commit_rows(str(tmp_path), "1", there, bad, start=10, stop=13)
    asked = [record, record | {"stop": 14}, record | {"start": 11}]
    assert read_ids(str(tmp_path), asked) == [["s10", "q11", "s12"], None, None]
    commit_rows(str(tmp_path), "1", there, bad.set_column(0, "id", [pa.array([None], pa.string())]), start=10, stop=13)
    assert read_ids(str(tmp_path), [record]) == [None]
    (tmp_path / "quarantine/part-1.parquet").unlink()
    assert read_ids(str(tmp_path), [record]) == [None]


def test_what_is_lost_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path)
    for number in range(40):
        commit_rows(output, f"{number:02}", scores("a"))
    fold.fold(output, lambda: None, at_least=1)
    merge.merge(output, lambda: None, at_least=1)
    for number in range(40, 80):
        commit_rows(output, f"{number:02}", scores("a"))
    placed = Rows(output)
    for path in (tmp_path / "scores").iterdir():
        path.unlink()
    looks = []
    real = contents.look
    monkeypatch.setattr(contents, "look", lambda given: looks.append(given) or real(given))  # type: ignore[func-returns-value]
    assert [type(unit) for _, unit in placed.by_unit()] == [FileNotFoundError] * 80
    assert len(looks) == 2  # for the file, and for the parts
