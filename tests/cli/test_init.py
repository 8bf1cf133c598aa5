"""How every job ends on signals, and what it keeps to itself."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from regrad.cli import FOR_TORCH, Parser, loading, run_command, run_job
from regrad.errors import UsageError

PROGRAM = """
import sys, time
from regrad.cli import run_job

def wait():
    while True:
        time.sleep(0.05)  # a signal that comes right before a sleep does not end it

def action():
    try:
        print("begun", flush=True)
        wait()
    except KeyboardInterrupt as stopped:
        stopped.add_note("OUT holds 7 scores")
        if "slow" in sys.argv:
            print("ending", flush=True)
            wait()
        raise

sys.exit(run_job(action))
"""


def start(*arguments: str) -> "subprocess.Popen[str]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], text=True, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_job_with_what_it_has_to_say(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == f"stopped by {number.name}: OUT holds 7 scores; run the same command to go on\n"


def test_a_second_signal_ends_it_at_once() -> None:
    process = start("slow")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "stopped at once; what was committed stays, run the same command to go on\n"


def test_pillow_does_not_warn_of_damaged_images(recwarn: pytest.WarningsRecorder) -> None:
    def action() -> int:
        for module in ("PIL.TiffImagePlugin", "elsewhere"):
            warnings.warn_explicit(f"corrupt data in {module}", UserWarning, "file.py", 1, module)
        return 0

    assert run_job(action) == 0
    assert [str(warning.message) for warning in recwarn] == ["corrupt data in elsewhere"]


def parser() -> Parser:
    flags = Parser("paint", "Paints.", "--colour NAME [--FLAG ...]")
    (most,) = flags.groups()
    most.add_argument("--colour", required=True, choices=("red", "green"))
    most.add_argument("--coats", type=int, default=1)
    most.add_argument("command", nargs="*")
    return flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--color", "red"], "unrecognized arguments: --color (did you mean --colour?)"),  # not: --colour is required
        (["--colour=gren"], "argument --colour: invalid choice: 'gren' (choose from red, green) (did you mean green?)"),
        (["--colour", "red", "--brush=9"], "unrecognized arguments: --brush"),
        (["--coats", "2"], "the following arguments are required: --colour"),
        (["--co", "red"], "ambiguous option: --co could match --colour, --coats"),
    ],
)
def test_wrong_usage_names_what_may_have_been_meant(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parser().parse_args(arguments)
    assert str(raised.value) == f"{message}; regrad paint --help lists the options"


def test_what_stands_behind_dashes_is_anothers() -> None:
    args = parser().parse_args(["--colour", "red", "--", "brush", "--color"])
    assert (args.colour, args.command) == ("red", ["brush", "--color"])
    assert parser().parse_args(["--col", "green", "x"]).colour == "green"  # as argparse has it


def test_verbose_behind_dashes_is_anothers_too(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(arguments: list[str]) -> int:
        raise UsageError(f"wrong: {' '.join(arguments)}")

    for arguments, shown in ((["--", "job", "--verbose"], False), (["--verbose", "--", "job"], True)):
        assert run_command(arguments, fail) == 2
        said = capsys.readouterr().err
        assert ("Traceback" in said) is shown
        assert said.endswith(f"error: wrong: {' '.join(arguments)}\n")


@pytest.mark.parametrize("begins", ["regrad.cli; regrad.cli.run_job(lambda: 0)", "regrad.cluster"])
@pytest.mark.parametrize(("name", "given"), [(None, ""), ("OMP_WAIT_POLICY", "ACTIVE"), ("THP_MEM_ALLOC_ENABLE", "0")])
def test_what_torch_reads_is_set_before_it_is_imported_unless_it_was(begins: str, name: str | None, given: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in FOR_TORCH}
    own = {name: given} if name else {}
    program = (
        f"import sys, os, {begins}; print('torch' in sys.modules, [os.environ[name] for name in {list(FOR_TORCH)}])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment | own, text=True, capture_output=True, check=True
    )
    assert ended.stdout == f"False {list((FOR_TORCH | own).values())}\n"


def test_the_collector_rests_while_libraries_load_and_looks_once_at_the_end() -> None:
    program = """
import atexit, gc, regrad.cli
atexit.register(lambda: print(gc.isenabled()))  # the first is called last
for enabled in (True, False):
    (gc.enable if enabled else gc.disable)()
    try:
        with regrad.cli.loading():
            print(gc.isenabled(), end=" ")
            raise ImportError
    except ImportError:
        print(gc.isenabled())
gc.enable()
"""
    ended = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True, check=True)
    assert ended.stdout == "False True\nFalse False\nFalse\n"


def test_a_working_directory_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    def action() -> int:
        with loading():
            return 0

    assert run_job(action) == 2
    assert capsys.readouterr().err == "error: the working directory is no more: change into one that is there\n"


def test_pythons_own_interrupt_is_as_ours(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> int:
        raise KeyboardInterrupt

    assert run_job(action) == 130
    assert capsys.readouterr().err == "stopped by SIGINT: what was committed stays; run the same command to go on\n"
