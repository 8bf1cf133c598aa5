"""Choose images to label: a budget spent on the most uncertain ones that have no label yet.

    python jobs/select.py s3://bucket/scores --budget 100 --score regrad --output to-label.csv
    python jobs/select.py s3://bucket/scores --budget 100 --balance --diversity k-center --labelled labelled.csv \\
        --output s3://bucket/to-label.csv

    FILE.csv, FILE.parquet   rank, id, source, row, prediction, confidence, and the score

--balance shares the budget out over the predicted classes. --diversity takes --pool times the budget by score, looks at
these with the run's network and spreads the choice over its features. --labelled is a CSV or Parquet file with a column
id, and source where ids are not unique: these images are left out. The score table's labels are not looked at.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import pyarrow as pa

from regrad import storage
from regrad.cli import Parser, at_least_zero, run_job
from regrad.errors import require
from regrad.filter import rules
from regrad.reading.inputs import absolute
from regrad.runs import scored
from regrad.select import choose, features


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: rank(argv), verbose="--verbose" in (sys.argv if argv is None else argv))


def rank(argv: Sequence[str] | None) -> int:
    """Rank, leave out, spread, and write."""
    args = parse(argv)
    run = scored.load("run", absolute(args.run))
    score = rules.main_score(run, args.score)
    labelled = choose.Labelled(args.labelled)
    diverse = args.diversity != "none"
    rows = choose.candidates(run, score, labelled, args.budget, args.balance, args.pool if diverse else 1)
    found = None
    if diverse:
        rows, found = look(run, rows, args)
    chosen = choose.choose(rows, args.balance, args.diversity, found, args.seed)
    places = choose.write(chosen, score, args.output)
    left_out = f", {len(labelled)} ids left out" if args.labelled else ""
    print(f"chose {len(chosen)} of {len(rows)} candidates by {score}{left_out}")
    if len(chosen) < args.budget:
        print(f"warning: --budget {args.budget}: there are no more", file=sys.stderr)
    print("\n".join(map(storage.mask, places)))
    return 0


def look(run: scored.Run, rows: pa.Table, args: argparse.Namespace) -> tuple[pa.Table, choose.Floats]:
    """The candidates whose images can still be read, and their features."""
    from regrad.cluster.tasks import each  # seconds to import

    items = features.tasks(run.info, choose.order_of(rows))
    answers = list(each(features.compute, items, args.ray_address, args.num_workers, args.verbose))
    found, there = choose.settle([pair for answer in answers for pair in answer["features"]], len(rows))
    lost = sum(answer["lost"] for answer in answers)
    if lost:
        print(f"warning: {lost} candidates could not be read any more and are left out", file=sys.stderr)
    require({f"{storage.mask(run.output)}: not one of {len(rows)} images can still be read": bool(there)})
    return rows.take(pa.array(there)), found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments.

    Raises:
        UsageError: they make no sense.
    """
    parser = Parser(prog="select.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="--output of a jobs/score.py or jobs/audit.py run")
    parser.add_argument("--budget", type=at_least_zero, required=True, metavar="N", help="how many to choose")
    parser.add_argument("--output", required=True, metavar="FILE.csv", help="and FILE.parquet beside it")
    parser.add_argument("--score", help="default: regrad where there is one, else the first of the run")
    parser.add_argument("--balance", action="store_true", help="as many of each predicted class as there are")
    parser.add_argument(
        "--diversity", choices=choose.DIVERSITIES, default="none", help="spread the choice over the features"
    )
    parser.add_argument(
        "--pool",
        type=at_least_zero,
        default=choose.POOL,
        help="candidates by score per image (default %(default)s)",
    )
    parser.add_argument("--labelled", metavar="FILE", help="CSV or Parquet with ids that are not to be chosen")
    parser.add_argument("--seed", type=at_least_zero, default=0, help="of k-means++ (default %(default)s)")
    parser.add_argument("--num-workers", type=at_least_zero, help="shards looked at at a time; default: per CPU")
    parser.add_argument("--ray-address", help="cluster to run on; default: $RAY_ADDRESS, else this machine")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks and Ray's own messages")
    args = parser.parse_args(argv)
    require(
        {
            "--budget 0: choose at least one image": args.budget > 0,
            "--pool 0: there must be a candidate for each image chosen": args.pool > 0,
            f"--output {args.output}: a name that ends in .csv or .parquet": args.output.endswith((".csv", ".parquet")),
        }
    )
    return args
