"""Measure the paper's tables again, on real images, and put the paper's numbers beside.

    python jobs/reproduce.py ood --data ../shared/data                # Table 1
    python jobs/reproduce.py all --quick                              # a small form of every table, in minutes
    python jobs/reproduce.py all --images 200 --seeds 1               # every table, smaller
    python jobs/reproduce.py docs                                     # docs/tables/ from what was measured

    OUT/images/      the images of each set, in a seeded order, as shards
    OUT/weights/     the networks that were trained
    OUT/scores/      what jobs/score.py makes of them: one output for each network, seed and setting
    OUT/results/     every number as TABLE.json and TABLE.parquet
    OUT/tables.html  all tables measured so far

Run the same command again to go on where it stopped; more --images or --seeds add to what is there. --no-compute makes
the table of what OUT holds already. docs leaves the pages of tables alone that OUT does not hold.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import torch

from regrad import storage
from regrad.cli import Parser, at_least_one, run_job
from regrad.cluster.sessions import connected
from regrad.experiments.benchmarks.render import machine
from regrad.experiments.measured import results
from regrad.experiments.measured.scoring import Study
from regrad.experiments.reproduce import figures, render
from regrad.experiments.reproduce.quick import QUICK
from regrad.experiments.reproduce.tables import TABLES
from regrad.formatting import aligned

ALL, DOCS = "all", "docs"
QUICK_IMAGES = 150


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job with these arguments; returns its exit code."""
    return run_job(lambda: reproduce(parse(argv), argv), verbose="--verbose" in (sys.argv if argv is None else argv))


def reproduce(args: argparse.Namespace, argv: Sequence[str] | None) -> int:
    """Measure a table or all, and show every one that was measured so far."""
    images, seeds = (QUICK_IMAGES, 1) if args.quick else (args.images, args.seeds)
    output = args.output or ("reproduce-quick" if args.quick else "reproduce")
    study = Study(args.data, output, images, seeds, not args.no_compute, args.download, args.on_ray)
    if args.table == DOCS:
        return write_docs(study, args.docs)
    with connected(address=None, workers=None) if study.on_ray else contextlib.nullcontext():
        for name in TABLES if args.table == ALL else (args.table,):
            measure(study, name, args)
    page = storage.join(study.output, "tables.html")
    storage.write_atomically(page, render.page(measured(study), plots(study)).encode())
    print(f"\n{storage.mask(page)}")
    return 0


def measure(study: Study, name: str, args: argparse.Namespace) -> None:
    """Measure one table, keep its numbers and print them."""
    found = (QUICK[name] if args.quick else TABLES[name].compute)(study)
    command = shlex.join(["python", "jobs/reproduce.py", name, *(["--quick"] if args.quick else settings(args))])
    results.write(study.output, name, found, command=command, machine=machine(torch.device("cpu")))
    for caption, grid in render.grids(TABLES[name], found):
        print("\n".join([f"\n{caption}", *aligned(grid)]), flush=True)


def write_docs(study: Study, folder: str) -> int:
    """A page in ``tables/`` for every table that was measured, and its plot; the pages of others stay as they are."""
    drawn = plots(study)
    for name, (rows, about) in measured(study).items():
        figure = f"../figures/{name}.svg" if name in drawn else None
        page = storage.join(folder, "tables", f"{name}.md")
        storage.write_atomically(page, render.markdown(TABLES[name], rows, about, figure).encode())
        if figure is not None:
            storage.write_atomically(storage.join(folder, "figures", f"{name}.svg"), drawn[name])
        print(storage.mask(page))
    return 0


def measured(study: Study) -> dict[str, tuple[list[results.Result], dict[str, Any]]]:
    """The tables that were measured, in order."""
    found = {name: results.read(study.output, name) for name in TABLES}
    return {name: table for name, table in found.items() if table is not None}


def plots(study: Study) -> dict[str, bytes]:
    """Their plots."""
    drawn = {name: figures.draw(study, name, rows) for name, (rows, _) in measured(study).items()}
    return {name: svg for name, svg in drawn.items() if svg is not None}


def settings(args: argparse.Namespace) -> list[str]:
    """The flags that a table's numbers depend on."""
    return [f"--images={args.images}", f"--seeds={args.seeds}"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed command line.

    Raises:
        UsageError: it does not parse.
    """
    parser = Parser(prog="reproduce.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=(*TABLES, ALL, DOCS), help="which table; docs writes the documentation's")
    parser.add_argument("--data", default="../shared/data", metavar="URI", help="folder of packs (default %(default)s)")
    parser.add_argument("--output", metavar="URI", help="where all goes (default reproduce, or reproduce-quick)")
    parser.add_argument("--images", type=at_least_one, default=1000, help="of each set (default %(default)s)")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="runs of each network (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images, one run, two copies: in minutes")
    parser.add_argument("--download", action="store_true", help="fetch what --data lacks by torchvision")
    parser.add_argument("--no-compute", action="store_true", help="take what OUT holds, and compute nothing")
    parser.add_argument("--on-ray", action="store_true", help="score on Ray's workers; default: in this process")
    parser.add_argument("--docs", default="docs", metavar="DIR", help="where `docs` writes (default %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)
