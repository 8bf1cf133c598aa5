"""Standard output and error that are closed, full, read no more, or of an encoding that lacks characters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regrad.cli import run_job

PROGRAM = """
import os, sys
from regrad.cli import run_job

def action():
    print("\\u7d50\\u679c")
    for line in range(int(sys.argv[1])):
        print(line, file=sys.stderr if "err" in sys.argv else sys.stdout, flush=True)
    own = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT)
    print(file=sys.stderr)
    if "fails" in sys.argv:
        raise ValueError("no")
    return 4 if own > 2 and all(map(os.get_inheritable, range(3))) else 5

sys.exit(run_job(action))
"""


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the shell makes of it; ``PROGRAM 3`` prints so many lines, and opens a file."""
    spelled = command.replace("PROGRAM", f"'{sys.executable}' '{folder}/program.py'")
    (folder / "program.py").write_text(PROGRAM)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {spelled}"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_goes_nowhere_and_not_into_the_next_file(closed: str, tmp_path: Path) -> None:
    ended = shell(f"PROGRAM 3 own {closed}", tmp_path)
    assert (ended.returncode, ended.stderr.strip()) == (4, "")
    assert ended.stdout == ("" if ">&- " in f"{closed} " and closed != "2>&-" else "\u7d50\u679c\n0\n1\n2\n")
    assert (tmp_path / "own").read_text() == ""


@pytest.mark.parametrize("command", ["PROGRAM 100000 own | head -1", "PROGRAM 100000 own err 2>&1 >own2 | head -1"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_ends_it_without_a_word(command: str, unbuffered: str, tmp_path: Path) -> None:
    ended = shell(command, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert ended.returncode == 141
    assert ended.stdout.strip() in ("\u7d50\u679c", "0")
    assert ended.stderr == ""


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    ended = shell("PROGRAM 0 own > /dev/full", tmp_path, PYTHONUNBUFFERED="")
    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        "error: standard output cannot be written: OSError: [Errno 28] No space left on device; what was done stays"
    )


def test_a_broken_pipe_of_something_else_is_an_error_as_any(tmp_path: Path) -> None:
    (tmp_path / "pipe.py").write_text(
        "import sys; from regrad.cli import run_job\n"
        "def action(): raise BrokenPipeError('of a socket')\nsys.exit(run_job(action))"
    )
    ended = shell(f"'{sys.executable}' pipe.py", tmp_path)
    assert ended.returncode == 1
    assert "BrokenPipeError: of a socket" in ended.stderr


def test_characters_that_the_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    ended = shell("PROGRAM 1 own fails", tmp_path, PYTHONIOENCODING="ascii")
    assert ended.stdout == "\\u7d50\\u679c\n0\n"
    assert ended.stderr.startswith("\nerror: ValueError: no")


def test_streams_are_the_callers_own_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    before = sys.stdout
    assert run_job(lambda: 7 if sys.stderr else 8) == 7
    assert (sys.stdout, sys.stderr) == (before, None)


def test_so_is_what_they_do_with_characters_that_they_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "said", "w", encoding="ascii") as own:
        monkeypatch.setattr(sys, "stdout", own)
        assert run_job(lambda: print("\u7d50") or 7) == 7
        assert own.errors == "strict"
    assert (tmp_path / "said").read_text() == "\\u7d50\n"
