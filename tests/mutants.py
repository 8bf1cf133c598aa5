"""What the tests would let through: small faults put into the code one at a time, and the tests run on each.

    python -m tests.mutants regrad/metrics/separation.py=tests/metrics --count 20

Each ``MODULE=TESTS`` names a file or a folder and the tests (separated by commas) that ought to see its faults. Faults
are chosen by a seeded hash of function, line and change, so that the same code gets the same faults wherever it lies.
The tree is copied; nothing is changed in place. A survivor is a line to look at, not a verdict: it may change nothing.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("regrad", "jobs", "tests", "docs", "pyproject.toml")
SECONDS = 600  # a fault that makes the tests hang is seen
SWAPS: dict[type[ast.AST], tuple[type[ast.AST], str]] = {
    ast.Add: (ast.Sub, "+ to -"),
    ast.Sub: (ast.Add, "- to +"),
    ast.Mult: (ast.Div, "* to /"),
    ast.Div: (ast.Mult, "/ to *"),
    ast.FloorDiv: (ast.Div, "// to /"),
    ast.Mod: (ast.FloorDiv, "% to //"),
    ast.Lt: (ast.LtE, "< to <="),
    ast.LtE: (ast.Lt, "<= to <"),
    ast.Gt: (ast.GtE, "> to >="),
    ast.GtE: (ast.Gt, ">= to >"),
    ast.Eq: (ast.NotEq, "== to !="),
    ast.NotEq: (ast.Eq, "!= to =="),
    ast.In: (ast.NotIn, "in to not in"),
    ast.NotIn: (ast.In, "not in to in"),
    ast.Is: (ast.IsNot, "is to is not"),
    ast.IsNot: (ast.Is, "is not to is"),
    ast.And: (ast.Or, "and to or"),
    ast.Or: (ast.And, "or to and"),
}


@dataclass(frozen=True)
class Mutant:
    """One fault: ``source`` is the whole file with it; ``order`` is the seeded hash that picks it."""

    path: Path
    line: int
    change: str
    source: str
    order: str


def mutants(path: Path, seed: int) -> Iterator[Mutant]:
    """Every fault of a file, but for what is only said: messages, docstrings, annotations, imports."""
    source = path.read_text()
    for scope, node in _walk(ast.parse(source), ""):
        for replacement, change in _changes(node):
            start, end = _span(source, node)
            text = f"{source[:start]}({ast.unparse(replacement)}){source[end:]}"
            if isinstance(node, ast.stmt):
                text = f"{source[:start]}{ast.unparse(replacement)}{source[end:]}"
            key = f"{seed} {scope} {ast.unparse(node)} {change}"
            yield Mutant(path, node.lineno, change, text, hashlib.sha256(key.encode()).hexdigest())  # type: ignore[attr-defined]


def _walk(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Raise, ast.arguments)):
            continue
        if isinstance(child, ast.AnnAssign):
            child = ast.Expr(child.value) if child.value else ast.Pass()
        inner = f"{scope}.{child.name}" if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else scope
        if hasattr(child, "lineno"):
            yield inner, child
        yield from _walk(child, inner)


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What a node may be changed to, one small fault each."""
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
        other, change = SWAPS[type(node.op)]
        fields = {name: getattr(node, name) for name in node._fields}
        yield type(node)(**fields | {"op": other()}), change
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPS:
        other, change = SWAPS[type(node.ops[0])]
        yield ast.Compare(node.left, [other()], node.comparators), change  # type: ignore[list-item]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value), f"{node.value} to {not node.value}"
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1), f"{node.value} to {node.value + 1}"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand, f"{type(node.op).__name__} left out"
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse), "the other branch"
    elif isinstance(node, (ast.AugAssign, ast.Continue)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass(), "left out"


def _span(source: str, node: ast.AST) -> tuple[int, int]:
    lines = source.splitlines(keepends=True)
    ends = []
    for line, column in ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)):  # type: ignore[attr-defined]
        before = lines[line - 1].encode()[:column].decode()
        ends.append(sum(map(len, lines[: line - 1])) + len(before))
    return ends[0], ends[1]


def chosen(module: Path, seed: int, count: int) -> list[Mutant]:
    """The ``count`` faults of a file or folder that the seed puts first."""
    files = sorted(module.rglob("*.py")) if module.is_dir() else [module]
    return sorted((mutant for file in files for mutant in mutants(file, seed)), key=lambda mutant: mutant.order)[:count]


def survives(mutant: Mutant, tree: Path, tests: list[str]) -> bool:
    """Whether the tests pass with the fault; the ``tree`` is as it was afterwards."""
    place = tree / mutant.path.relative_to(ROOT)
    sound = place.read_text()
    place.write_text(mutant.source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.setdefault("REGRAD_DATA", str(ROOT.parent / "shared" / "data"))
        ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS, check=False)
        return ended.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        place.write_text(sound)


def main() -> int:
    """Print a line for each fault and a count at the end; 0 whatever came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", metavar="MODULE=TESTS")
    parser.add_argument("--count", type=int, default=20, help="faults for each MODULE (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED:
            ignored = shutil.ignore_patterns("__pycache__")
            source = ROOT / name
            (shutil.copytree(source, tree / name, ignore=ignored) if source.is_dir() else shutil.copy(source, tree))
        for pair in args.pairs:
            module, _, tests = pair.partition("=")
            faults = chosen(ROOT / module, args.seed, args.count)
            seen = 0
            for mutant in faults:
                survived = survives(mutant, tree, tests.split(","))
                seen += not survived
                where = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
                line = mutant.path.read_text().splitlines()[mutant.line - 1].strip()
                print(f"{'SURVIVED' if survived else 'seen    '} {where}: {mutant.change}: {line}", flush=True)
            print(f"{module}: {seen} of {len(faults)} faults are seen by {tests}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
