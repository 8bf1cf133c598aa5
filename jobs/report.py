"""From the outputs of jobs/score.py to a report: ``report.json`` and the page ``report.html``.

    python jobs/report.py --id s3://bucket/scores/tonight --ood drawings=s3://bucket/scores/drawings --output report

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial

from regrad import storage
from regrad.cli import Parser, run_job
from regrad.pipeline.read import fetch_images
from regrad.pipeline.samples import Columns
from regrad.report import numbers, page, thumbnails


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: report(argv), verbose="--verbose" in (sys.argv if argv is None else argv))


def report(argv: Sequence[str] | None) -> int:
    """Read the runs, make numbers and thumbnails, write the page, and say where it is."""
    args = parse(argv)
    known = numbers.load(numbers.ID_NAME, args.id)
    unknown = [numbers.load(name, output) for name, output in args.ood]
    summary = numbers.summarise(known, unknown, top=args.top)
    sheets = {
        run.name: thumbnails.collect(summary["most_uncertain"][run.name], partial(fetch_images, columns=columns(run)))
        for run in (known, *unknown)
    }
    public = numbers.published(summary)
    text = json.dumps(public, indent=2, ensure_ascii=False, allow_nan=False)
    storage.write_atomically(storage.join(args.output, "report.json"), text.encode())
    storage.write_atomically(storage.join(args.output, "report.html"), page.render(public, sheets).encode())
    print(f"{public['headline'][0]}\n{storage.mask(storage.join(args.output, 'report.html'))}")
    return 0


def columns(run: numbers.Run) -> Columns:
    """Which columns the run read its images from."""
    config = run.info.get("config", {})
    return Columns(*(config.get(f"{name}_column") for name in ("image", "label", "id")))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line.

    Raises:
        UsageError: it does not parse.
    """
    parser = Parser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--id", required=True, metavar="URI", help="output of jobs/score.py on in-distribution images")
    parser.add_argument(
        "--ood",
        action="extend",
        nargs="+",
        default=[],
        type=named,
        metavar="NAME=URI",
        help="outputs on images the model should not know; none gives a report without AUROC",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder or URI for report.json and report.html")
    parser.add_argument(
        "--top", type=at_least_zero, default=48, help="most uncertain images to show of each set (default %(default)s)"
    )
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def named(text: str) -> tuple[str, str]:
    """``NAME=URI`` as a pair."""
    name, separator, uri = text.partition("=")
    if not (name and separator and uri):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URI, such as drawings=s3://bucket/scores")
    return name, uri


def at_least_zero(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
