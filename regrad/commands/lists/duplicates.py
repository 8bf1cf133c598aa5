"""Find images that are there more than once, within a run and across several.

    regrad duplicates s3://bucket/scores --output s3://bucket/duplicates
    regrad duplicates s3://bucket/scores/train s3://bucket/scores/test --output leaks
    regrad duplicates s3://bucket/scores/before s3://bucket/scores/tonight --output seen --threshold 0.95

    OUT/duplicates.parquet    cluster, representative, run, source, row, id, kind, similarity
    OUT/duplicates.json       how many, of each run and of each pair of runs
    OUT/duplicates.html       the clusters that are least alike, and the largest

Kinds: `exact`, the same bytes; of runs that `regrad score --embeddings` made also `pixels`, the same picture in
other bytes; `hash`, one that looks the same, or mirrored, by a perceptual hash; `near`, one that is alike to the
network, by the cosine of what its last layer is given. Of a cluster, the image of the run that is named first
stands for the others.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from regrad import storage
from regrad.cli import Parser, add_cluster, add_common, loading, run_command, say
from regrad.cluster.carry import carrying_out
from regrad.duplicates.clusters import COSINES
from regrad.duplicates.means import Means
from regrad.errors import UsageError
from regrad.formatting import count
from regrad.pages.thumbnails import SECONDS
from regrad.settings.kinds import AT_LEAST_0, BETWEEN, POSITIVE
from regrad.settings.places import LOCAL, NO_CLUSTER

THRESHOLD, DISTANCE, MOST_DISTANCE = 0.9, 4, 7
_SHOWN = 10  # pairs of runs in the summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, carry_out)


def carry_out(arguments: Sequence[str]) -> int:
    """Read the runs, find, write, and say what there is."""
    args = parser().parse_args(arguments)
    asked = [flag for flag in ("threshold", "distance", "cosine") if getattr(args, flag) is not None]
    if (args.distance or 0) > MOST_DISTANCE:
        raise UsageError(
            f"--distance {args.distance}: {MOST_DISTANCE} bits at most, since unrelated pictures have more"
        )
    if args.exact and asked:
        raise UsageError(f"--exact: takes no --{asked[0]}, which is for others")

    with loading():
        from regrad.duplicates.find import find_duplicates, why_not_near, write_duplicates
        from regrad.duplicates.sheet import choose_clusters, picture_sheet
        from regrad.reading.formats import fetcher
        from regrad.reading.inputs import absolute
        from regrad.runs.scored import load_run

    runs = [load_run(uri, absolute(uri)) for uri in args.runs]
    reason = None if args.exact else why_not_near(runs)
    if reason and asked:
        raise UsageError(f"--{asked[0]}: {reason}")
    if reason:
        say(f"the same bytes alone are looked for: {reason}")
    threshold = None if args.exact or reason else THRESHOLD if args.threshold is None else args.threshold
    distance = DISTANCE if args.distance is None else args.distance
    output = absolute(args.output)
    with means(args, output, threshold is not None) as own:
        found = find_duplicates(runs, threshold, distance, args.cosine, own)
    write_duplicates(found, output)
    told = summary(found.numbers)
    page = storage.join(output, "duplicates.html")
    sheets = choose_clusters(found.rows, args.examples)
    reads = {storage.mask(run.output): (run, fetcher(run.info)) for run in runs}
    content = picture_sheet(found.numbers, told.splitlines(), sheets, reads, args.thumbnail_seconds)
    storage.write_atomically(page, content.encode())
    print(told)
    print(f"{storage.mask(storage.join(output, 'duplicates.parquet'))}\n{storage.mask(page)}")
    return 0


@contextlib.contextmanager
def means(args: argparse.Namespace, output: str, near: bool) -> Iterator[Means]:
    """With what the search is done: in this process, unless there is a cluster and something for it to do."""
    named = args.ray_address or os.environ.get("RAY_ADDRESS") or NO_CLUSTER
    address = named if near else NO_CLUSTER
    with carrying_out(address, args.num_workers, args.verbose) as each:
        yield Means(each, None if address in (NO_CLUSTER, LOCAL) else output)


def summary(numbers: dict[str, Any]) -> str:
    """What was found, and in which runs."""
    told = {
        "exact": "with the bytes of another",
        "pixels": "with its pixels",
        "hash": "that look like it",
        "near": f"alike at {numbers['threshold'] or 0:g} or more by the {numbers['cosine']} cosine",
    }
    shown = [f"{numbers['kinds'][kind]:,} {told[kind]}" for kind in told if kind == "exact" or numbers["threshold"]]
    lines = [
        f"{count(numbers['images'], 'image')}: {numbers['spare']:,} more than one of each, in "
        f"{count(numbers['clusters'], 'cluster')} of at most {numbers['largest']:,}",
        ", ".join(shown),
    ]
    if numbers["without_digest"]:
        lines.append(f"{count(numbers['without_digest'], 'image')} without a digest, of a version before there was one")
    across = sorted(numbers["across"], key=lambda pair: -pair["images"])
    images = {run["run"]: run["images"] for run in numbers["runs"]}
    lines += [
        f"{pair['images']:,} of the {images[pair['run']]:,} images of {pair['run']} are in {pair['also_in']} too"
        for pair in across[:_SHOWN]
        if pair["images"]
    ]
    return "\n".join(lines)


def parser() -> Parser:
    """Its flags."""
    flags = Parser("duplicates", __doc__, "RUN [RUN ...] --output URI [--FLAG ...]")
    most, page, run, cluster = flags.groups("page", "run", "cluster")
    most.add_argument(
        "runs", nargs="+", metavar="RUN", help="--output of `regrad score` or `regrad audit`; the first named is kept"
    )
    most.add_argument("--output", required=True, metavar="URI", help="folder or prefix to write to")
    most.add_argument(
        "--threshold",
        type=BETWEEN,
        metavar="COSINE",
        help=f"of embeddings that are alike, at least (default: {THRESHOLD:g})",
    )
    most.add_argument(
        "--distance",
        type=AT_LEAST_0,
        metavar="BITS",
        help=f"of hashes that may differ, 0 to {MOST_DISTANCE} of 63; up to three times as many where embeddings are "
        f"alike too (default: {DISTANCE})",
    )
    most.add_argument(
        "--cosine",
        choices=COSINES,
        help=f"of embeddings (default: {COSINES[1]} if few images of the runs have a high one, else {COSINES[0]})",
    )
    most.add_argument("--exact", action="store_true", help="the same bytes alone")
    page.add_argument(
        "--examples",
        type=AT_LEAST_0,
        default=12,
        metavar="N",
        help="clusters of each kind on it (default: %(default)s)",
    )
    page.add_argument(
        "--thumbnail-seconds",
        type=POSITIVE,
        default=SECONDS,
        metavar="SECONDS",
        help="for fetching them (default: %(default)g)",
    )
    add_common(run, "show tracebacks and Ray's own messages")
    add_cluster(cluster, "tasks at a time", "this process, without Ray")
    return flags
