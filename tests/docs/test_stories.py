"""The changes that docs/extending.md tells, carried out on a copy of the package by the page's own words."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.data import ROOT
from tests.shards import digits, write_parquet

PAGE = (ROOT / "docs/extending.md").read_text()
STORIES = ("A flag of the scorer", "A flag of a run", "A figure of the report", "A metric for gates")
NUMBERS = {"One": 1, "Two": 2, "Three": 3}

# All that the stories want carried out, in one process without Ray's workers: torch is imported once.
COMMANDS = """
import json, sys
import pytest
import regrad.commands.audit, regrad.commands.score
from regrad.__main__ import main
from regrad.pipeline.run import score_here
regrad.commands.score.score_where_it_pays = regrad.commands.audit.score_where_it_pays = score_here
codes = {name: main(arguments) for name, arguments in json.loads(sys.argv[1]).items()}
codes["tests"] = pytest.main(["-q", "-p", "no:cacheprovider", "tests/settings/test_scoring.py"])
print(json.dumps(codes))
"""


def blocks(story: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """The files that a story changes, and in each the lines that are looked for and what they become."""
    (section,) = re.findall(rf"^## {story}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    found = []
    for file, content in re.findall(r"^```diff\n--- (\S+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
        changes = []
        for hunk in content.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            changes.append((before, "".join(line[1:] for line in lines if line[0] in " +")))
        found.append((file, changes))
    assert found
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, and of the tests' networks, as the stories leave it."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("regrad", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for story in STORIES:
        for file, changes in blocks(story):
            text = (folder / file).read_text()
            for before, after in changes:
                assert text.count(before) == 1, f"{file} has {text.count(before)} times:\n{before}"
                text = text.replace(before, after)
            (folder / file).write_text(text)
    return folder


@pytest.fixture(scope="module")
def codes(copy: Path) -> dict[str, int]:
    """The exit codes of what the stories want tried, by name, carried out by the copy in this order."""
    images = write_parquet(copy / "in.parquet", digits(40))
    new = write_parquet(copy / "new.parquet", [(f"new/{name}", image, label) for name, image, label in digits(25)])
    (copy / "c.yaml").write_text("antithetic: true\n")
    model = ["--model", "tests.shards:build", "--scores", "regrad,entropy", "--samples", "3"]

    def scoring(output: str, *more: str) -> list[str]:
        return ["score", images, *model, "--output", str(copy / output), *more]

    report = ["report", "--id", str(copy / "plain"), "--no-thumbnails", "--output", str(copy / "report")]
    night = ["audit", new, *model, "--output", str(copy / "audit"), "--baseline", str(copy / "plain")]
    commands = {
        "plain": scoring("plain"),
        "flag": scoring("mirrored", "--antithetic"),
        "file": scoring("mirrored", "--config", str(copy / "c.yaml")),
        "refused": scoring("mirrored"),
        "incomparable": [*report, "--reference", str(copy / "mirrored")],
        "noted": scoring("plain", "--note", "of s3://key:secret@bucket"),
        "report": report,
        "gate": [*night, "--gate", "labelled > 40", "--no-thumbnails"],
    }
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    ended: dict[str, int] = json.loads(ran.stdout.splitlines()[-1])
    return ended


def rows(copy: Path, output: str, column: str) -> list[float]:
    values: list[float] = pyarrow.parquet.read_table(copy / output / "scores")[column].to_pylist()
    return values


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("story", STORIES)
def test_a_story_takes_as_many_files_as_it_says(story: str) -> None:
    (count,) = re.findall(rf"^## {story}\n\n(\w+) files:", PAGE, re.MULTILINE)
    assert len(blocks(story)) == NUMBERS[count]


def test_a_flag_of_the_scorer(copy: Path, codes: dict[str, int]) -> None:
    wanted = {"plain": 0, "flag": 0, "file": 0, "refused": 2, "incomparable": 2, "tests": 0}
    assert {name: codes[name] for name in wanted} == wanted
    assert read(copy / "mirrored/run.json")["config"]["antithetic"] is True
    assert read(copy / "mirrored/run.json")["units"] == {"planned": 0, "done_before": 1}  # a file is as good as a flag
    assert rows(copy, "mirrored", "entropy") == rows(copy, "plain", "entropy")
    assert rows(copy, "mirrored", "regrad") != rows(copy, "plain", "regrad")


def test_a_flag_of_a_run(copy: Path, codes: dict[str, int]) -> None:
    assert codes["noted"] == 0
    held = read(copy / "plain/run.json")
    assert held["note"] == "of s3://***@bucket"
    assert held["units"] == {"planned": 0, "done_before": 1}  # nothing was scored anew for its sake


def test_a_figure_of_the_report(copy: Path, codes: dict[str, int]) -> None:
    assert codes["report"] == 0
    told = read(copy / "report/report.json")["id"]
    assert (told["images"], told["labelled"], told["unlabelled"]) == (40, 40, 0)
    assert "<dt>without a label</dt><dd>0</dd>" in (copy / "report/report.html").read_text()


def test_a_metric_for_gates(copy: Path, codes: dict[str, int]) -> None:
    assert codes["gate"] == 3
    assert read(copy / "audit/audit.json")["metrics"]["labelled"] == 25
    assert pyarrow.parquet.read_table(copy / "audit/history.parquet")["labelled"].to_pylist() == [25]
    (page,) = (copy / "audit/nights").glob("*/audit.html")
    assert "images with a label that the model could have predicted" in page.read_text()
