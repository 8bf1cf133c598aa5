"""A disk that is full or read-only: one clear line, nothing half-written, and the next run goes on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import regrad.commands.score
from regrad import table
from regrad.ledger import contents
from regrad.pipeline.run import score_here
from tests.shards import digits, write_parquet

MODEL = ("--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regrad.commands.score, "score_where_it_pays", score_here)


def score(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    code = regrad.commands.score.main([*map(str, arguments), *MODEL])
    return code, capsys.readouterr().err


def assert_whole(output: Path) -> int:
    """Every file there is whole and no temporary one is left; returns how many units are committed."""
    names = [path.name for path in output.rglob("*")]
    assert not [name for name in names if name.startswith("_tmp-")]
    assert all(pyarrow.parquet.read_table(path).num_rows == 1 for path in output.glob("scores/*.parquet"))
    committed = contents.committed(str(output))
    assert len(contents.read_records(str(output), committed)) == len(committed)
    return len(committed)


def test_a_full_disk(tmp_path: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(60))
    (disk / "filler").write_bytes(bytes(800_000))
    code, error = score(capsys, source, "--output", disk / "out")
    assert code == 1
    assert error.startswith(f"error: {disk}/out/")
    assert "cannot write: OSError: [Errno 28] No space left on device; free some space and run the same" in error
    assert error.count("\n") == 1
    done = assert_whole(disk / "out")
    assert 0 < done < 60
    os.remove(disk / "filler")
    assert score(capsys, source, "--output", disk / "out") == (0, "")
    assert assert_whole(disk / "out") == table.read(str(disk / "out")).num_rows == 60
    assert table.read_run(str(disk / "out"))["this_run"]["rows_scored"] == 60 - done


def test_a_read_only_output(tmp_path: Path, disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, error = score(capsys, source, "--output", disk / "out")
    assert code == 1
    assert error.startswith(f"error: {disk}/out/")
    assert "cannot write: OSError: [Errno 30] Read-only file system" in error
    assert error.count("\n") == 1
    assert list(disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert score(capsys, source, "--output", disk / "out") == (0, "")
    assert assert_whole(disk / "out") == 20
