"""Files of rows: their names, and that what they say is held against what the ledger says."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad import storage
from regrad.ledger import files, merge
from regrad.ledger.rows import Rows
from tests.ledger.test_merge import expected, made


def test_a_name_has_rows_bytes_and_the_digest_of_the_content() -> None:
    assert files.size_of(files.name_for(12, b"content")) == (12, 7)
    assert files.name_for(12, b"content") != files.name_for(12, b"another")


@pytest.mark.parametrize("name", ["part-0.parquet", "merged-1-2-3.parquet", "_tmp-merged-0.parquet"])
def test_other_names_have_no_size(name: str) -> None:
    assert files.size_of(name) is None


def test_rows_are_those_of_the_unit_or_none(tmp_path: Path) -> None:
    output = str(tmp_path)
    made(output)
    merge.merge(output, lambda: None, at_least=2)
    place = Rows(output).places[3]
    assert place.file is not None
    assert place.start is not None
    file = files.RowFile(storage.join(output, "scores", place.file), whole=False)
    rows = file.unit(place.unit, place.start, place.rows, ["id"]).rows["id"].to_pylist()
    assert rows == expected([int(place.unit[12:], 16)])
    for wrong in (
        (place.unit, place.start + 1, place.rows),
        (place.unit, place.start, place.rows + 1),
        ("f" * 32, 0, 1),
    ):
        with pytest.raises(ValueError, match="its footer names other rows"):
            file.unit(*wrong)
    with pytest.raises(ValueError, match="fewer rows than the ledger says"):
        file.group_of(np.array([10_000]))
    with pytest.raises(FileNotFoundError):
        files.RowFile(storage.join(output, "scores", "merged-0.parquet"), whole=False)


class Watched(io.FileIO):
    """A file that knows which threads read it."""

    def __init__(self, path: str):
        super().__init__(path)
        self.readers: set[int] = set()

    def read(self, size: int | None = -1) -> bytes:
        self.readers.add(threading.get_ident())
        return super().read(-1 if size is None else size)


@pytest.mark.parametrize("group", [0, None])
def test_a_file_is_read_by_the_thread_that_asks(
    group: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of Arrow's that lets go of the file while Python ends aborts the process."""
    output, opened = str(tmp_path), list[Watched]()
    made(output)
    merge.merge(output, lambda: None, at_least=2)

    def watched(uri: str, *_: Any) -> Watched:
        opened.append(Watched(uri))
        return opened[-1]

    monkeypatch.setattr(storage, "open_file", watched)
    (name,) = {place.file for place in Rows(output).places if place.file and place.start is not None}
    file = files.RowFile(storage.join(output, "scores", name), whole=False)
    assert file.read(group).num_rows
    assert {ident for each in opened for ident in each.readers} == {threading.get_ident()}


def test_a_file_that_is_read_whole_lies_in_arrows_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(str(tmp_path))
    content = next((tmp_path / "scores").glob("*.parquet")).read_bytes()
    monkeypatch.setattr(storage, "read_bytes", lambda uri: content)
    held = sys.getrefcount(content)
    file = files.RowFile("part.parquet", whole=True)
    assert sys.getrefcount(content) == held
    assert file.read().num_rows
