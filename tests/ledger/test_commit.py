from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import commit, contents
from regrad.ledger.commit import NewUnit
from regrad.pipeline.account import as_table

KEY = "0" * 32


def unit(key: str = KEY, scored: int = 2, quarantined: int = 1, **record: Any) -> tuple[Any, ...]:
    scores = as_table(
        [(f"{row}", "a", row, 1, 1, 0.5, 0.7, "d", 1.0) for row in range(scored)], table.score_schema(["entropy"])
    )
    bad = as_table([(None, "a", None, "read", "bad", None)] * quarantined, table.QUARANTINE_SCHEMA)
    counts = {"rows_in": scored + quarantined, "rows_scored": scored, "rows_quarantined": quarantined}
    return {"unit": key, "source": "a", **counts, **record}, scores, bad, {"config": {"sigma": 0.5}}


def embedded(rows: int = 2) -> pa.Table:
    return as_table(
        [(f"{row}", "a", row, "d", "p", 5, np.ones(3, np.float16)) for row in range(rows)], table.embedding_schema(3)
    )


def files(output: Path) -> list[str]:
    return sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())


def test_a_unit_is_two_parts_and_a_record(tmp_path: Path) -> None:
    commit.write_unit(str(tmp_path), NewUnit(*unit()))
    assert files(tmp_path) == [f"ledger/{KEY}.json", f"quarantine/part-{KEY}.parquet", f"scores/part-{KEY}.parquet"]
    assert contents.committed(str(tmp_path)) == {KEY}
    assert contents.read_records(str(tmp_path), [KEY])[0]["rows_scored"] == 2
    part = pyarrow.parquet.read_table(tmp_path / "scores" / f"part-{KEY}.parquet")
    assert part.schema.metadata[b"regrad"] == b'{"config": {"sigma": 0.5}}'
    assert part["entropy"].to_pylist() == [1.0, 1.0]


def test_empty_parts_are_not_written_and_stale_ones_go(tmp_path: Path) -> None:
    commit.write_unit(str(tmp_path), NewUnit(*unit()))
    commit.write_unit(str(tmp_path), NewUnit(*unit(quarantined=0)))
    assert files(tmp_path) == [f"ledger/{KEY}.json", f"scores/part-{KEY}.parquet"]
    commit.write_unit(str(tmp_path), NewUnit(*unit(scored=0, quarantined=0)))
    assert files(tmp_path) == [f"ledger/{KEY}.json"]


@pytest.mark.parametrize(
    "wrong", [{"rows_in": 4}, {"rows_scored": 3}, {"rows_scored": 1, "rows_quarantined": 2, "rows_in": 2}]
)
def test_rows_that_do_not_add_up_are_not_committed(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(RegradError, match="2 scored and 1 quarantined; the unit was not committed"):
        commit.write_unit(str(tmp_path), NewUnit(*unit(**wrong)))
    assert files(tmp_path) == []


def test_a_scored_image_without_an_embedding_is_not_committed(tmp_path: Path) -> None:
    with pytest.raises(RegradError, match="2 rows scored but 1 embeddings; the unit was not committed"):
        commit.write_unit(str(tmp_path), NewUnit(*unit(), embeddings=embedded(1)))
    assert files(tmp_path) == []


def test_the_record_is_written_last_and_removed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    write, remove = storage.write_atomically, storage.remove
    monkeypatch.setattr(
        storage, "write_atomically", lambda uri, content: steps.append(f"+{uri}") or write(uri, content)
    )
    monkeypatch.setattr(storage, "remove", lambda uri: steps.append(f"-{uri}") or remove(uri))
    old = "1" * 32
    commit.write_unit(str(tmp_path), NewUnit(*unit(old), embeddings=embedded()))
    steps.clear()
    commit.write_unit(str(tmp_path), NewUnit(*unit(), replaces=[old], embeddings=embedded()))
    kinds = [(step[0], Path(step).parent.name, old in step) for step in steps]
    assert kinds[:2] == [("+", "ledger", True), ("-", "ledger", True)]
    assert {kind[:2] for kind in kinds[2:5]} == {("-", kind) for kind in contents.KINDS}
    assert [kind[:2] for kind in kinds[5:]] == [*(("+", kind) for kind in contents.KINDS), ("+", "ledger")]
    assert contents.committed(str(tmp_path)) == {KEY}


def test_parts_of_no_unit_are_swept(tmp_path: Path) -> None:
    commit.write_unit(str(tmp_path), NewUnit(*unit(), embeddings=embedded()))
    for kind in contents.KINDS:
        (tmp_path / kind / "part-stray.parquet").write_bytes(b"rest of a killed run")
    assert commit.sweep(str(tmp_path), {KEY}) == 3
    assert len(files(tmp_path)) == 4


def test_what_is_left_over_is_what_no_unit_has(tmp_path: Path) -> None:
    other = "1" * 32
    for key in (KEY, other):
        commit.write_unit(str(tmp_path), NewUnit(*unit(key), embeddings=embedded()))
    (tmp_path / "scores/_tmp-1-x.parquet").write_bytes(b"half")
    left = {str(Path(uri).relative_to(tmp_path)) for uri in commit.left_over(str(tmp_path), {KEY})}
    parts = {f"{kind}/part-{other}.parquet" for kind in contents.KINDS}
    assert left == {"scores/_tmp-1-x.parquet", *parts}


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/x.json").write_text("{")
    with pytest.raises(RegradError, match=r"ledger/x.json: not a readable ledger record .* delete it"):
        contents.read_records(str(tmp_path), ["x"])
