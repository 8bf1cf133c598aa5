"""How every job begins and ends: arguments, exit codes, one line per error, signals."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from regrad import storage
from regrad.errors import RegradError, UsageError


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError with argparse's message."""
        raise UsageError(f"{message}; {self.prog} --help lists the options")


def run_job(action: Callable[[], int], verbose: bool = False) -> int:
    """The exit code of ``action()``; an error becomes one line on stderr, with its traceback only if ``verbose``.

    0 done, 1 failed, 2 wrong usage or configuration, 130 and 143 stopped by a signal; 3 and 4 are the action's own.
    The first signal lets the action say what it has done; a second one ends the process at once.
    """
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of damaged images, which a job tells about in its own way
            return action()
    except Stopped as stopped:
        known = "; ".join(getattr(stopped, "__notes__", ["what was committed stays"]))
        print(f"stopped by {stopped}: {known}; run the same command to go on", file=sys.stderr)
        return stopped.exit_code
    except Exception as error:
        if verbose:
            print(storage.mask(traceback.format_exc()), end="", file=sys.stderr)
        print(f"error: {line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, RegradError) else 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def signals_noted() -> Iterator[list[Stopped]]:
    """In this context a signal is noted in the list, to be raised where it is looked at; a second one ends the process.

    For loops over a library that may swallow what is raised inside of it.
    """
    noted: list[Stopped] = []

    def note(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _stop_at_once)
        noted.append(Stopped(number))

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        if not noted:
            for number, handler in previous.items():
                signal.signal(number, handler)


def pair(form: str) -> Callable[[str], tuple[str, str]]:
    """An argument type: ``NAME=URI``, say, as a pair; ``form`` is what the message shows.

    >>> pair("NAME=URI")("drawings=s3://bucket/scores")
    ('drawings', 's3://bucket/scores')
    """

    def parse(text: str) -> tuple[str, str]:
        name, separator, value = text.partition("=")
        if not (name and separator and value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {form}")
        return name, value

    return parse


def at_least_zero(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def at_least_one(text: str) -> int:
    """A whole number above 0."""
    value = at_least_zero(text) if text != "0" else 0
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def line(error: Exception) -> str:
    """``error`` on one masked line."""
    if isinstance(error, RegradError):
        return storage.mask(" ".join(str(error).split()))
    return f"{storage.reason(error)} (a fault of regrad's; --verbose shows where)"


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop_at_once)
    raise Stopped(number)


def _stop_at_once(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"stopped at once; what was committed stays, run the same command to go on\n")
    os._exit(128 + number)
