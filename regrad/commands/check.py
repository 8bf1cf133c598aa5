"""Count everything in an output of jobs/score.py again, and say whether it is sound.

    python jobs/check.py s3://bucket/scores
    python jobs/check.py scores --repair

Every ledger record is compared with its parts, every part is read and its footer compared with run.json, rows and ids
are counted, and the inputs are listed again. --repair drops the units that are damaged, so that the next run of the
same jobs/score.py command scores them anew; nothing else is changed.

Exit codes: 0 sound (or repaired), 1 something is wrong, 2 wrong usage, or a run is at work on the output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from regrad import storage
from regrad.cli import Parser, run_job
from regrad.pipeline.check import Found, check, repair
from regrad.reading.inputs import absolute


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    args = sys.argv[1:] if argv is None else list(argv)
    return run_job(lambda: inspect(parse(args)), verbose="--verbose" in args)


def inspect(args: argparse.Namespace) -> int:
    """Check, say what was found, and repair if asked."""
    output = absolute(args.output)
    found = check(output)
    print(summary(storage.mask(output), found))
    if not found.problems:
        return 0
    if not args.repair:
        return 1
    print(
        f"dropped {repair(output, found.problems)} units; run the same jobs/score.py command again to score them anew"
    )
    return 0 if all(problem.repairable for problem in found.problems) else 1


def summary(output: str, found: Found) -> str:
    """What was counted, what is wrong, and what is worth knowing."""
    rows = f"{found.units} units, {found.rows_scored} rows scored, {found.rows_quarantined} in quarantine"
    problems = [f"wrong: {problem.text}" for problem in found.problems]
    notes = [f"note: {note}" for note in found.notes]
    verdict = f"{len(problems)} problems" if problems else "OK"
    return "\n".join([*problems, *notes, f"{output}: {verdict}: {rows}"])


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    parser = Parser(prog="check.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="OUT", help="--output of a jobs/score.py run")
    parser.add_argument("--repair", action="store_true", help="drop damaged units, so that the next run redoes them")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)
