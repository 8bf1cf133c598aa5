"""Score every classification network of torchvision and timm, with random weights and the smallest input it takes.

    python -m regrad.experiments.sweep --output sweep.jsonl --families
    python -m regrad.experiments.sweep --output sweep.jsonl --seconds 120
    python -m regrad.experiments.sweep --output sweep.jsonl --table

One process a network, with a time limit; what is in the output already is not tried again. ``--table`` prints what is
there as Markdown.

Exit codes: 0 done, 1 a network failed, 2 wrong usage, 130 and 143 stopped.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from regrad.cli import Parser, add_common, run_command
from regrad.experiments.apart import Ended, in_a_process
from regrad.experiments.sweep.catalogue import LIBRARIES, Listed, listed, smallest_of_each_family, version
from regrad.experiments.sweep.table import families_as_markdown
from regrad.experiments.sweep.trial import ENGINES, trial
from regrad.settings.kinds import AT_LEAST_1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, try_all)


def parser() -> Parser:
    """The command's arguments."""
    made = Parser("", __doc__, "--output FILE [options]")
    made.prog = "python -m regrad.experiments.sweep"
    made.usage = f"{made.prog} --output FILE [options]"
    what, how = made.groups("how it is tried, and shown")
    what.add_argument("--output", type=Path, required=True, help="a file of JSON lines, one a network")
    what.add_argument("--library", choices=LIBRARIES, action="append", help="of these alone")
    what.add_argument("--families", action="store_true", help="the smallest network of each family alone")
    what.add_argument("--names", nargs="*", help="these alone")
    how.add_argument("--engines", nargs="*", choices=tuple(ENGINES), default=tuple(ENGINES), help="these alone")
    how.add_argument("--seconds", type=AT_LEAST_1, default=120, help="at most, a network")
    how.add_argument("--table", action="store_true", help="print what is there as Markdown, and try nothing")
    add_common(how)
    return made


def try_all(arguments: Sequence[str]) -> int:
    """Try what is not in the output yet."""
    args = parser().parse_args(arguments)
    held = tried_before(args.output)
    if args.table:
        print(families_as_markdown(held))
        return 0
    items = [item for item in listed(tuple(args.library or LIBRARIES)) if not args.names or item.name in args.names]
    if args.families:
        items = smallest_of_each_family(items)
    done = {(row["library"], row["name"]) for row in held}
    failed = 0
    with args.output.open("a", encoding="utf-8") as file:
        for item in items:
            if (item.library, item.name) in done:
                continue
            row = tried(item, args.seconds, tuple(args.engines))
            failed += any(result["outcome"] == "failed" for result in row["results"])
            print(in_one_line(row), flush=True)
            file.write(json.dumps(row) + "\n")
            file.flush()
    return int(failed > 0)


def tried_before(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier sweep."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def tried(item: Listed, seconds: float, engines: tuple[str, ...] = tuple(ENGINES)) -> dict[str, Any]:
    """One network in a process of its own, stopped after ``seconds``: what was found out until then."""
    row: dict[str, Any] = {"library": item.library, "family": item.family, "name": item.name, "results": []}
    row["version"] = version(item.library)
    for piece in in_a_process(_trial, (item, engines), seconds, "fork"):  # which has torch and timm already
        if not isinstance(piece, Ended):
            if "engine" in piece or "outcome" in piece:
                row["results"].append(piece)
            else:
                row |= piece
        elif piece.stopped:
            row["stopped"] = f"after {seconds:g} s"
        elif piece.code:
            row["results"].append({"outcome": "failed", "reason": f"its process ended with {piece.code}"})
    return row


def _trial(item: Listed, engines: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    yield from trial(item, engines)


def in_one_line(row: dict[str, Any]) -> str:
    """One line."""
    parts = [f"{row['library']}:{row['name']}", f"{row.get('parameters', 0) / 1e6:.1f} M, {row.get('side', 0)} px"]
    for result in row["results"]:
        said = result.get("engine", "")
        said += f" {result['outcome']}"
        said += f" {result['error']:.1e}" if "error" in result and result["engine"] != "reference" else ""
        said += f" ({result['reason'][:120]})" if "reason" in result else ""
        parts.append(said + f" {result.get('seconds', 0):.0f} s")
    return "; ".join([*parts, *([row["stopped"]] if "stopped" in row else [])])


if __name__ == "__main__":
    raise SystemExit(main())
