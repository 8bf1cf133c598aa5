"""Measure the paper's tables again, on real images, and put the paper's numbers beside.

    regrad reproduce ood --data ../shared/data                # Table 1
    regrad reproduce all --quick                              # a small form of every table, in minutes
    regrad reproduce all --images 200 --seeds 1               # every table, smaller
    regrad reproduce docs                                     # docs/tables/ from what was measured

    OUT/images/      the images of each set, in a seeded order, as shards
    OUT/weights/     the networks that were trained
    OUT/scores/      what regrad score makes of them: one output for each network, seed and setting
    OUT/drift/       what came of each draw of a baseline and a night
    OUT/results/     every number as TABLE.json and TABLE.parquet
    OUT/tables.html  all tables measured so far

Run the same command again to go on where it stopped; more --images or --seeds add to what is there. --no-compute makes
the table of what OUT holds already. An experiment that can be measured on fewer images than before, or on none, stays
in OUT/results/ as it was; every number has its day. docs leaves the pages of tables alone that OUT does not hold.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from regrad import storage
from regrad.cli import Parser, add_common, loading, run_command
from regrad.commands.clone import require_experiments
from regrad.formatting import aligned
from regrad.settings.kinds import AT_LEAST_1

if TYPE_CHECKING:
    from regrad.experiments.measured import results
    from regrad.experiments.measured.scoring import Study

ALL, DOCS = "all", "docs"
QUICK_IMAGES = 150


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, reproduce)


def reproduce(arguments: Sequence[str]) -> int:
    """Measure a table or all, and show every one that was measured so far."""
    args = parser().parse_args(arguments)

    with loading():
        from regrad.cluster.sessions import connected
        from regrad.experiments.measured.scoring import Study
        from regrad.experiments.reproduce import render
        from regrad.experiments.reproduce.tables import TABLES

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
    """Measure one table, keep its numbers beside those of before that cannot be had now, and print them."""
    import torch

    from regrad.benchmarks.render import machine
    from regrad.experiments.measured import results
    from regrad.experiments.reproduce import render
    from regrad.experiments.reproduce.quick import QUICK
    from regrad.experiments.reproduce.tables import TABLES

    table, about = TABLES[name], machine(torch.device("cpu"))
    held, _ = results.read_results(study.output, name) or ([], {})
    dated = partial(results.with_days, held=held, device=about["device"], date=about["date"])
    cells = dated((QUICK[name] if args.quick else table.compute)(study))
    cells += dated(table.summary(cells))
    command = shlex.join(["regrad", "reproduce", name, *(["--quick"] if args.quick else settings(args))])
    results.write_results(study.output, name, cells, command=command, machine=about)
    for caption, grid in render.grids(table, cells):
        print("\n".join([f"\n{caption}", *aligned(grid)]), flush=True)


def write_docs(study: Study, folder: str) -> int:
    """A page in ``tables/`` for every table that was measured, and its plot; the pages of others stay as they are."""
    from regrad.experiments.reproduce import render
    from regrad.experiments.reproduce.tables import TABLES

    drawn = plots(study)
    for name, (rows, about) in measured(study).items():
        figure = f"../figures/{name}.svg" if name in drawn else None
        page = storage.join(folder, "tables", f"{name}.md")
        storage.write_atomically(page, render.table_markdown(TABLES[name], rows, about, figure).encode())
        if figure is not None:
            storage.write_atomically(storage.join(folder, "figures", f"{name}.svg"), drawn[name])
        print(storage.mask(page))
    return 0


def measured(study: Study) -> dict[str, tuple[list[results.Result], dict[str, Any]]]:
    """The tables that were measured, in order."""
    from regrad.experiments.measured import results
    from regrad.experiments.reproduce.tables import TABLES

    tables = {name: results.read_results(study.output, name) for name in TABLES}
    return {name: table for name, table in tables.items() if table is not None}


def plots(study: Study) -> dict[str, bytes]:
    """Their plots."""
    from regrad.experiments.reproduce import figures

    drawn = {name: figures.draw(name, rows) for name, (rows, _) in measured(study).items()}
    return {name: svg for name, svg in drawn.items() if svg is not None}


def settings(args: argparse.Namespace) -> list[str]:
    """The flags that a table's numbers depend on."""
    return [f"--images={args.images}", f"--seeds={args.seeds}"]


def parser() -> Parser:
    """Its flags."""
    require_experiments("reproduce")
    from regrad.experiments.reproduce import NAMES

    flags = Parser("reproduce", __doc__, "TABLE [--FLAG ...]")
    most, run = flags.groups("run")
    most.add_argument(
        "table", choices=(*NAMES, ALL, DOCS), metavar="TABLE", help=f"{', '.join(NAMES)}; all; docs: write the pages"
    )
    most.add_argument("--data", default="../shared/data", metavar="URI", help="folder of packs (default: %(default)s)")
    most.add_argument("--output", metavar="URI", help="where all goes (default: reproduce, or reproduce-quick)")
    most.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} images, one run, two copies: in minutes")
    most.add_argument("--images", type=AT_LEAST_1, default=1000, metavar="N", help="of each set (default: %(default)s)")
    most.add_argument(
        "--seeds", type=AT_LEAST_1, default=3, metavar="N", help="runs of each network (default: %(default)s)"
    )
    run.add_argument("--download", action="store_true", help="fetch what --data lacks by torchvision")
    run.add_argument("--no-compute", action="store_true", help="take what OUT holds, and compute nothing")
    run.add_argument("--on-ray", action="store_true", help="score on Ray's workers, not in this process")
    run.add_argument("--docs", default="docs", metavar="DIR", help="where `docs` writes (default: %(default)s)")
    add_common(run)
    return flags
