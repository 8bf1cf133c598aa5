"""Merge the many small files of an output into few large ones; a run does the same as it goes on.

    regrad compact s3://bucket/scores
    regrad compact scores --list

Rows stay as they are, each once, and every file says where its rows come from. --list changes nothing: it prints the
files whose rows count now, a line each, also while a run is at work; after a file of which only some rows count, the
first and the last number of each range of those that do, from 0 on.

Exit codes: 0 done; 1 failed, and the output is as good as before; 2 wrong usage, or a run is at work on the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regrad import storage
from regrad.cli import Parser, add_common, loading, run_command, say
from regrad.formatting import count

if TYPE_CHECKING:
    from regrad.ledger.compact import Compacted, CountingFile


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, carry_out)


def carry_out(arguments: Sequence[str]) -> int:
    """Compact, or list."""
    args = parser().parse_args(arguments)

    with loading():
        from regrad import table
        from regrad.ledger.compact import compact, parts
        from regrad.reading.inputs import absolute

    output = absolute(args.output)
    if args.list:
        table.read_run(output)
        for part in parts(output, "quarantine" if args.quarantine else "scores"):
            print(line_of(part))
        return 0
    print(summary(storage.mask(output), compact(output, say)))
    return 0


def line_of(part: CountingFile) -> str:
    """A file, and the rows of it that count if not all do."""
    spans = [] if part.spans is None else [f"{start}-{stop - 1}" for start, stop in part.spans]
    return " ".join([storage.mask(part.uri), *spans])


def summary(output: str, done: Compacted) -> str:
    """What was done."""
    told = [f"{count(done.folded, 'ledger record')} folded", f"{count(done.moved, 'part')} merged"]
    told += [f"{count(done.removed, 'file')} of attempts that were cut short removed"] if done.removed else []
    return f"{output}: {', '.join(told)}; its rows are in {count(done.files, 'file')}"


def parser() -> Parser:
    """Its flags."""
    flags = Parser("compact", __doc__, "OUT [--list]")
    most, run = flags.groups("run")
    most.add_argument("output", metavar="OUT", help="--output of `regrad score` or `regrad audit`")
    most.add_argument("--list", action="store_true", help="only print the files whose rows count")
    most.add_argument("--quarantine", action="store_true", help="with --list: those of the quarantine")
    add_common(run)
    return flags
