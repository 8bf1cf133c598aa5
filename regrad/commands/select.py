"""Choose images to label: a budget spent on the most uncertain ones that have no label yet.

    regrad select s3://bucket/scores --budget 100 --score regrad --output to-label.csv
    regrad select s3://bucket/scores --budget 100 --doubtful --output to-check.csv
    regrad select s3://bucket/scores --budget 100 --balance --diversity k-center --labelled labelled.csv \\
        --output s3://bucket/to-label.csv

    regrad select s3://bucket/scores --budget 100 --format label-studio --output to-label.csv
    regrad select s3://bucket/scores --budget 100 --labelled export.json --output next.csv

    FILE.csv, FILE.parquet   rank, id, source, row, prediction, confidence, and the score
    FILE-FORMAT/             with --format: what the tool takes, and copies of what it cannot read in place

--balance shares the budget out over the predicted classes. --diversity takes --pool times the budget by score, looks at
these with the run's network and spreads the choice over its features. --labelled is a list of ids, or what a tool for
labelling gave back: the images that have a label there are left out. The score table's labels are not looked at, unless
--doubtful asks for those to check: then the score is nll, how improbable the network finds an image's label.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from regrad import storage
from regrad.cli import Parser, add_cluster, add_common, loading, run_command
from regrad.errors import require
from regrad.handover import FORMATS
from regrad.select import DIVERSITIES, POOL
from regrad.settings.kinds import AT_LEAST_0

LOSS = "nll"  # of the label, which is the score table's own column

if TYPE_CHECKING:
    import pyarrow as pa

    from regrad.runs import scored
    from regrad.select import choose


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, rank)


def rank(arguments: Sequence[str]) -> int:
    """Rank, leave out, spread, and write."""
    args = parse(arguments)

    with loading():
        from regrad.filter import rules
        from regrad.handover.labelled import Labelled
        from regrad.reading.inputs import absolute
        from regrad.runs import scored
        from regrad.select import choose

    run = scored.load_run("run", absolute(args.run))
    score = LOSS if args.doubtful else rules.main_score(run, args.score)
    labelled = Labelled(args.labelled or (), args.accept_predictions)
    diverse = args.diversity != "none"
    pool, more = args.pool if diverse else 1, ("label",) if args.doubtful else ()
    rows = choose.candidates(run, score, labelled, args.budget, args.balance, pool, more)
    vectors = None
    if diverse:
        rows, vectors = look(run, rows, args)
    chosen = choose.choose(rows, args.balance, args.diversity, vectors, args.seed)
    places = [*give(run, chosen, score, args), *choose.write_choice(chosen, score, args.output)]
    if args.labelled:
        print(labelled.summary())
    print(f"chose {len(chosen)} of {len(rows)} candidates by {score}")
    if len(chosen) < args.budget:
        print(f"warning: --budget {args.budget}: there are no more", file=sys.stderr)
    print("\n".join(map(storage.mask, places)))
    return 0


def give(run: scored.Run, chosen: pa.Table, score: str, args: argparse.Namespace) -> list[str]:
    """Hand the chosen images over, if that is asked for; returns where to."""
    if args.format is None:
        return []

    from regrad.handover.give import giving
    from regrad.reading.inputs import absolute
    from regrad.select import choose

    folder = f"{choose.stem_of(args.output)}-{args.format}"
    with giving(run, args.format, score, absolute(folder)) as giver:
        giver.take(chosen)
    if problems := giver.given.problems():
        print(f"warning: left out of {storage.mask(folder)}: {problems}", file=sys.stderr)
    return [f"{folder}/"]


def look(run: scored.Run, rows: pa.Table, args: argparse.Namespace) -> tuple[pa.Table, choose.Floats]:
    """The candidates whose images can still be read, and their features."""
    with loading():
        import pyarrow as pa

        from regrad.cluster.tasks import each
        from regrad.select import choose, features

    items = features.tasks(run.info, choose.order_of(rows))
    answers = list(each(features.compute, items, args.ray_address, args.num_workers, args.verbose))
    vectors, there = choose.place_features([pair for answer in answers for pair in answer["features"]], len(rows))
    lost = sum(answer["lost"] for answer in answers)
    if lost:
        print(f"warning: {lost} candidates could not be read any more and are left out", file=sys.stderr)
    require({f"{storage.mask(run.output)}: not one of {len(rows)} images can still be read": bool(there)})
    return rows.take(pa.array(there)), vectors


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    args = parser().parse_args(arguments)
    require(
        {
            f"--score {args.score}: not with --doubtful, which is an order of its own": not (
                args.doubtful and args.score
            ),
            "--budget 0: choose at least one image": args.budget > 0,
            "--pool 0: there must be a candidate for each image chosen": args.pool > 0,
            f"--output {args.output}: a name that ends in .csv or .parquet": args.output.endswith((".csv", ".parquet")),
        }
    )
    return args


def parser() -> Parser:
    """Its flags."""
    flags = Parser("select", __doc__, "RUN --budget N --output FILE.csv [--FLAG ...]")
    most, run, cluster = flags.groups("run", "cluster")
    most.add_argument("run", metavar="RUN", help="--output of `regrad score` or `regrad audit`")
    most.add_argument("--budget", type=AT_LEAST_0, required=True, metavar="N", help="how many to choose")
    most.add_argument("--output", required=True, metavar="FILE.csv", help="and FILE.parquet beside it")
    most.add_argument(
        "--diversity", choices=DIVERSITIES, default="none", help="spread the choice over the features (default: none)"
    )
    most.add_argument("--balance", action="store_true", help="as many of each predicted class as there are")
    most.add_argument(
        "--doubtful", action="store_true", help="labels to check: the labelled images whose label is least probable"
    )
    most.add_argument("--format", choices=FORMATS, help="hand the images over in a form that a tool takes, too")
    most.add_argument(
        "--labelled", action="append", metavar="FILE", help="list or export of images not to be chosen; may be repeated"
    )
    run.add_argument(
        "--accept-predictions", action="store_true", help="of --labelled: a prediction that was let stand is a label"
    )
    run.add_argument("--score", metavar="NAME", help="(default: regrad where there is one, else the first of the run)")
    run.add_argument(
        "--pool",
        type=AT_LEAST_0,
        default=POOL,
        metavar="N",
        help="candidates by score for each image that --diversity is to choose (default: %(default)s)",
    )
    run.add_argument("--seed", type=AT_LEAST_0, default=0, metavar="N", help="of k-means++ (default: %(default)s)")
    add_common(run, "show tracebacks and Ray's own messages")
    add_cluster(cluster, "shards looked at at a time")
    return flags
