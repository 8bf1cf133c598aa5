"""``regrad check`` as a user meets it: its words and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrad.commands.check import main
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.shards import digits, write_parquet


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A run of two units."""
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    settings = ("--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "10")
    execute(prepare(parse([source, *settings, "--output", str(tmp_path / "out")], "score", None)), score_here)
    return tmp_path / "out"


def test_a_sound_output_is_ok(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: OK: 2 units, 20 rows scored, 0 in quarantine\n"


def test_damage_is_named_and_repaired_when_asked(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = sorted(output.glob("scores/*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-9])
    assert main([str(output)]) == 1
    told = capsys.readouterr().out
    assert told.startswith("wrong: ")
    assert part.stem.removeprefix("part-") in told
    assert "1 problems" in told
    assert part.exists()  # looking changes nothing
    assert main([str(output), "--repair"]) == 0
    assert "dropped 1 units; run the same regrad score command again" in capsys.readouterr().out
    assert not part.exists()
    assert main([str(output)]) == 0
    assert "10 rows scored" in capsys.readouterr().out


def test_wrong_usage_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no run.json here" in capsys.readouterr().err
    assert main([str(tmp_path), "--repare"]) == 2
    assert "did you mean --repair?" in capsys.readouterr().err
