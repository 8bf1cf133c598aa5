"""From the outputs of jobs/score.py to a report: numbers, flagged images, and a page to look at.

    python jobs/report.py --id s3://bucket/scores/known --ood drawings=s3://bucket/scores/drawings --output report
    python jobs/report.py --id s3://bucket/scores/tonight --reference s3://bucket/scores/known --output report

    OUT/report.html      the page: one file, works offline
    OUT/report.json      its numbers, for programs (docs/report.md)
    OUT/flags/*.parquet  the flagged images: set, id, source, row, label, prediction, confidence, score
    OUT/threshold.json   when an image is flagged; give it to --threshold to flag by the same rule again

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from regrad import storage
from regrad.cli import Parser, pair, run_job
from regrad.pipeline.read import fetch_images
from regrad.pipeline.samples import Columns
from regrad.report import numbers, page, runs, threshold, thumbnails


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: report(argv), verbose="--verbose" in (sys.argv if argv is None else argv))


def report(argv: Sequence[str] | None) -> int:
    """Read the runs, make numbers and thumbnails, write the page, and say where it is."""
    args = parse(argv)
    rule = threshold.parse(args.threshold)
    known = runs.load(runs.ID_NAME, args.id)
    unknown = [runs.load(name, output) for name, output in args.ood]
    reference = runs.load(runs.REFERENCE_NAME, args.reference) if args.reference else None
    summary, chosen = numbers.summarise(known, unknown, args.output, reference, rule, args.top)
    pictures = {} if args.no_thumbnails else fetch(summary["pictures"], [known, *unknown], args.thumbnail_seconds)
    public = numbers.published(summary)
    for name, text in (
        ("threshold.json", chosen.to_json()),
        ("report.json", json.dumps(public, indent=1, ensure_ascii=False, allow_nan=False)),
        ("report.html", page.render(public, pictures)),
    ):
        storage.write_atomically(storage.join(args.output, name), text.encode())
    print(f"{public['headline'][0]}\n{storage.mask(storage.join(args.output, 'report.html'))}")
    return 0


def fetch(
    wanted: dict[str, list[dict[str, Any]]], scored: Sequence[runs.Run], seconds: float
) -> dict[str, list[thumbnails.Thumbnail]]:
    """The pictures of each set, read back from where the run read them; all of them fit on a page."""
    readers = {run.name: partial(fetch_images, columns=columns(run)) for run in scored}
    return thumbnails.collect(wanted, readers, thumbnails.limit(sum(map(len, wanted.values()))), seconds)


def columns(run: runs.Run) -> Columns:
    """Which columns the run read its images from."""
    config = run.info.get("config", {})
    return Columns(*(config.get(f"{name}_column") for name in ("image", "label", "id")))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line.

    Raises:
        UsageError: it does not parse.
    """
    parser = Parser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--id", required=True, metavar="URI", help="output of jobs/score.py on known images, or on those in question"
    )
    parser.add_argument(
        "--ood",
        action="extend",
        nargs="+",
        default=[],
        type=pair("NAME=URI, such as drawings=s3://bucket/scores"),
        metavar="NAME=URI",
        help="outputs on images the model should not know; none gives a report without AUROC",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder or URI to write to")
    parser.add_argument("--reference", metavar="URI", help="output on images known to be fine, to take a quantile of")
    parser.add_argument(
        "--threshold",
        default=threshold.DEFAULT,
        metavar="RULE",
        help="flag images with a score above: quantile=Q of the reference (of --id itself where there is none), "
        "a VALUE, or that of a stored threshold.json (default %(default)s)",
    )
    parser.add_argument(
        "--top", type=at_least_zero, default=48, help="pictures to show of each set (default %(default)s)"
    )
    parser.add_argument(
        "--no-thumbnails", action="store_true", help="no pictures on the page: for images that may not leave the bucket"
    )
    parser.add_argument(
        "--thumbnail-seconds",
        type=positive,
        default=thumbnails.SECONDS,
        metavar="S",
        help="time for fetching all pictures; those that take longer are left out (default %(default)g)",
    )
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def at_least_zero(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
