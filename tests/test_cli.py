"""How every job ends on signals, and what it keeps to itself."""

import signal
import subprocess
import sys
import warnings

import pytest

from regrad.cli import run_job

PROGRAM = """
import sys, time
from regrad.cli import run_job

def action():
    try:
        print("begun", flush=True)
        time.sleep(600)
    except KeyboardInterrupt as stopped:
        stopped.add_note("OUT holds 7 scores")
        if "slow" in sys.argv:
            print("ending", flush=True)
            time.sleep(600)
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
