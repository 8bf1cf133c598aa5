"""Members of a tar put together to samples, in whatever order they come."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from regrad.reading.samples import Columns, Shard
from regrad.reading.tars.grouping import Grouping, TarRow, Unread
from tests.shards import write_members

SAMPLES = {name: (f"picture {name}".encode(), f"{number}".encode()) for number, name in enumerate("abcd")}


def rows_of(
    path: str, columns: Columns | None = None, content: bool = True
) -> tuple[list[TarRow], Grouping, list[str]]:
    skipped: list[str] = []
    grouping = Grouping(path, columns or Columns(), skipped.append)
    with Shard(path) as shard:
        return list(grouping.rows(shard, content)), grouping, skipped


def members_of(*names: str) -> list[tuple[str, bytes]]:
    return [
        (f"{name}.{field}", content)
        for name in names
        for field, content in zip(("png", "cls"), SAMPLES[name], strict=True)
    ]


ORDERS = {
    "by sample": members_of(*SAMPLES),
    "labels first": [member for name in SAMPLES for member in members_of(name)[::-1]],
    "pictures, then labels": members_of(*SAMPLES)[::2] + members_of(*SAMPLES)[1::2],
    "labels, then pictures": members_of(*SAMPLES)[1::2] + members_of(*SAMPLES)[::2],
    "shuffled": random.Random(3).sample(members_of(*SAMPLES), 8),
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_picture_has_its_label_in_any_order(tmp_path: Path, order: str) -> None:
    path = write_members(tmp_path / "x.tar", ORDERS[order])
    rows, grouping, skipped = rows_of(path)
    assert {row.key: (row.picture, next(row.texts("cls"))) for row in rows} == SAMPLES
    assert [row.key for row in rows] == [name.partition(".")[0] for name, _ in ORDERS[order] if name.endswith("png")]
    assert (grouping.apart, skipped) == (0, [])
    without, _, _ = rows_of(path, content=False)
    assert [row.name for row in without] == [row.name for row in rows]  # rows are numbered by names alone
    places = sorted(itertools.chain.from_iterable(grouping.places(row) for row in rows))
    assert places == list(range(8))  # each member is one sample's


def test_a_json_of_the_group_serves_its_samples_and_an_own_one_goes_before(tmp_path: Path) -> None:
    members = [("v.json", b"group"), ("v.1.json", b"own"), ("v.1.png", b"1"), ("v.2.png", b"2")]
    rows, _, _ = rows_of(write_members(tmp_path / "x.tar", members))
    held = {row.key: list(dict.fromkeys(row.texts("json"))) for row in rows}
    assert held == {"v.1": [b"own", b"group"], "v.2": [b"group"]}


def test_what_is_no_part_of_a_sample_is_told_by_reason(tmp_path: Path) -> None:
    members = [("a.png", b"1"), ("a.npy", b"x"), ("README", b"x"), (".hidden/b.png", b"2"), ("__MACOSX/._a.png", b"3")]
    rows, _, skipped = rows_of(write_members(tmp_path / "x.tar", members))
    assert [row.key for row in rows] == ["a"]
    assert len(skipped) == 4
    assert "type not read: .npy" in skipped


def test_a_name_that_comes_again_is_a_row_again(tmp_path: Path) -> None:
    rows, _, _ = rows_of(write_members(tmp_path / "x.tar", [("a.png", b"1"), ("a.cls", b"0"), ("a.png", b"2")]))
    assert [row.picture for row in rows] == [b"1", b"2"]


def test_labels_without_a_picture_are_rows_too(tmp_path: Path) -> None:
    rows, _, _ = rows_of(write_members(tmp_path / "x.tar", [*members_of("a"), ("lost.cls", b"1")]))
    assert [(row.key, row.picture) for row in rows] == [("a", SAMPLES["a"][0]), ("lost", None)]


def test_a_picture_that_is_not_read_says_why(tmp_path: Path) -> None:
    (row,), _, _ = rows_of(write_members(tmp_path / "x.tar", [("a.cr2", b"raw")]))
    assert isinstance(row.picture, Unread)
    assert "a.cr2" in row.picture.why
    assert row.picture.stage == "decode"


def test_the_column_that_is_asked_for_is_the_picture_whatever_its_case(tmp_path: Path) -> None:
    members = [("a.png", b"whole"), ("a.seg.PNG", b"mask"), ("b.seg.png", b"mask b")]
    rows, _, _ = rows_of(write_members(tmp_path / "x.tar", members), Columns(image="SEG.png"))
    assert [(row.key, row.picture) for row in rows] == [("a", b"mask"), ("b", b"mask b")]
