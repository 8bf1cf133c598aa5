"""How every command begins and ends: arguments, exit codes, one line per error, signals.

Arguments are argparse's. One table of options gives the flags, the keys of ``--config`` and what an output holds one of
(:mod:`regrad.pipeline.options`); options that take several values (``--ood a=x b=y``) are refused by click and by what
stands on it; jsonargparse would read the YAML too, but knows no such table, and costs a fifth of a second in every
command where argparse costs a hundredth. What argparse lacks is small: the nearest name, which is here, and completion,
which shtab writes when it is asked for (:mod:`regrad.__main__`).
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import gc
import itertools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from regrad import storage
from regrad.cli import streams
from regrad.errors import RegradError, UsageError
from regrad.settings.kinds import AT_LEAST_0

MOST_USED = "most used"  # the first group of flags of every command


class Stopped(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Parser(argparse.ArgumentParser):
    """The parser of one command: it raises instead of printing a page of usage, and names what a wrong flag resembles.

    Args:
        command: as it is typed after ``regrad``.
        usage: what follows it, in short; the groups below tell the rest.
    """

    def __init__(self, command: str, description: str | None, usage: str):
        super().__init__(
            prog=f"regrad {command}",
            usage=f"regrad {command} {usage}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )

    def groups(self, *titles: str) -> list[argparse._ArgumentGroup]:
        """Groups of flags in this order, those that are used most before them."""
        return [self.add_argument_group(title) for title in (MOST_USED, *titles)]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an unknown flag is told before a required one, which it may have been meant for.

        Raises:
            UsageError: there is one.
        """
        arguments = sys.argv[1:] if args is None else list(args)
        for argument in itertools.takewhile("--".__ne__, arguments):
            flag = argument.partition("=")[0]
            known = self._option_string_actions
            if flag.startswith("--") and " " not in argument and not any(name.startswith(flag) for name in known):
                self.error(f"unrecognized arguments: {flag}{nearest(flag, known)}")
        return super().parse_known_args(arguments, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            offered = [str(choice) for choice in action.choices]
            meant = nearest(str(value), offered)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {', '.join(offered)}){meant}")

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError with argparse's message."""
        raise UsageError(f"{message}; {self.prog} --help lists the options")


def add_common(group: argparse._ArgumentGroup, verbose: str = "show tracebacks") -> None:
    """The flags that every command has."""
    group.add_argument("--verbose", action="store_true", help=verbose)
    group.add_argument("-h", "--help", action="help", help="show this, and end")


def add_cluster(group: argparse._ArgumentGroup, workers: str, otherwise: str = "Ray on this machine") -> None:
    """The flags of commands whose work is done by Ray's workers; ``workers`` says what these do, ``otherwise`` where it
    is done if no cluster is named.
    """
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help=f"the cluster to run on; `none`: no Ray (default: $RAY_ADDRESS, or {otherwise})",
    )
    group.add_argument("--num-workers", type=AT_LEAST_0, metavar="N", help=f"{workers} (default: one per CPU)")


def nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a message; nothing where nothing is near.

    >>> nearest("--sigam", ["--sigma", "--samples"]), nearest("x", ["score"])
    (' (did you mean --sigma?)', '')
    """
    alike = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {alike[0]}?)" if alike else ""


def run_command(argv: Sequence[str] | None, action: Callable[[list[str]], int]) -> int:
    """The exit code of ``action`` with these arguments, or with those of the process: see :func:`run_job`."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    own = itertools.takewhile("--".__ne__, arguments)  # what stands behind is another command's
    return run_job(lambda: action(arguments), verbose="--verbose" in own)


def run_job(action: Callable[[], int], verbose: bool = False) -> int:
    """The exit code of ``action()``; an error becomes one line on stderr, with its traceback only if ``verbose``.

    0 done, 1 failed, 2 wrong usage or configuration, 130 and 143 stopped by a signal, 141 nobody reads what it says any
    more; 3 and 4 are the action's own. The first signal lets the action say what it has done; a second one ends the
    process at once.
    """
    set_for_torch()
    previous = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with streams.that_take_all(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # of damaged images, which a job tells about in its own way
            return _ended(action, verbose)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ended(action: Callable[[], int], verbose: bool) -> int:
    """The exit code of ``action()``, having said why where it raised."""
    try:
        code = action()
        streams.flush()
        return code
    except KeyboardInterrupt as stopped:  # as a rule Stopped; Python's own where something put its handler back
        known = "; ".join(getattr(stopped, "__notes__", ["what was committed stays"]))
        print(f"stopped by {str(stopped) or 'SIGINT'}: {known}; run the same command to go on", file=sys.stderr)
        return getattr(stopped, "exit_code", 128 + signal.SIGINT)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and streams.nobody_reads():
            return streams.UNREAD
        if verbose:
            print(storage.mask(traceback.format_exc()), end="", file=sys.stderr)
        print(f"error: {line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, RegradError) else 1


#: What PyTorch reads when it is imported. By default its threads spin at the end of every operation, and wait many
#: times as long as they compute for one of them whose core, or share of a core, something else has; and what takes 2 MB
#: or more comes in pages of 4 KB, each of which the system clears by itself.
FOR_TORCH = {"OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}


def set_for_torch() -> None:
    """Before PyTorch is imported: :data:`FOR_TORCH`, where nothing else is set."""
    for name, value in FOR_TORCH.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around imports that take seconds, which wrong usage need not wait for.

    What a library makes as it is imported stays. To look through all of it for garbage, again and again meanwhile and
    several times at the end of the process, takes a third as long as the imports themselves, so that the collector
    rests in this context, and looks once at the end.

    Raises:
        UsageError: the working directory is gone, of which PyTorch would say that a library of its own is missing.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working directory is no more: change into one that is there") from None
    enabled = gc.isenabled()
    gc.disable()
    atexit.unregister(gc.disable)
    atexit.register(gc.disable)
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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


def say(text: str) -> None:
    """A line for whoever watches, on stderr: stdout is for what a command gives."""
    print(text, file=sys.stderr, flush=True)


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
