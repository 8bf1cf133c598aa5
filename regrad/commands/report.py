"""From the outputs of jobs/score.py to a report: numbers, flagged images, and a page to look at.

    python jobs/report.py --id s3://bucket/scores/known --ood drawings=s3://bucket/scores/drawings --output report
    python jobs/report.py --id s3://bucket/scores/tonight --reference s3://bucket/scores/known --output report
    python jobs/report.py --compare s3://bucket/scores/before s3://bucket/scores/after --output report

    OUT/report.html      the page: one file, works offline
    OUT/report.json      its numbers, for programs (docs/report.md)
    OUT/flags/*.parquet  the flagged images: set, id, source, row, label, prediction, confidence, score
    OUT/threshold.json   when an image is flagged; give it to --threshold to flag by the same rule again
    OUT/compare.html, OUT/compare.json  instead, two runs on the same images side by side

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from regrad import storage
from regrad.cli import Parser, at_least_zero, pair, positive, run_job
from regrad.compare import comparison
from regrad.compare import page as comparison_page
from regrad.pages import thumbnails
from regrad.reading.formats import fetcher
from regrad.report import numbers, page, tracking
from regrad.runs import scored, threshold


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: report(argv), verbose="--verbose" in (sys.argv if argv is None else argv))


def report(argv: Sequence[str] | None) -> int:
    """Read the runs, make numbers and thumbnails, write the page, and say where it is."""
    args = parse(argv)
    rule = threshold.parse(args.threshold)
    return compare(args, rule) if args.compare else describe(args, rule)


def describe(args: argparse.Namespace, rule: float | str) -> int:
    """One run, against out-of-distribution sets or a reference."""
    known = scored.load(scored.ID_NAME, args.id)
    unknown = [scored.load(name, output) for name, output in args.ood]
    reference = scored.load(scored.REFERENCE_NAME, args.reference) if args.reference else None
    summary, chosen = numbers.summarise(known, unknown, args.output, reference, rule, args.top)
    runs = {run.name: run for run in (known, *unknown)}
    pictures = {} if args.no_thumbnails else fetch(summary["pictures"], runs, args.thumbnail_seconds)
    public = storage.published(summary)
    storage.write_atomically(storage.join(args.output, "threshold.json"), chosen.to_json().encode())
    code = publish(args.output, "report", public, page.render(public, pictures))
    if args.mlflow:
        print(f"MLflow run {tracking.log_report(args.output, args.mlflow)}")
    return code


def compare(args: argparse.Namespace, rule: float | str) -> int:
    """Two runs on the same images, side by side."""
    a, b, ood = comparison.load(args.compare, args.ood)
    summary = comparison.compare(a, b, ood, rule, args.top)
    readers = dict.fromkeys(summary["moved"], a)
    pictures = {} if args.no_thumbnails else fetch(summary["moved"], readers, args.thumbnail_seconds)
    public = storage.published(summary)
    return publish(args.output, "compare", public, comparison_page.render(public, pictures))


def publish(output: str, name: str, public: dict[str, Any], html: str) -> int:
    """Write the numbers and the page, and say what they say."""
    content = json.dumps(public, indent=1, ensure_ascii=False, allow_nan=False)
    for suffix, text in (("json", content), ("html", html)):
        storage.write_atomically(storage.join(output, f"{name}.{suffix}"), text.encode())
    print(f"{public['headline'][0]}\n{storage.mask(storage.join(output, f'{name}.html'))}")
    return 0


def fetch(
    wanted: dict[str, list[dict[str, Any]]], scored: dict[str, scored.Run], seconds: float
) -> dict[str, list[thumbnails.Thumbnail]]:
    """The pictures of each set, read back from where the run read them; all of them fit on a page."""
    readers = {name: fetcher(run.info) for name, run in scored.items()}
    return thumbnails.collect(wanted, readers, thumbnails.limit(sum(map(len, wanted.values()))), seconds)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line.

    Raises:
        UsageError: it does not parse.
    """
    parser = Parser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--id", metavar="URI", help="output of jobs/score.py on known images, or on those in question")
    subject.add_argument(
        "--compare", nargs=2, metavar=("RUN_A", "RUN_B"), help="two outputs on the same images, to put side by side"
    )
    parser.add_argument(
        "--ood",
        action="extend",
        nargs="+",
        default=[],
        type=pair("NAME=URI, such as drawings=s3://bucket/scores"),
        metavar="NAME=URI",
        help="outputs on images the model should not know; with --compare NAME=URI_A,URI_B",
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
    parser.add_argument("--mlflow", metavar="EXPERIMENT", help="log numbers and page there, too")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    args = parser.parse_args(argv)
    if args.compare and args.mlflow:
        parser.error("--mlflow does not go with --compare: it logs the report of one run")
    if args.compare and args.reference:
        parser.error("--reference does not go with --compare: quantiles are taken of each run itself")
    return args
