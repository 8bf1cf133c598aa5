"""`regrad audit` as a user runs it, on Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from regrad.commands.audit import main
from tests.shards import digits, write_tar

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main([*map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("ray_session")
def test_one_command_makes_the_baseline_and_then_audits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in/known.tar", digits(60))
    command = (
        *(tmp_path / "in", "--model", "tests.shards:build", "--scores", "entropy", "--make-baseline"),
        *("--baseline", tmp_path / "baseline", "--output", tmp_path / "audit", "--night", "n1"),
        *(
            "--gate",
            "flagged_share < 0.5",
            "--gate",
            "quarantined < 1%",
            "--notify",
            "http://127.0.0.1:9/a-secret-path",
        ),
    )
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert "scored 60 images" in out
    assert "the baseline; the next run of this command audits" in out
    assert not (tmp_path / "audit").exists()
    write_tar(tmp_path / "in/new.tar", [*digits(50), ("bad.png", b"no image", 1)])
    code, out, _ = run(capsys, *command, "--dry-run")
    assert code == 0
    assert "baseline   " in out
    assert "gates      flagged_share < 0.5; quarantined < 1%" in out
    assert not (tmp_path / "audit").exists()
    code, out, err = run(capsys, *command)
    assert code == 3  # goes before 4
    assert "exit code 3: exceeded quarantined < 1%" in err
    assert "warning: --notify http://127.0.0.1/***: " in err
    assert "of 50 images" in out
    found = json.loads((tmp_path / "audit/audit.json").read_text())
    assert (found["exit_code"], found["images"]) == (3, 50)
    html = (tmp_path / "audit/nights/n1/audit.html").read_text()
    assert html.count("data:image/webp;base64,") == len(found["pictures"]) == 48
    everything = [path.read_bytes() for path in (tmp_path / "audit").rglob("*") if path.is_file()]
    assert not any(b"a-secret-path" in content for content in everything)
    assert "a-secret-path" not in out + err
    assert run(capsys, *command[:-2], "--gate", "flagged_share < 0.9")[0] == 3
    assert len(pyarrow.parquet.read_table(tmp_path / "audit/history.parquet")) == 1


def test_more_in_quarantine_than_allowed_is_code_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "known.tar", digits(30))
    write_tar(tmp_path / "in/new.tar", [*digits(20), ("bad.png", b"no image", 1)])
    command = ("--model", "tests.shards:build", "--scores", "entropy", "--no-thumbnails", "--baseline", tmp_path / "b")
    command = (*command, "--ray-address", "none")
    assert run(capsys, tmp_path / "known.tar", *command, "--output", tmp_path / "a", "--make-baseline")[0] == 0
    assert run(capsys, tmp_path / "in", *command, "--output", tmp_path / "a", "--gate", "images > 5")[0] == 4
    # The night counts, not the whole output.
    write_tar(tmp_path / "in/next.tar", digits(10))
    assert run(capsys, tmp_path / "in", *command, "--output", tmp_path / "a", "--night", "9999")[0] == 0


def test_wrong_usage_is_one_line_and_code_2(tmp_path: Path) -> None:
    arguments = ["-m", "regrad", "audit", "x", "--model", "tests.shards:build", "--output", str(tmp_path / "out")]
    ended = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: --baseline missing: ")
    assert ended.stderr.count("\n") == 1
