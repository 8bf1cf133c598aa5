"""The walls of docs/architecture.md: which room may use which, where Ray and torch are, how large anything may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.data import ROOT

PAGE = ROOT / "docs/architecture.md"
GROUND, ABOVE = "the ground", "all above"
MOST_FILES, MOST_LINES, MOST_SHARE = 14, 420, 0.15
UNTESTED_LINES = 60  # so short a module may be tested with another
# Names that several modules have on purpose: the page and the words of each use of a run, and metrics of scores that
# metrics.counted has of counts.
SAME = dict.fromkeys(("render", "sentences", "auroc", "aupr", "augrc", "aurc", "raulc", "fpr_at_tpr"))


@dataclass(frozen=True)
class Import:
    """One module that another one names; ``at_once`` where importing the one imports the other."""

    target: str
    line: int
    at_once: bool


class Imports(ast.NodeVisitor):
    """All imports of a module, also those inside functions, under TYPE_CHECKING and by ``import_module("...")``."""

    def __init__(self, module: str, package: bool, modules: frozenset[str]):
        self.package = module if package else module.rpartition(".")[0]
        self.modules = modules
        self.at_once = True
        self.found: list[Import] = []

    def visit_Import(self, node: ast.Import) -> None:
        self._add(node.lineno, *(name.name for name in node.names))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            above = self.package.split(".")[: len(self.package.split(".")) + 1 - node.level]
            base = ".".join([*above, *([base] if base else [])])
        members = [f"{base}.{name.name}" for name in node.names]
        self._add(node.lineno, *(member if member in self.modules else base for member in members))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self._add(node.lineno, str(node.args[0].value))
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outside in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults):
            if outside is not None:
                self.visit(outside)
        self._later(node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._later([node.body])

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)
            return
        self._later(node.body)
        for child in node.orelse:
            self.visit(child)

    def _later(self, nodes: list[ast.stmt] | list[ast.expr]) -> None:
        before, self.at_once = self.at_once, False
        for child in nodes:
            self.visit(child)
        self.at_once = before

    def _add(self, line: int, *targets: str) -> None:
        self.found += [Import(target, line, self.at_once) for target in dict.fromkeys(targets)]


def imports_of(text: str, module: str, package: bool, modules: frozenset[str]) -> list[Import]:
    visitor = Imports(module, package, modules)
    visitor.visit(ast.parse(text))
    return visitor.found


@cache
def files() -> dict[str, Path]:
    """Every module of the package and its file."""
    found = {}
    for path in sorted((ROOT / "regrad").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def graph() -> dict[str, list[Import]]:
    """Every module of the package and what it imports."""
    modules = frozenset(files())
    return {
        module: imports_of(path.read_text(), module, path.name == "__init__.py", modules)
        for module, path in files().items()
    }


@dataclass(frozen=True)
class Room:
    """A row of the page's table."""

    names: tuple[str, ...]
    uses: frozenset[str]
    without_torch: str

    def needs_no_torch(self, module: str) -> bool:
        """Whether the page says that ``module``, which is in this room, does without."""
        named = module.rpartition(".")[2] in re.findall(r"`(\w+)`", self.without_torch)
        if self.without_torch.startswith("all"):
            return not named
        return named


@cache
def rooms() -> tuple[Room, ...]:
    """The table of the page, from the ground up."""
    (table,) = re.findall(r"^\| room \|.*\n\| -.*\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    above: list[str] = []
    ground: list[str] | None = None
    built = []
    for names, _, uses, without_torch in rows:
        if GROUND in uses and ground is None:
            ground = list(above)
        own = re.findall(r"`(\w+)`", names)
        named = re.findall(r"`(\w+)`", uses) + (ground or []) * (GROUND in uses) + above * (ABOVE in uses)
        assert set(named) <= set(above), f"{names} uses what does not stand below it: {set(named) - set(above)}"
        built.append(Room(tuple(own), frozenset(named), without_torch))
        above += own
    return tuple(built)


def place(module: str) -> str:
    """The name that the table knows a module of the package by."""
    return "regrad" if module == "regrad" else module.split(".")[1]


def room_of(module: str) -> Room | None:
    """The room of a module of the package; None where the page has none for it."""
    return next((room for room in rooms() if place(module) in room.names), None)


def chain(module: str, wanted: str) -> list[str] | None:
    """How importing ``module`` imports ``wanted``: the modules on the way; None where it does not."""
    waiting, came_from = [module], {module: ""}
    while waiting:
        at = waiting.pop()
        parents = [at.rsplit(".", depth)[0] for depth in range(1, at.count(".") + 1)]
        for target in [*parents, *(each.target for each in graph()[at] if each.at_once)]:
            if target.split(".")[0] == wanted:
                way = [target, at]
                while came_from[way[-1]]:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target in graph() and target not in came_from:
                came_from[target] = at
                waiting.append(target)
    return None


def outside(module: str) -> Iterator[str]:
    """The imports of ``module`` that its room may not have."""
    room = room_of(module)
    assert room is not None
    for each in graph()[module]:
        if each.target.split(".")[0] == "regrad" and place(each.target) not in {*room.names, *room.uses}:
            yield f"{module}, line {each.line}: {each.target}"


def test_every_import_is_seen() -> None:
    text = """
import ray.data
from regrad import Scorer, storage
from . import plan
from ..ledger.lease import hold
from regrad.nowhere import thing
if TYPE_CHECKING:
    from regrad.cluster import actors
else:
    import json
def later(default=import_module("regrad.table")):
    import torch
    class Inside:
        import numpy
call = lambda: importlib.import_module("regrad.cli")
class Body:
    import pyarrow
"""
    modules = frozenset(
        f"regrad.{name}" for name in ("storage", "pipeline", "pipeline.plan", "ledger.lease", "cluster.actors")
    )
    found = imports_of(text, "regrad.pipeline.run", False, modules)
    assert [(each.target, each.at_once) for each in found] == [
        ("ray.data", True),
        ("regrad", True),
        ("regrad.storage", True),
        ("regrad.pipeline.plan", True),
        ("regrad.ledger.lease", True),
        ("regrad.nowhere", True),
        ("regrad.cluster.actors", False),
        ("json", True),
        ("regrad.table", True),
        ("torch", False),
        ("numpy", False),
        ("regrad.cli", False),
        ("pyarrow", True),
    ]
    inside = imports_of("from . import plan", "regrad.pipeline", True, modules)
    assert [each.target for each in inside] == ["regrad.pipeline.plan"]


def test_every_module_has_a_room() -> None:
    assert [module for module in files() if room_of(module) is None] == []
    names = [name for room in rooms() for name in room.names]
    assert len(names) == len(set(names))
    there = {module.split(".")[1] for module in files() if "." in module} | {"regrad"}
    assert set(names) - there <= {"__main__"}  # which is being built


def test_no_room_uses_what_the_page_does_not_say() -> None:
    assert [wrong for module in files() for wrong in outside(module)] == []


def test_ray_is_in_its_room_alone() -> None:
    users = {module for module, found in graph().items() for each in found if each.target.split(".")[0] == "ray"}
    assert [module for module in users if not module.startswith("regrad.cluster.")] == []
    assert users  # else this looks at nothing


def test_nothing_imports_the_jobs() -> None:
    assert [m for m, found in graph().items() if any(each.target.split(".")[0] == "jobs" for each in found)] == []


def test_only_the_scorer_knows_scores_and_gradients() -> None:
    both = [room.names for room in rooms() if {"scores", "gradients"} <= room.uses]
    assert both == [("scorer",), ("experiments",), ("benchmarks",), ("commands", "__main__")]


def light() -> list[str]:
    """The modules that the page says do without torch."""
    return [module for module in files() if (room := room_of(module)) and room.needs_no_torch(module)]


def test_what_lists_and_reports_needs_no_torch() -> None:
    assert {"regrad.ledger.status", "regrad.report.numbers", "regrad.pipeline.options", "regrad.cli"} <= set(light())
    assert [" -> ".join(way) for module in light() if (way := chain(module, "torch"))] == []


def test_what_lists_and_reports_really_imports_no_torch() -> None:
    """The libraries that it imports do not bring it either, nor Ray."""
    modules = [module for module in light() if chain(module, "ray") is None]
    code = f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'ray'}} & sys.modules.keys()))"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", [room.names[0] for room in rooms()])
def test_every_exception_from_torch_is_needed(name: str) -> None:
    """What the page calls an exception does import torch: one that no longer does is no exception."""
    (room,) = (room for room in rooms() if name in room.names)
    named = re.findall(r"`(\w+)`", room.without_torch)
    if room.without_torch.startswith("all"):
        assert [each for each in named if chain(f"regrad.{name}.{each}", "torch") is None] == []
    else:
        assert [each for each in named if f"regrad.{name}.{each}" not in files()] == []


def test_no_room_is_crowded() -> None:
    folders = [path for path in (ROOT / "regrad").rglob("*") if path.is_dir() and list(path.glob("*.py"))]
    counts = {str(path.relative_to(ROOT)): len(list(path.glob("*.py"))) for path in (ROOT / "regrad", *folders)}
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}
    lines = {path: len(path.read_text().splitlines()) for path in files().values()}
    shares: dict[str, float] = {}
    for path, count in lines.items():
        room = path.relative_to(ROOT / "regrad").parts[0]
        shares[room] = shares.get(room, 0.0) + count / sum(lines.values())
    assert {room: share for room, share in shares.items() if share > MOST_SHARE} == {}


def test_no_file_is_long() -> None:
    paths = [path for folder in ("regrad", "jobs") for path in (ROOT / folder).rglob("*.py")]
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    assert {path: count for path, count in long.items() if count > MOST_LINES} == {}


def public_names() -> dict[str, list[str]]:
    """The public functions and classes at the top of every module, and where they are.

    A command is a program: nothing imports from it, and its functions are named among themselves.
    """
    places: dict[str, list[str]] = {}
    for module, path in files().items():
        if place(module) not in ("commands", "__main__"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(module)
    return places


def test_a_public_name_is_of_one_thing() -> None:
    names = public_names()
    assert len(names) > 500  # else this looks at little
    shared = {name: modules for name, modules in names.items() if len(modules) > 1}
    assert {name: modules for name, modules in shared.items() if name not in SAME} == {}
    assert SAME.keys() - shared.keys() == set()


def test_modules_of_some_length_have_a_test_file_of_their_name() -> None:
    missing = []
    for path in files().values():
        if len(path.read_text().splitlines()) > UNTESTED_LINES:
            inside = path.relative_to(ROOT / "regrad")
            test = ROOT / "tests" / inside.parent / f"test_{path.stem.strip('_')}.py"
            if not test.exists():
                missing.append(f"{path.relative_to(ROOT)}: no {test.relative_to(ROOT)}")
    assert missing == []


def test_test_files_are_of_something() -> None:
    """A folder of tests is a room's, or of one of the other things there are to test."""
    others = {"docs", "faults", "infra"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders - others - {name for room in rooms() for name in room.names} == set()
