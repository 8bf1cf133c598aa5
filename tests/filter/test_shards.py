"""Shards of the kept rows: every member and column as it was, each shard once, whatever was cut short."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.filter import carry_out as filters
from regrad.filter import rules, shards
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.runs import scored
from tests.services import Bucket
from tests.shards import digits, png, write_folder, write_members, write_parquet


def score(source: str, output: str) -> scored.Run:
    settings = ["--model", "tests.shards:build", "--scores", "entropy", "--max-quarantined", "99%", "--unit-rows", "20"]
    execute(prepare(parse([source, *settings, "--output", output], "score", None)), score_here)
    return scored.load_run("run", output)


def here(function: Any, items: Any, *_: Any) -> Any:
    """In place of Ray."""
    return map(function, items)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrad.cluster.tasks.each", here)


def half(loaded: scored.Run) -> rules.Rule:
    return rules.make_rule(loaded, None, 0.5, None, "entropy", False)


def kept(output: str) -> list[dict[str, Any]]:
    content = storage.read_bytes(f"{output}/keep.parquet")
    return pyarrow.parquet.read_table(pa.BufferReader(content)).to_pylist()


def members(content: bytes) -> list[tuple[Any, ...]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [
            (info.name, info.mtime, info.mode, info.uname, file.read() if (file := archive.extractfile(info)) else None)
            for info in archive
        ]


def shard(output: str) -> bytes:
    (name,) = storage.list_files(f"{output}/shards")
    return storage.read_bytes(f"{output}/shards/{name}")


def write_rich_tar(path: Path) -> str:
    """Samples of several members each, and what is no sample: a folder, a README, a desktop's litter, a bad image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        folder = tarfile.TarInfo("train")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in (("README", b"read me"), ("train/._x.png", b"litter")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for row, (_, image, label) in enumerate(digits(30)):
            parts = {
                "png": image if row != 4 else b"bad",
                "cls": str(label).encode(),
                "seg.bin": bytes(range(row)) * 700,
            }
            for extension, content in parts.items():
                info = tarfile.TarInfo(f"train/{row:04}é.{extension}")
                info.size, info.mtime, info.mode, info.uname = len(content), 1_700_000_000.5 + row, 0o640, "somebody"
                archive.addfile(info, io.BytesIO(content))
    return str(path)


def test_a_tar_keeps_every_member_of_a_kept_sample(tmp_path: Path) -> None:
    source = write_rich_tar(tmp_path / "in.tar")
    loaded = score(source, str(tmp_path / "run"))
    outcome = filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    rows = {row["row"] for row in kept(str(tmp_path / "out"))}
    assert (outcome.rows, outcome.shards, outcome.written) == (len(rows), 1, 1)
    assert 4 not in rows
    assert 10 < len(rows) < 20
    before = [item for item in members(Path(source).read_bytes()) if item[0].startswith("train/0")]
    expected = [item for place, item in enumerate(before) if place // 3 in rows]
    assert members(shard(str(tmp_path / "out"))) == expected
    # What was kept can be scored again, and gives the same rows.
    again = score(str(tmp_path / "out/shards"), str(tmp_path / "again"))
    ids = pyarrow.parquet.read_table(f"{again.output}/scores")["id"].to_pylist()
    assert sorted(ids) == sorted(row["id"] for row in kept(str(tmp_path / "out")))


def test_a_compressed_tar_and_one_that_is_cut_short(tmp_path: Path) -> None:
    whole = [(f"{row}.png", image) for row, (_, image, _) in enumerate(digits(20))]
    packed = write_members(tmp_path / "packed.tar.gz", whole, "w:gz")
    loaded = score(packed, str(tmp_path / "run"))
    filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    rows = [row["row"] for row in kept(str(tmp_path / "out"))]
    assert [(item[0], item[4]) for item in members(shard(str(tmp_path / "out")))] == [whole[row] for row in rows]
    plain = Path(write_members(tmp_path / "cut.tar", whole))
    plain.write_bytes(plain.read_bytes()[: 1024 * 11 + 300])
    loaded = score(str(plain), str(tmp_path / "cut-run"))
    rule = rules.make_rule(loaded, "entropy > 99", None, None, "entropy", False)
    filters.carry_out(loaded, rule, str(tmp_path / "cut-out"), write_shards=True)
    found = [item[0] for item in members(shard(str(tmp_path / "cut-out")))]
    assert found == [f"{row}.png" for row in range(len(found))]
    assert len(found) == len(kept(str(tmp_path / "cut-out"))) > 5


def test_parquet_keeps_every_column(tmp_path: Path) -> None:
    extra = {
        "note": [f"n{row}" if row % 3 else None for row in range(60)],
        "list": [[row] * (row % 4) for row in range(60)],
    }
    source = write_parquet(tmp_path / "in.parquet", digits(), **extra)
    loaded = score(source, str(tmp_path / "run"))
    filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    rows = [row["row"] for row in sorted(kept(str(tmp_path / "out")), key=lambda row: row["row"])]
    before, after = (
        pyarrow.parquet.read_table(source),
        pyarrow.parquet.read_table(pa.BufferReader(shard(str(tmp_path / "out")))),
    )
    assert after.equals(before.take(rows))
    assert after.schema.equals(before.schema, check_metadata=True)


def damage_second_group(path: Path) -> None:
    """Make the first ids of the second of three row groups unreadable."""
    rows = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(rows, path, row_group_size=20, use_dictionary=False)
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = bytes(
        column.total_compressed_size
    )
    path.write_bytes(content)


def test_a_damaged_row_group_costs_its_own_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    before = pyarrow.parquet.read_table(write_parquet(path, digits()))
    damage_second_group(path)
    loaded = score(str(path), str(tmp_path / "run"))
    filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    rows = sorted(row["row"] for row in kept(str(tmp_path / "out")))
    assert len(rows) == 20
    assert not set(rows) & set(range(20, 40))
    after = pyarrow.parquet.read_table(pa.BufferReader(shard(str(tmp_path / "out"))))
    assert after.equals(before.take(rows))


def test_a_kept_row_that_cannot_be_read_any_more_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.parquet"
    write_parquet(path, digits())
    loaded = score(str(path), str(tmp_path / "run"))
    identity = storage.identity(str(path))
    damage_second_group(path)
    monkeypatch.setattr(storage, "identity", lambda uri: identity)  # a disk that fails says nothing of a change
    with pytest.raises(RegradError, match=r"in\.parquet: row group 1 cannot be read from row 20 on.*regrad score"):
        filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    assert storage.list_files(str(tmp_path / "out/shards")) == []


def test_a_folder_becomes_tars_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrad.reading.folder.COPIED_FILES", 25)
    source = write_folder(tmp_path / "in", digits())
    loaded = score(source, str(tmp_path / "run"))
    outcome = filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    names = storage.list_files(str(tmp_path / "out/shards"))
    assert len(names) == outcome.shards == 3
    copied = [item for name in names for item in members((tmp_path / "out/shards" / name).read_bytes())]
    rows = kept(str(tmp_path / "out"))
    expected = {row["id"]: (tmp_path / "in" / row["id"]).read_bytes() for row in rows}
    expected |= {row["id"].replace(".png", ".cls"): str(row["label"]).encode() for row in rows}
    assert {item[0]: item[4] for item in copied} == expected
    assert len(copied) == len(expected)


def sources(folder: Path, count: int) -> str:
    rng = np.random.default_rng(0)
    for number in range(count):
        rows = [(f"{number}-{row}", png(rng.integers(0, 256, (8, 8))), 0) for row in range(12)]
        write_parquet(folder / f"{number}.parquet", rows)
    return str(folder)


def ids(output: str) -> list[str]:
    names = storage.list_files(f"{output}/shards")
    parts = [
        pyarrow.parquet.read_table(pa.BufferReader(storage.read_bytes(f"{output}/shards/{name}"))) for name in names
    ]
    return sorted(value for part in parts for value in part["id"].to_pylist())


def test_in_a_bucket_exactly_once_however_often_it_is_cut_short(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bucket.put(sources(tmp_path / "in", 6), "in")
    loaded = score(source, f"{bucket.uri}/run")
    output = f"{bucket.uri}/out"
    real, budget = storage.write_atomically, [0]

    def dying(uri: str, content: bytes) -> None:
        if "/ledger/" in uri:
            if not budget[0]:
                raise RegradError("killed")  # the shard is there, its record is not
            budget[0] -= 1
        real(uri, content)

    monkeypatch.setattr(storage, "write_atomically", dying)
    for allowed in (0, 1, 2):
        budget[0] = allowed
        with pytest.raises(RegradError, match="killed"):
            filters.carry_out(loaded, half(loaded), output, write_shards=True)
        assert set(ids(output)) <= {row["id"] for row in kept(output)}
    budget[0] = 99
    outcome = filters.carry_out(loaded, half(loaded), output, write_shards=True)
    assert (outcome.shards, outcome.written) == (6, 3)  # three were committed before
    assert ids(output) == sorted(row["id"] for row in kept(output))
    assert filters.carry_out(loaded, half(loaded), output, write_shards=True).written == 0
    # What has come in since, and another rule.
    for path in Path(sources(tmp_path / "more", 8)).iterdir():
        bucket.put(str(path), f"in/{path.name}")
    loaded = score(source, f"{bucket.uri}/run")
    filters.carry_out(loaded, half(loaded), output, write_shards=True)
    assert ids(output) == sorted(row["id"] for row in kept(output))
    assert len(storage.list_files(f"{output}/shards")) == 8
    few = rules.make_rule(loaded, "entropy > 99 or contains(source, '/1.parquet')", None, None, "entropy", False)
    with pytest.raises(UsageError, match=r"holds another filter: rule above the 0\.5 quantile"):
        filters.carry_out(loaded, few, output, write_shards=True)
    filters.carry_out(loaded, few, output, write_shards=True, replace=True)
    assert len(storage.list_files(f"{output}/shards")) == 7
    assert ids(output) == sorted(row["id"] for row in kept(output))
    assert len(ids(output)) == 84
    assert not any(name.startswith("1-") for name in storage.list_files(f"{output}/shards"))


def test_a_source_that_changed_since_it_was_scored_is_named(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    loaded = score(source, str(tmp_path / "run"))
    write_parquet(tmp_path / "in.parquet", digits(59))
    with pytest.raises(RegradError, match=r"in\.parquet: is not what was scored; run the same regrad score"):
        filters.carry_out(loaded, half(loaded), str(tmp_path / "out"), write_shards=True)
    assert storage.list_files(str(tmp_path / "out/shards")) == []
    folder = write_folder(tmp_path / "folder", digits(9))
    loaded = score(folder, str(tmp_path / "folder-run"))
    (tmp_path / "folder" / digits(1)[0][0]).write_bytes(png(np.zeros((8, 8))))
    with pytest.raises(RegradError, match="folder: is not what was scored"):
        filters.carry_out(loaded, half(loaded), str(tmp_path / "folder-out"), write_shards=True)


def test_shards_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_parquet(tmp_path / "in" / name / "0.parquet", [(f"{name}{row}", digits(1)[0][1], 0) for row in range(5)])
    loaded = score(str(tmp_path / "in"), str(tmp_path / "run"))
    rule = rules.make_rule(loaded, "entropy > 99", None, None, "entropy", False)
    assert filters.carry_out(loaded, rule, str(tmp_path / "out"), write_shards=True).shards == 2
    assert len(ids(str(tmp_path / "out"))) == 10


def test_an_output_of_another_kind_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(9))
    loaded = score(source, str(tmp_path / "run"))
    with pytest.raises(UsageError, match=r"holds a run of regrad score; use another --output"):
        filters.carry_out(loaded, half(loaded), str(tmp_path / "run"))


def test_kept_rows_are_bits() -> None:
    found = shards.Kept()
    found.add("b", np.array([1000, 3]))
    found.add("a", np.array([7]))
    found.add("b", np.array([4]))
    assert [(source, rows.tolist()) for source, rows in found.items()] == [("a", [7]), ("b", [3, 4, 1000])]
