"""Count everything in an output of regrad score again, and say whether it is sound.

    regrad check s3://bucket/scores
    regrad check scores --repair

Every ledger record is compared with its parts, every part is read and its footer compared with run.json, rows and ids
are counted, and the inputs are listed again. --repair drops the units that are damaged, so that the next run of the
same regrad score command scores them anew; nothing else is changed.

Exit codes: 0 sound (or repaired), 1 something is wrong, 2 wrong usage, or a run is at work on the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regrad import storage
from regrad.cli import Parser, add_common, loading, run_command

if TYPE_CHECKING:
    from regrad.pipeline.check import Findings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, inspect)


def inspect(arguments: Sequence[str]) -> int:
    """Check, say what was found, and repair if asked."""
    args = parser().parse_args(arguments)

    with loading():
        from regrad.pipeline.check import check, repair
        from regrad.reading.inputs import absolute

    output = absolute(args.output)
    findings = check(output)
    print(summary(storage.mask(output), findings))
    if not findings.problems:
        return 0
    if not args.repair:
        return 1
    print(
        f"dropped {repair(output, findings.problems)} units; run the same regrad score command again to score them anew"
    )
    return 0 if all(problem.repairable for problem in findings.problems) else 1


def summary(output: str, findings: Findings) -> str:
    """What was counted, what is wrong, and what is worth knowing."""
    rows = f"{findings.units} units, {findings.rows_scored} rows scored, {findings.rows_quarantined} in quarantine"
    problems = [f"wrong: {problem.text}" for problem in findings.problems]
    notes = [f"note: {note}" for note in findings.notes]
    verdict = f"{len(problems)} problems" if problems else "OK"
    return "\n".join([*problems, *notes, f"{output}: {verdict}: {rows}"])


def parser() -> Parser:
    """Its flags."""
    flags = Parser("check", __doc__, "OUT [--repair]")
    most, run = flags.groups("run")
    most.add_argument("output", metavar="OUT", help="--output of `regrad score` or `regrad audit`")
    most.add_argument("--repair", action="store_true", help="drop damaged units, so that the next run redoes them")
    add_common(run)
    return flags
