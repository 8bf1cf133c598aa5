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
    held = status(absolute(args.output), args.slowest)
    print(json.dumps(held.to_dict(), indent=1) if args.json else describe(held))
    return 0


def describe(held: Status) -> str:
    """The status in words."""
    code = "" if held.exit_code is None else f", exit code {held.exit_code}"
    ended = f", finished {held.finished}" if held.finished else ""
    lines = [f"{held.output}: {held.state}, started {held.started}{ended}{code}"]
    if held.holder:
        lines.append(f"at work    {held.holder}")
    total = "" if held.units is None else f" of {held.units}"
    speed = "" if held.images_per_second is None else f", {held.images_per_second:.3g} images/s"
    left = "" if held.seconds_left is None else f", about {duration(held.seconds_left)} left"
    lines.append(f"units      {held.units_done}{total} done{speed}{left}")
    lines.append(f"images     {held.rows_scored} scored, {held.rows_quarantined} quarantined")
    reasons = list(held.reasons.items())
    lines += [f"  {rows:>8} {reason}" for reason, rows in reasons[:_SHOWN_REASONS]]
    if len(reasons) > _SHOWN_REASONS:
        lines.append(f"  {sum(rows for _, rows in reasons[_SHOWN_REASONS:]):>8} for other reasons")
    if held.slowest:
        lines.append("slowest    seconds   images   unit")
    for unit in held.slowest:
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
