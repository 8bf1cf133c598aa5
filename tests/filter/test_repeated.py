"""`regrad filter --drop-duplicates`: of what is there twice one stays, whichever run it is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad.__main__ import main
from tests.shards import digits, write_parquet

Place = Callable[[str], str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """``old`` of two sources with five images twice; ``new`` has seven of them again; and the duplicates of both."""
    folder = tmp_path_factory.mktemp("repeated")
    images = digits(40)
    twice = [(f"twice-{name}", image, label) for name, image, label in images[:5]]
    sources = {"old/a": images[:20], "old/b": [*images[20:30], *twice], "new/c": images[23:40]}
    for name, rows in sources.items():
        write_parquet(folder / f"in/{name}.parquet", rows)
    flags = ["--model", "tests.shards:build", "--scores", "entropy", "--ray-address", "none", "--unit-rows", "7"]
    for run in ("old", "new"):
        assert main(["score", str(folder / "in" / run), *flags, "--output", str(folder / run)]) == 0
    assert main(["duplicates", str(folder / "old"), str(folder / "new"), "--output", str(folder / "found")]) == 0
    return lambda name: str(folder / name)


def filtered(place: Place, run: str, output: Path, *more: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    assert main(["filter", place(run), "--drop-duplicates", place("found"), "--output", str(output), *more]) == 0
    kept, dropped = (pyarrow.parquet.read_table(output / f"{kind}.parquet").to_pylist() for kind in ("keep", "drop"))
    return kept, dropped


def test_one_of_each_stays(place: Place, tmp_path: Path) -> None:
    kept, dropped = filtered(place, "old", tmp_path / "old")
    assert {row["id"] for row in dropped} == {f"twice-{name}" for name, *_ in digits(5)}
    assert {row["reason"] for row in dropped} == {f"duplicates by {place('found')}: exact"}
    assert {row["id"] for row in kept} == {name for name, *_ in digits(30)}
    kept, dropped = filtered(place, "new", tmp_path / "new")
    assert {row["id"] for row in dropped} == {name for name, *_ in digits(30)[23:]}  # old has them
    assert {row["id"] for row in kept} == {name for name, *_ in digits(40)[30:]}


def test_shards_are_written_without_them(place: Place, tmp_path: Path) -> None:
    kept, _ = filtered(place, "old", tmp_path / "old", "--write-shards", "--ray-address", "none")
    written = [
        pyarrow.parquet.read_table(path)["id"].to_pylist() for path in (tmp_path / "old/shards").glob("*.parquet")
    ]
    assert sorted(name for names in written for name in names) == sorted(row["id"] for row in kept)


def test_what_is_of_other_runs_or_none_is_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = str(tmp_path / "alone")
    assert main(["duplicates", place("old"), "--output", alone]) == 0
    command = ["filter", place("new"), "--output", str(tmp_path / "out"), "--drop-duplicates"]
    assert main([*command, alone]) == 2
    assert f"is of {place('old')}, not of {place('new')}" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nowhere")]) == 2
    assert "no duplicates here; give the --output of regrad duplicates" in capsys.readouterr().err
    pa.parquet.write_table(pa.table({"run": ["x"]}), Path(alone) / "duplicates.parquet")
    assert main([*command, alone]) == 1
    assert "not readable" in capsys.readouterr().err
    assert main([*command, place("found"), "--per-class"]) == 2
    assert "--per-class goes with --quantile or --top" in capsys.readouterr().err
