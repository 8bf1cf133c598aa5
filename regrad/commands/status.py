"""How far a run of regrad score or regrad audit is: while it goes on, or after.

    regrad status s3://bucket/scores
    regrad status scores --json

Units done, images/s, the time left, quarantined rows by reason and the slowest units, from run.json, the lease and the
ledger alone: no model is loaded, no input listed, and the run is not disturbed.

Exit codes: 0 the status is known, whatever it is; 1 failed; 2 wrong usage, or no run is there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from regrad.cli import Parser, add_common, run_command
from regrad.formatting import duration
from regrad.ledger.status import Status, status
from regrad.reading.inputs import absolute
from regrad.settings.kinds import AT_LEAST_0

_SHOWN_REASONS = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, show)


def show(arguments: Sequence[str]) -> int:
    """Print the status."""
    args = parser().parse_args(arguments)
    found = status(absolute(args.output), args.slowest)
    print(json.dumps(found.to_dict(), indent=1) if args.json else describe(found))
    return 0


def describe(found: Status) -> str:
    """The status in words."""
    code = "" if found.exit_code is None else f", exit code {found.exit_code}"
    ended = f", finished {found.finished}" if found.finished else ""
    lines = [f"{found.output}: {found.state}, started {found.started}{ended}{code}"]
    if found.holder:
        lines.append(f"at work    {found.holder}")
    total = "" if found.units is None else f" of {found.units}"
    speed = "" if found.images_per_second is None else f", {found.images_per_second:.3g} images/s"
    left = "" if found.seconds_left is None else f", about {duration(found.seconds_left)} left"
    lines.append(f"units      {found.units_done}{total} done{speed}{left}")
    lines.append(f"images     {found.rows_scored} scored, {found.rows_quarantined} quarantined")
    reasons = list(found.reasons.items())
    lines += [f"  {rows:>8} {reason}" for reason, rows in reasons[:_SHOWN_REASONS]]
    if len(reasons) > _SHOWN_REASONS:
        lines.append(f"  {sum(rows for _, rows in reasons[_SHOWN_REASONS:]):>8} for other reasons")
    if found.slowest:
        lines.append("slowest    seconds   images   unit")
    for unit in found.slowest:
        rows = f" rows {unit['start']} to {'the end' if unit['stop'] is None else unit['stop']}"
        lines.append(f"           {unit['seconds']:>7.1f} {unit['rows']:>8}   {unit['source']}{rows}")
    return "\n".join(lines)


def parser() -> Parser:
    """Its flags."""
    flags = Parser("status", __doc__, "OUT [--json] [--slowest N]")
    most, run = flags.groups("run")
    most.add_argument("output", metavar="OUT", help="--output of `regrad score` or `regrad audit`")
    most.add_argument("--json", action="store_true", help="for programs")
    most.add_argument(
        "--slowest",
        type=AT_LEAST_0,
        default=5,
        metavar="N",
        help="how many of the slowest units to name (default: %(default)s)",
    )
    add_common(run)
    return flags
