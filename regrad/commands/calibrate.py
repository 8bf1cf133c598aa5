"""Fit a temperature, and what prediction sets need, on a labelled run that kept its logits.

    regrad score s3://bucket/labelled --model SPEC --logits --output s3://bucket/scores/labelled
    regrad calibrate s3://bucket/scores/labelled --output s3://bucket/calibration.json
    regrad score s3://bucket/new --model SPEC --temperature s3://bucket/calibration.json --coverage 0.9 --output OUT

The file has the temperature by which labels are most probable, and quantiles by which --coverage finds, for every
image, classes that hold its own with that probability. One half of the labelled images gives the
one, the other half the other.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regrad import storage
from regrad.cli import Parser, add_common, loading, run_command
from regrad.errors import UsageError
from regrad.formatting import percent

if TYPE_CHECKING:
    from regrad.calibration import Calibration


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, carry_out)


def carry_out(arguments: Sequence[str]) -> int:
    """Fit, write, and say what came of it."""
    args = parser().parse_args(arguments)
    if not args.output.endswith(".json"):
        raise UsageError(f"--output {storage.mask(args.output)}: a file whose name ends in .json")

    with loading():
        from regrad.runs.calibrate import fit_calibration
        from regrad.runs.scored import load_run

    made = fit_calibration(load_run("calibration", args.run))
    storage.write_atomically(args.output, made.to_json().encode())
    print(summary(made))
    print(storage.mask(args.output))
    return 0


def summary(made: Calibration) -> str:
    """What was fitted, and what it does to images that it was not fitted on."""
    told, held_out = made.about["fitted_on"], made.about["held_out"]
    return "\n".join(
        [
            f"temperature {made.temperature:.4g}, of {told['temperature_images']:,} images; of the other "
            f"{told['quantile_images']:,} it would be {made.about['temperature_of_other_half']:.4g}",
            *(f"{name:<6} {_numbers(held_out[name])}" for name in ("before", "after")),
        ]
    )


def _numbers(of: dict[str, Any]) -> str:
    (low, high), (least, most) = of["intervals"]["nll"], of["intervals"]["ece"]
    return (
        f"NLL {of['nll']:.4f} ({low:.4f} to {high:.4f}), ECE {percent(of['ece'])} ({percent(least)} to {percent(most)})"
    )


def parser() -> Parser:
    """Its flags."""
    flags = Parser("calibrate", __doc__, "RUN --output FILE.json")
    most, run = flags.groups("run")
    most.add_argument("run", metavar="RUN", help="output of `regrad score --logits` on labelled images")
    most.add_argument(
        "--output", required=True, metavar="FILE.json", help="any fsspec URI; an earlier file is replaced"
    )
    add_common(run)
    return flags
