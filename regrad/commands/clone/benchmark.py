"""Measure the engines beside the definition and what others offer, a plan, a job beside its engine or peers, a GPU.

    regrad benchmark engine --images cifar10-test.parquet --weights resnet18=resnet18.safetensors
    regrad benchmark engine --sweep --output benchmark
    regrad benchmark plan --units 1000 10000 100000 1000000 --output benchmark
    regrad benchmark sharing --cases resnet20 --rounds 3
    regrad benchmark job --cases regrad-resnet20 --images cifar10-test.parquet --output benchmark
    regrad benchmark peers --images imagenet.parquet --pythons daft=other/bin/python --output benchmark
    regrad benchmark nodes --weights resnet20=resnet20.safetensors --rounds 3 --output benchmark
    regrad benchmark fleet --nodes benchmark/nodes.json --output benchmark
    regrad benchmark gpu --images cifar10.npz --output gpu --minutes 8

engine: time over plain passes, memory, error. Everything runs in one process, in interleaved rounds, so that ratios
hold on a machine that others use too. The peers are in the extra `benchmark`; one that is missing, or cannot do the
work, is shown with the reason. plan: seconds and memory of listing, ledger, plan and status of outputs with so many
units. sharing: an engine beside other work on its cores. job: images a second of a job between its units, over those of
the engine's own loop. peers: other tools on the same images, network and score; docs/peers.md says more. nodes: a run
on one, two and four nodes, each with a quarter of a core. fleet: a simulated run on up to 256 GPUs. gpu: speed, error,
equality and memory on the GPU of this machine, by PyTorch alone; docs/gpu.md says more.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrad import UsageError, storage
from regrad.cli import Parser, add_common, loading, pair, run_command
from regrad.commands.clone import require_experiments
from regrad.settings.kinds import AT_LEAST_0, AT_LEAST_1, POSITIVE

if TYPE_CHECKING:
    from regrad.benchmarks.cases import Case
    from regrad.benchmarks.contenders import Contender
    from regrad.benchmarks.steady import Work

SWEEPS: dict[str, tuple[int, ...]] = {"classes": (2, 10, 100, 1000), "samples": (0, 1, 4, 10)}
NODES, NODES_IMAGES = (1, 2, 4), 384
SWEPT = ("exact 1e-3", "sketch 16", "reference")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, benchmark)


def benchmark(arguments: Sequence[str]) -> int:
    """Measure what is asked for."""
    args = parser().parse_args(arguments)
    refuse_others(args.what, arguments)
    return MEASURED[args.what](args)


def refuse_others(what: str, arguments: Sequence[str]) -> None:
    """Flags of another measurement would be without effect."""
    for given in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        # It may be shortened, as far as it is still one flag's.
        flag = given if given in OWNERS else next((each for each in OWNERS if each.startswith(given)), given)
        owners = OWNERS.get(flag, (what,))
        if what not in owners:
            raise UsageError(f"{flag}: of `regrad benchmark {'` and `'.join(owners)}`, without effect on {what}")


def plans(args: argparse.Namespace) -> int:
    """Measure plans, and write ``plan.json``, ``plan.md`` and ``plan.svg``."""
    from regrad.benchmarks import planning

    measured = [planning.measure_plan(units, say) for units in args.units]
    print(planning.plans_as_markdown(measured))
    keep(args.output, "plan", measured, planning.plans_as_markdown(measured), planning.plot_of_plans(measured))
    return 0


def shares(args: argparse.Namespace) -> int:
    """Measure every case beside every load, and write ``sharing.json`` and ``sharing.md``."""
    from regrad.benchmarks import sharing

    measured = [sharing.measure_sharing(case, args.rounds, say) for case in cases(args)]
    table = sharing.sharing_as_markdown(measured)
    print(table)
    keep(args.output, "sharing", measured, table)
    return 0


def jobs(args: argparse.Namespace) -> int:
    """Measure every work, and write ``job.json`` and ``job.md``."""
    from regrad.benchmarks import steady

    works = chosen_works(steady.WORKS, "job", args)
    measured = [steady.measure_job(work, args.rounds, say) for work in works]
    table = steady.jobs_as_markdown(measured)
    print(table)
    keep(args.output, "job", measured, table)
    return 0


def peers(args: argparse.Namespace) -> int:
    """Measure regrad beside others, or what each loses, into ``peers.json``; or write docs/peers.md of it."""
    from regrad.benchmarks.peers import measure, page

    if args.render:
        told = json.loads(storage.read_bytes(storage.join(args.render, "peers.json")))
        storage.write_atomically(args.output or "docs/peers.md", page.peers_page(told).encode())
        return 0
    works = chosen_works(measure.RACES, "peers", args)
    entrants = measure.named_peers(args.contenders)
    kept = measure.PeersFile(args.output)
    for work in works:
        if args.faults:
            for peer in entrants:
                kept.add("losses", measure.measure_losses(work, dict(args.pythons), say, [peer]))
            print(page.losses_as_markdown(kept.told["losses"][work.name]))
        else:
            kept.add("speed", measure.measure_speed(work, args.rounds, dict(args.pythons), say, entrants))
            print(page.speeds_as_markdown(kept.told["speed"][work.name]))
    return 0


def chosen_works(known: dict[str, Work], what: str, args: argparse.Namespace) -> list[Work]:
    """The cases of ``what`` that are asked for, with their weights, which other processes find too, and images."""
    from regrad.reading.inputs import absolute

    weights, names = {name: absolute(uri) for name, uri in args.weights}, args.cases or [*known]
    if unknown := [name for name in (*names, *weights) if name not in known]:
        raise UsageError(f"no case {', '.join(unknown)}; those of {what} are {', '.join(known)}")
    return [replace(known[name], weights=weights.get(name), pictures=tuple(args.images or ())) for name in names]


def several_nodes(args: argparse.Namespace) -> int:
    """Measure runs on several nodes, and write ``nodes.json`` and ``nodes.md``."""
    from regrad.benchmarks import nodes

    weights = dict(args.weights)
    if unknown := [name for name in weights if name != "resnet20"]:
        raise UsageError(f"no case {', '.join(unknown)}; that of nodes is resnet20")
    measured = nodes.measure_nodes(NODES, NODES_IMAGES, weights.get("resnet20"), args.rounds, say)
    table = nodes.nodes_as_markdown(measured)
    print(table)
    keep(args.output, "nodes", measured, table)
    return 0


def fleets(args: argparse.Namespace) -> int:
    """Simulate runs, and write ``fleet.json``, ``fleet.md`` and ``fleet.svg``."""
    from regrad.benchmarks import fleet

    real = json.loads(storage.read_bytes(args.nodes)) if args.nodes else None
    measured = fleet.measure_fleet(fleet.Fleet(), real, fleet.IMAGES, fleet.GPUS, say)
    table = fleet.fleet_as_markdown(measured)
    print(table)
    keep(args.output, "fleet", measured, table, fleet.plot_of_fleet(measured))
    return 0


def gpus(args: argparse.Namespace) -> int:
    """Write the file of images, or docs/gpu.md, or measure and write ``gpu.json``."""
    if args.render:
        from regrad.benchmarks.gpu.page import gpu_page

        results = json.loads(storage.read_bytes(storage.join(args.render, "gpu.json")))
        storage.write_atomically(args.output or "docs/gpu.md", gpu_page(results).encode())
        return 0
    images = "".join(args.images or ()) or None
    if args.pack:
        from regrad.benchmarks.gpu.pack import write_pictures

        if images is None:
            raise UsageError("--pack: --images names the file to write")
        train, test = args.pack
        write_pictures(train, test, images)
        return 0
    import torch

    from regrad.benchmarks.gpu.bench import Bench
    from regrad.benchmarks.gpu.parts import measure_all

    if args.output is None:
        raise UsageError("--output missing: the folder for gpu.json and the trained weights")
    Path(args.output).mkdir(parents=True, exist_ok=True)
    there = torch.cuda.is_available()
    if not there:
        print("no GPU: the tiny form, on the CPU", flush=True)
    results = measure_all(
        Bench("cuda" if there else "cpu", not there, args.output, images), args.minutes, partial(print, flush=True)
    )
    return int(any(part["ended"] != "whole" for part in results["parts"].values()))


def engines(args: argparse.Namespace) -> int:
    """Measure every case, then the sweeps, and write what was found."""
    with loading():
        import torch

        from regrad.benchmarks import render
        from regrad.benchmarks.timing import measure
        from regrad.pipeline import process

    warnings.filterwarnings("ignore", category=FutureWarning)
    process.set_up(torch.get_num_threads())  # as a worker
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    contenders = chosen(args.contenders)
    measured: dict[str, Any] = {"machine": render.machine(device), "rounds": args.rounds, "cases": [], "sweeps": {}}
    print(", ".join(f"{name} {value}" for name, value in measured["machine"].items()))
    for case in cases(args):
        measured["cases"].append(measure(case, contenders, args.rounds, device, say))
        show(measured["cases"][-1], args.output, measured)
    if args.sweep:
        for axis, values in SWEEPS.items():
            measured["sweeps"][axis] = []
            for value in values:
                case = variant(cases(args)[0], axis, value)
                measured["sweeps"][axis].append(measure(case, chosen(SWEPT), args.rounds, device, say, errors=False))
                show(measured["sweeps"][axis][-1], args.output, measured)
    return 0


def show(result: dict[str, Any], output: str | None, measured: dict[str, Any]) -> None:
    """Print the newest result, and write all that was found so far."""
    from regrad.benchmarks import render

    print(f"\n{render.table(result)}", flush=True)
    if output:
        write(output, measured)


def cases(args: argparse.Namespace) -> list[Case]:
    """The cases asked for, with their weights, images and sizes."""
    from regrad.benchmarks.cases import CASES

    weights, names = dict(args.weights), args.cases or ["resnet18"]
    unknown = [name for name in (*names, *weights) if name not in CASES]
    if unknown:
        raise UsageError(f"no case {', '.join(unknown)}; the cases are {', '.join(CASES)}")
    changes = {name: value for name in ("samples", "batch") if (value := getattr(args, name)) is not None}
    images = tuple(args.images or ())
    return [replace(CASES[name], weights=weights.get(name), images=images, **changes) for name in names]


def variant(case: Case, axis: str, value: int) -> Case:
    """``case`` with another number of classes or copies."""
    return case.with_samples(value) if axis == "samples" else replace(case, classes=value)


def chosen(names: Sequence[str] | None) -> list[Contender]:
    """The contenders called ``names``; all if there are none."""
    from regrad.benchmarks.contenders import CONTENDERS

    known = {contender.name: contender for contender in CONTENDERS}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UsageError(f"no contender {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names or known]


def write(output: str, measured: dict[str, Any]) -> None:
    """``benchmark.json``, ``benchmark.md``, and ``benchmark.svg`` if there were sweeps."""
    from regrad.benchmarks import render

    page = "\n\n".join(render.markdown(case) for case in measured["cases"])
    keep(output, "benchmark", measured, page, render.plot(measured["sweeps"]) if measured["sweeps"] else None)


def keep(output: str | None, name: str, measured: Any, page: str, plot: bytes | None = None) -> None:
    """What was measured as ``NAME.json``, ``NAME.md`` and, where there is a plot, ``NAME.svg``, if there is a place."""
    files = {"json": json.dumps(measured, indent=2).encode(), "md": page.encode(), "svg": plot}
    for suffix, content in files.items():
        if output and content is not None:
            storage.write_atomically(storage.join(output, f"{name}.{suffix}"), content)


def say(line: str) -> None:
    """What goes on, for whoever watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


MEASURED = {
    "engine": engines,
    "plan": plans,
    "sharing": shares,
    "job": jobs,
    "peers": peers,
    "nodes": several_nodes,
    "fleet": fleets,
    "gpu": gpus,
}
KINDS = "|".join(MEASURED)
#: Whose flags they are, of those that are not everyone's.
OWNERS = {
    "--sweep": ("engine",),
    "--contenders": ("engine", "peers"),
    **dict.fromkeys(("--samples", "--batch"), ("engine", "sharing")),
    "--cases": ("engine", "sharing", "job", "peers"),
    **dict.fromkeys(("--weights", "--rounds"), ("engine", "sharing", "job", "peers", "nodes")),
    "--nodes": ("fleet",),
    "--images": ("engine", "job", "peers", "gpu"),
    "--units": ("plan",),
    **dict.fromkeys(("--pythons", "--faults"), ("peers",)),
    "--render": ("peers", "gpu"),
    **dict.fromkeys(("--minutes", "--pack"), ("gpu",)),
}


def parser() -> Parser:
    """Its flags."""
    require_experiments("benchmark")
    flags = Parser("benchmark", __doc__, f"{KINDS} [--FLAG ...]")
    most, run = flags.groups("run")
    most.add_argument("what", choices=tuple(MEASURED), metavar=KINDS, help="what is measured")
    most.add_argument(
        "--cases", nargs="+", metavar="NAME", help="a wrong one lists them (default: resnet18; of job and peers, all)"
    )
    most.add_argument("--contenders", nargs="+", metavar="NAME", help="names as in the table (default: all)")
    most.add_argument(
        "--weights", nargs="+", default=[], type=pair("CASE=URI"), metavar="CASE=URI", help="fitted weights"
    )
    most.add_argument(
        "--images", nargs="+", metavar="INPUT", help="shards to take pictures from (default: blobs); of gpu, its file"
    )
    most.add_argument("--output", metavar="DIR", help="folder or URI for JSON, Markdown and plot")
    run.add_argument("--samples", type=AT_LEAST_0, metavar="N", help="noisy copies (default: the case's, which is 10)")
    run.add_argument("--batch", type=AT_LEAST_1, metavar="N", help="images at once (default: the case's)")
    run.add_argument(
        "--rounds", type=AT_LEAST_1, default=5, metavar="N", help="of which medians are taken (default: %(default)s)"
    )
    run.add_argument(
        "--units",
        nargs="+",
        type=AT_LEAST_1,
        default=[1_000, 10_000, 100_000, 1_000_000],
        metavar="N",
        help="of a plan (default: 1000 to 1000000)",
    )
    run.add_argument("--nodes", metavar="FILE", help="nodes.json of real runs, with which a fleet is compared")
    run.add_argument("--minutes", type=POSITIVE, default=8, metavar="N", help="that gpu takes (default: %(default)s)")
    run.add_argument("--pack", nargs=2, metavar=("TRAIN", "TEST"), help="write the file of --images from these shards")
    run.add_argument("--render", metavar="DIR", help="write docs/gpu.md or docs/peers.md from what was written there")
    run.add_argument("--faults", action="store_true", help="what each peer loses, in place of how fast it is")
    run.add_argument(
        "--pythons", nargs="+", default=[], type=pair("LIBRARY=PYTHON"), metavar="LIBRARY=PYTHON", help="who has it"
    )
    run.add_argument("--sweep", action="store_true", help="also the first case over classes and over copies")
    add_common(run)
    return flags
