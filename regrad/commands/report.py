"""From the outputs of regrad score to a report: numbers, flagged images, and a page to look at.

    regrad report --id s3://bucket/scores/known --ood drawings=s3://bucket/scores/drawings --output report
    regrad report --id s3://bucket/scores/tonight --reference s3://bucket/scores/known --output report
    regrad report --compare s3://bucket/scores/before s3://bucket/scores/after --output report

    OUT/report.html      the page: one file, works offline
    OUT/report.json      its numbers, for programs (docs/report.md)
    OUT/flags/*.parquet  the flagged images: set, id, source, row, label, prediction, confidence, score
    OUT/doubtful.csv     and .parquet: labels that the network contradicts, where there are labels (docs/labels.md)
    OUT/threshold.json   when an image is flagged; give it to --threshold to flag by the same rule again
    OUT/compare.html, OUT/compare.json  instead, two runs on the same images side by side

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from regrad import storage
from regrad.cli import Parser, add_common, loading, pair, run_command
from regrad.maps import size
from regrad.pages import thumbnails
from regrad.runs import rule
from regrad.settings.kinds import AT_LEAST_0, POSITIVE

if TYPE_CHECKING:
    from regrad.runs import scored


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, report)


def report(arguments: Sequence[str]) -> int:
    """Read the runs, make numbers and thumbnails, write the page, and say where it is."""
    args = parse(arguments)
    wanted = rule.parse_rule(args.threshold)
    return compare(args, wanted) if args.compare else describe(args, wanted)


def describe(args: argparse.Namespace, wanted: float | str) -> int:
    """One run, against out-of-distribution sets or a reference."""
    with loading():
        from regrad.maps import chart
        from regrad.report import numbers, page, tracking
        from regrad.runs import scored

    known = scored.load_run(scored.ID_NAME, args.id)
    unknown = [scored.load_run(name, output) for name, output in args.ood]
    reference = scored.load_run(scored.REFERENCE_NAME, args.reference) if args.reference else None
    summary, chosen = numbers.summarise(known, unknown, args.output, reference, wanted, args.top)
    runs = {run.name: run for run in (known, *unknown, *([reference] if reference else []))}
    drawn = chart.draw_map(list(runs.values()), chosen, args.map_points)
    summary["map"] = drawn and drawn.numbers
    parts = [summary["pictures"], drawn.wanted if drawn else {}]
    pictures, on_map = ({}, {}) if args.no_thumbnails else fetch(parts, runs, args.thumbnail_seconds)
    public = storage.published(summary)
    storage.write_atomically(storage.join(args.output, "threshold.json"), chosen.to_json().encode())
    code = publish(args.output, "report", public, page.render(public, pictures, drawn, on_map))
    if args.mlflow:
        print(f"MLflow run {tracking.log_report(args.output, args.mlflow)}")
    return code


def compare(args: argparse.Namespace, wanted: float | str) -> int:
    """Two runs on the same images, side by side."""
    with loading():
        from regrad.compare import comparison
        from regrad.compare import page as comparison_page

    a, b, ood = comparison.load_pairs(args.compare, args.ood)
    summary = comparison.compare(a, b, ood, wanted, args.top)
    readers = dict.fromkeys(summary["moved"], a)
    (pictures,) = ({},) if args.no_thumbnails else fetch([summary["moved"]], readers, args.thumbnail_seconds)
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
    parts: list[dict[str, list[dict[str, Any]]]], runs: dict[str, scored.Run], seconds: float
) -> list[dict[str, list[thumbnails.Thumbnail]]]:
    """The pictures of each set in each part, read back from where the run read them; all of them fit on a page."""
    from regrad.reading.formats import fetcher

    readers = {name: fetcher(run.info) for name, run in runs.items()}
    return thumbnails.collect_all(parts, readers, seconds)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    flags = parser()
    args = flags.parse_args(arguments)
    if args.compare and args.mlflow:
        flags.error("--mlflow does not go with --compare: it logs the report of one run")
    if args.compare and args.reference:
        flags.error("--reference does not go with --compare: quantiles are taken of each run itself")
    return args


def parser() -> Parser:
    """Its flags."""
    flags = Parser("report", __doc__, "(--id URI | --compare RUN_A RUN_B) --output DIR [--FLAG ...]")
    most, page, run = flags.groups("page", "run")
    subject = most.add_mutually_exclusive_group(required=True)
    subject.add_argument(
        "--id", metavar="URI", help="output of `regrad score` on known images, or on those in question"
    )
    subject.add_argument(
        "--compare", nargs=2, metavar=("RUN_A", "RUN_B"), help="two outputs on the same images, to put side by side"
    )
    most.add_argument(
        "--ood",
        action="extend",
        nargs="+",
        default=[],
        type=pair("NAME=URI, such as drawings=s3://bucket/scores"),
        metavar="NAME=URI",
        help="outputs on images the model should not know; with --compare NAME=URI_A,URI_B",
    )
    most.add_argument("--output", required=True, metavar="DIR", help="folder or URI to write to")
    most.add_argument("--reference", metavar="URI", help="output on images known to be fine, to take a quantile of")
    page.add_argument("--top", type=AT_LEAST_0, default=48, metavar="N", help="pictures of each set (default: 48)")
    page.add_argument(
        "--map-points",
        type=size.POINTS,
        default=size.DEFAULT,
        metavar="N",
        help=f"{size.ABOUT} (default: %(default)s)",
    )
    page.add_argument(
        "--no-thumbnails", action="store_true", help="no pictures on the page: for images that may not leave the bucket"
    )
    page.add_argument(
        "--thumbnail-seconds",
        type=POSITIVE,
        default=thumbnails.SECONDS,
        metavar="SECONDS",
        help="time for fetching all pictures; those that take longer are left out (default: %(default)g)",
    )
    run.add_argument(
        "--threshold",
        default=rule.DEFAULT,
        metavar="RULE",
        help="flag images with a score above: quantile=Q of the reference (of --id itself where there is none), "
        "a VALUE, or that of a stored threshold.json (default: %(default)s)",
    )
    run.add_argument("--mlflow", metavar="EXPERIMENT", help="log numbers and page there, too")
    add_common(run)
    return flags
