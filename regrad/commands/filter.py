"""Drop what does not belong: two lists of ids with reasons, and new shards that hold the kept images alone.

    python jobs/filter.py s3://bucket/scores --drop 'regrad > 3.2' --output s3://bucket/filtered
    python jobs/filter.py s3://bucket/scores --quantile 0.95 --output s3://bucket/filtered --write-shards
    python jobs/filter.py s3://bucket/scores --top 1000 --per-class --output s3://bucket/filtered --dry-run

    OUT/keep.parquet, drop.parquet   id, source, row, label, prediction, score, reason
    OUT/shards/                      with --write-shards: WebDataset tars and Parquet files, as the sources are
    OUT/filter.json                  what was done: run, rule, counts
    OUT/preview.html                 with --dry-run instead: counts, and images on both sides of the edge

What could not be scored is dropped, with its reason. Nothing is deleted anywhere else.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from regrad import storage
from regrad.cli import Parser, at_least_zero, positive, run_job
from regrad.filter import preview, rules
from regrad.filter.carry_out import Outcome, carry_out
from regrad.pages import thumbnails
from regrad.reading.formats import fetcher
from regrad.reading.inputs import absolute
from regrad.runs import scored

_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: sort(argv), verbose="--verbose" in (sys.argv if argv is None else argv))


def sort(argv: Sequence[str] | None) -> int:
    """Read the run, make the rule, and carry it out or show it."""
    args = parse(argv)
    run = scored.load("run", absolute(args.run))
    score = rules.main_score(run, args.score)
    rule = rules.make_rule(run, args.drop, args.quantile, args.top, score, args.per_class)
    output = absolute(args.output)
    if args.dry_run:
        return show(run, rule, output, args)
    outcome = carry_out(
        run, rule, output, args.write_shards, args.replace, args.ray_address, args.num_workers, args.verbose
    )
    print(summary(outcome, storage.mask(output)))
    return 0


def show(run: scored.Run, rule: rules.Rule, output: str, args: argparse.Namespace) -> int:
    """Count, show examples, and change nothing."""
    found = rules.sort_out(run, rule, top=args.examples)
    found = dataclasses.replace(found, **storage.published(dataclasses.asdict(found)))
    readers = dict.fromkeys(found.examples, fetcher(run.info))
    limit = thumbnails.limit(sum(map(len, found.examples.values())))
    pictures = thumbnails.collect(found.examples, readers, limit, args.thumbnail_seconds)
    page = storage.join(output, "preview.html")
    storage.write_atomically(page, preview.render(run, rule, found, pictures).encode())
    print(f"{preview.headline(found)}\n{storage.mask(page)}")
    return 0


def summary(outcome: Outcome, output: str) -> str:
    """What was done."""
    found = outcome.found
    ranked = sorted(found.reasons.items(), key=lambda item: -item[1])
    lines = [f"kept {found.kept} images, dropped {found.dropped} and {found.quarantined} that could not be scored"]
    lines += [f"  {rows:>8} {storage.mask(reason)}" for reason, rows in ranked[:_SHOWN]]
    if outcome.shards:
        before = outcome.shards - outcome.written
        lines.append(f"{outcome.rows} images in {outcome.shards} shards, {before} of which were there before")
    return "\n".join([*lines, f"{output}/keep.parquet, {output}/drop.parquet"])


def share(text: str) -> float:
    """A number between 0 and 1."""
    value = positive(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    parser = Parser(prog="filter.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="--output of a jobs/score.py or jobs/audit.py run")
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument("--drop", metavar="CONDITION", help="such as 'regrad > 3.2 and prediction in (3, 5)'")
    rule.add_argument("--quantile", type=share, metavar="Q", help="drop what lies above the Q quantile of the score")
    rule.add_argument("--top", type=at_least_zero, metavar="N", help="drop the N images with the highest score")
    parser.add_argument("--score", help="default: regrad where there is one, else the first of the run")
    parser.add_argument("--per-class", action="store_true", help="quantile or top of each predicted class on its own")
    parser.add_argument("--output", required=True, metavar="URI", help="folder or URI prefix to write to")
    parser.add_argument("--write-shards", action="store_true", help="write shards that hold the kept images alone")
    parser.add_argument("--replace", action="store_true", help="the output may hold another filter, which goes")
    parser.add_argument("--dry-run", action="store_true", help="write nothing but preview.html")
    parser.add_argument(
        "--examples", type=at_least_zero, default=24, help="images per sheet of it (default %(default)s)"
    )
    parser.add_argument("--thumbnail-seconds", type=positive, default=thumbnails.SECONDS, help="for fetching them")
    parser.add_argument("--num-workers", type=at_least_zero, help="shards written at a time; default: one per CPU")
    parser.add_argument("--ray-address", help="cluster to run on; default: $RAY_ADDRESS, else this machine")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks and Ray's own messages")
    args = parser.parse_args(argv)
    if args.drop is not None and args.per_class:
        parser.error("--per-class goes with --quantile or --top")
    return args
