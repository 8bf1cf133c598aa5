"""Plots of tables as SVG: what is drawn of which numbers, and for which tables there is none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from regrad.experiments.material.tasks import QUICK_TASKS, TASKS
from regrad.experiments.measured import labelling
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Study
from regrad.experiments.reproduce import figures

pytest.importorskip("matplotlib")


def difference(experiment: str, row: str, mean: float | None) -> Result:
    ends = (None, None) if mean is None else (mean - 1, mean + 2)
    return Result("ood", "MNIST", experiment, row, "AUROC", mean, None, *ends)


def text(svg: bytes) -> str:
    """What matplotlib notes beside the outlines of every text."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", svg.decode()))


def test_differences_are_drawn_for_every_experiment_that_has_them(tmp_path: Path) -> None:
    results = [
        difference("A→B", "REGrad* − Entropy", 1.0),
        difference("A→B", "REGrad* − ExGrad", -0.5),
        difference("A→C", "REGrad* − Entropy", 2.0),
        difference("A→D", "REGrad* − Entropy", None),
        difference("A→B", "Entropy", 90.0),
    ]
    svg = figures.draw(Study("data", str(tmp_path)), "ood", results)
    assert svg is not None
    said = text(svg)
    assert "A→B  (MNIST)" in said
    assert "A→C  (MNIST)" in said
    assert "A→D" not in said
    assert "REGrad* − ExGrad" in said
    assert figures.draw(Study("data", str(tmp_path)), "ood", results) == svg  # the same numbers, the same bytes
    assert figures.draw(Study("data", str(tmp_path)), "ood", [results[-1]]) is None


def test_a_table_without_a_plot(tmp_path: Path) -> None:
    assert figures.draw(Study("data", str(tmp_path)), "runtime", [difference("A", "REGrad* − Entropy", 1.0)]) is None


def test_curves_are_those_of_the_runs_that_are_kept(tmp_path: Path) -> None:
    study = Study("data", str(tmp_path), seeds=2)
    task = (*TASKS["active-learning"], *QUICK_TASKS["active-learning"])[0]
    folder = Path(labelling._folder(study, task))
    folder.mkdir(parents=True)
    for seed in range(2):
        for row in ("Entropy", labelling.RANDOM):
            cycles = [
                {"labelled": 20 * n, "metrics": {"accuracy": 0.1 * n + 0.01 * seed, "nll": 1.0}} for n in (1, 2, 3)
            ]
            (folder / f"{labelling.ROWS[row]}-seed{seed}.json").write_text(json.dumps(cycles))
    measured = [Result("active-learning", task.title, task.title, "Entropy", "ACC", 50.0)]
    svg = figures.draw(study, "active-learning", measured)
    assert svg is not None
    said = text(svg)
    assert task.title in said
    assert "Entropy" in said
    assert labelling.RANDOM in said
    assert "REGrad*" not in said  # which has no run
    assert figures.draw(study, "active-learning", []) is None
