"""Drop what does not belong: two lists of ids with reasons, and new shards that hold the kept images alone.

    regrad filter s3://bucket/scores --drop 'regrad > 3.2' --output s3://bucket/filtered
    regrad filter s3://bucket/scores --quantile 0.95 --output s3://bucket/filtered --write-shards
    regrad filter s3://bucket/scores --top 1000 --per-class --output s3://bucket/filtered --dry-run

    OUT/keep.parquet, drop.parquet   id, source, row, label, prediction, score, reason
    OUT/shards/                      with --write-shards: WebDataset tars and Parquet files, as the sources are
    OUT/keep-FORMAT/                 with --format: what a tool takes, and copies of what it cannot read in place
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
from typing import TYPE_CHECKING

from regrad import storage
from regrad.cli import Parser, add_cluster, add_common, loading, run_command
from regrad.formatting import count
from regrad.handover import FORMATS
from regrad.pages import thumbnails
from regrad.settings.kinds import AT_LEAST_0, BETWEEN, POSITIVE

if TYPE_CHECKING:
    from regrad.filter import rules
    from regrad.filter.carry_out import Outcome
    from regrad.runs import scored

_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, sort)


def sort(arguments: Sequence[str]) -> int:
    """Read the run, make the rule, and carry it out or show it."""
    args = parse(arguments)

    with loading():
        from regrad.filter import rules
        from regrad.filter.carry_out import Wanted, carry_out
        from regrad.filter.repeated import Repeated
        from regrad.reading.inputs import absolute
        from regrad.runs import scored

    run = scored.load_run("run", absolute(args.run))
    score = rules.main_score(run, args.score)
    if args.drop_duplicates is not None:
        rule: rules.Rule = Repeated(absolute(args.drop_duplicates), run, score)
    else:
        rule = rules.make_rule(run, args.drop, args.quantile, args.top, score, args.per_class)
    output = absolute(args.output)
    if args.dry_run:
        return show(run, rule, output, args)
    wanted = Wanted(args.format, args.hand_over) if args.format else None
    cluster = (args.ray_address, args.num_workers, args.verbose)
    outcome = carry_out(run, rule, output, args.write_shards, args.replace, *cluster, wanted)
    print(summary(outcome, storage.mask(output)))
    if wanted and outcome.given:
        print(f"handed over {count(outcome.given.images, 'image')}: {storage.mask(wanted.folder(output))}/")
        if problems := outcome.given.problems():
            print(f"warning: left out of it: {problems}", file=sys.stderr)
    return 0


def show(run: scored.Run, rule: rules.Rule, output: str, args: argparse.Namespace) -> int:
    """Count, show examples, and change nothing."""
    from regrad.filter import preview, rules
    from regrad.reading.formats import fetcher

    sorted_out = rules.sort_out(run, rule, top=args.examples)
    sorted_out = dataclasses.replace(sorted_out, **storage.published(dataclasses.asdict(sorted_out)))
    readers = dict.fromkeys(sorted_out.examples, fetcher(run.info))
    limit = thumbnails.limit(sum(map(len, sorted_out.examples.values())))
    pictures = thumbnails.collect(sorted_out.examples, readers, limit, args.thumbnail_seconds)
    page = storage.join(output, "preview.html")
    storage.write_atomically(page, preview.render(run, rule, sorted_out, pictures).encode())
    print(f"{preview.headline(sorted_out)}\n{storage.mask(page)}")
    return 0


def summary(outcome: Outcome, output: str) -> str:
    """What was done."""
    sorting = outcome.sorting
    ranked = sorted(sorting.reasons.items(), key=lambda item: -item[1])
    lines = [
        f"kept {sorting.kept} images, dropped {sorting.dropped} and {sorting.quarantined} that could not be scored"
    ]
    lines += [f"  {rows:>8} {storage.mask(reason)}" for reason, rows in ranked[:_SHOWN]]
    if outcome.shards:
        before = outcome.shards - outcome.written
        lines.append(f"{outcome.rows} images in {outcome.shards} shards, {before} of which were there before")
    return "\n".join([*lines, f"{output}/keep.parquet, {output}/drop.parquet"])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    flags = parser()
    args = flags.parse_args(arguments)
    if args.quantile is None and args.top is None and args.per_class:
        flags.error("--per-class goes with --quantile or --top")
    if args.format and args.dry_run:
        flags.error("--format writes images, and --dry-run nothing but preview.html")
    return args


def parser() -> Parser:
    """Its flags."""
    flags = Parser(
        "filter", __doc__, "RUN (--drop CONDITION | --quantile Q | --top N | --drop-duplicates URI) --output URI [...]"
    )
    most, preview, run, cluster = flags.groups("preview", "run", "cluster")
    most.add_argument("run", metavar="RUN", help="--output of `regrad score` or `regrad audit`")
    rule = most.add_mutually_exclusive_group(required=True)
    rule.add_argument("--drop", metavar="CONDITION", help="such as 'regrad > 3.2 and prediction in (3, 5)'")
    rule.add_argument("--quantile", type=BETWEEN, metavar="Q", help="drop what lies above the Q quantile of the score")
    rule.add_argument("--top", type=AT_LEAST_0, metavar="N", help="drop the N images with the highest score")
    rule.add_argument(
        "--drop-duplicates", metavar="URI", help="drop what `regrad duplicates` wrote there, but one of each"
    )
    most.add_argument("--output", required=True, metavar="URI", help="folder or prefix to write to")
    most.add_argument("--write-shards", action="store_true", help="write shards that hold the kept images alone")
    most.add_argument("--format", choices=FORMATS, help="hand one of the lists over in a form that a tool takes, too")
    preview.add_argument("--dry-run", action="store_true", help="write nothing but preview.html")
    preview.add_argument(
        "--examples",
        type=AT_LEAST_0,
        default=24,
        metavar="N",
        help="images per sheet of it (default: %(default)s)",
    )
    preview.add_argument(
        "--thumbnail-seconds",
        type=POSITIVE,
        default=thumbnails.SECONDS,
        metavar="SECONDS",
        help="for fetching them (default: %(default)g)",
    )
    run.add_argument("--score", metavar="NAME", help="(default: regrad where there is one, else the first of the run)")
    run.add_argument("--per-class", action="store_true", help="quantile or top of each predicted class on its own")
    run.add_argument(
        "--hand-over", choices=("keep", "drop"), default="keep", help="which list --format is of (default: %(default)s)"
    )
    run.add_argument("--replace", action="store_true", help="the output may hold another filter, which goes")
    add_common(run, "show tracebacks and Ray's own messages")
    add_cluster(cluster, "shards written at a time")
    return flags
