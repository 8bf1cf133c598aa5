"""What is remembered of shards: a listing with it is the listing without it, and opens nothing twice."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.reading import inputs
from regrad.reading.inputs import Listing, list_inputs
from regrad.reading.looked import Looked
from regrad.reading.samples import Columns
from tests.conftest import png


def write(path: Path, rows: int, **columns: Any) -> None:
    pa.parquet.write_table(pa.table({"image": [png(row) for row in range(rows)], **columns}), path)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A plain shard, one with names of classes, one without the label column, one cut short, and a table beside one."""
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.parquet", 3, label=[0, 1, 2])
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    named = pa.table({"image": [png(1), png(2)], "label": [0, 1]}).replace_schema_metadata(
        {"huggingface": json.dumps(features)}
    )
    pa.parquet.write_table(named, folder / "b.parquet")
    write(folder / "c.parquet", 4)
    (folder / "d.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-20])
    pa.parquet.write_table(pa.table({"url": ["x"]}), folder / "a.pq")
    return folder


def opened(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> tuple[Listing, list[str]]:
    """A listing, and the names of the shards that were opened for it."""
    names: list[str] = []
    real = inputs._with_rows

    def counting(source: Any) -> Any:
        names.append(source.uri.rpartition("/")[2])
        return real(source)

    monkeypatch.setattr(inputs, "_with_rows", counting)
    listing = list_inputs(*arguments)
    monkeypatch.setattr(inputs, "_with_rows", real)
    return listing, sorted(names)


def told(listing: Listing) -> Any:
    """All of a listing, with what makes no two equal."""
    return [(dataclasses.replace(source, no_labels=None), str(source.no_labels)) for source in listing.sources], (
        listing.left_out,
        listing.notes,
        listing.warnings,
    )


@pytest.mark.parametrize("columns", [Columns(), Columns(label="label"), Columns("image", "label", "image")])
def test_a_shard_that_has_not_changed_is_not_opened_again(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: Columns
) -> None:
    output = str(tmp_path / "out")
    without = list_inputs([str(shards)], columns, output)
    first, names = opened(monkeypatch, [str(shards)], columns, output, Looked(output))
    assert names == ["a.parquet", "a.pq", "b.parquet", "c.parquet", "d.parquet"]
    first.looked.save()
    again, names = opened(monkeypatch, [str(shards)], columns, output, Looked(output))
    assert names == ["d.parquet"]  # which is damaged, and may have been so for the moment only
    assert told(again) == told(first) == told(without)
    write(shards / "c.parquet", 9)
    os.utime(shards / "c.parquet", ns=(1, 1))
    later, names = opened(monkeypatch, [str(shards)], columns, output, again.looked)
    assert names == ["c.parquet", "d.parquet"]
    assert [source.rows for source in later.sources] == [3, 2, 9, None]


def test_other_columns_and_another_version_are_looked_at_anew(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path / "out")
    list_inputs([str(shards)], Columns(), output, looked := Looked(output))
    looked.save()
    for columns in (Columns(label="label"), Columns(id="label"), Columns(image="image")):
        assert len(opened(monkeypatch, [str(shards)], columns, output, Looked(output))[1]) == 5
    assert len(opened(monkeypatch, [str(shards)], Columns(), output, Looked(output, "0.0.0"))[1]) == 5


def test_what_may_change_unnoticed_is_opened_each_time(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path / "out")
    monkeypatch.setattr(storage, "tells_change", lambda identity: False)
    list_inputs([str(shards)], Columns(), output, looked := Looked(output))
    looked.save()
    assert len(opened(monkeypatch, [str(shards)], Columns(), output, Looked(output))[1]) == 5


def test_nothing_is_written_where_nothing_is_new_and_damage_is_nothing_known(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    list_inputs([str(shards)], Columns(), str(output), looked := Looked(str(output)))
    looked.save()
    monkeypatch.setattr(table, "write_file", lambda *_: pytest.fail("written again"))
    list_inputs([str(shards)], Columns(), str(output), looked := Looked(str(output)))
    looked.save()
    (output / "sources.parquet").write_bytes(b"PAR1, or not")
    assert len(opened(monkeypatch, [str(shards)], Columns(), str(output), Looked(str(output)))[1]) == 5
