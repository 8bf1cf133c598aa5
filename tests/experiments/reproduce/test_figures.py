"""Plots of tables as SVG: what is drawn of which numbers, and for which tables there is none."""

from __future__ import annotations

import re

import pytest

from regrad.experiments.measured import labelling
from regrad.experiments.measured.results import Result
from regrad.experiments.reproduce import figures

pytest.importorskip("matplotlib")


def difference(experiment: str, row: str, mean: float | None) -> Result:
    ends = (None, None) if mean is None else (mean - 1, mean + 2)
    return Result("ood", "MNIST", experiment, row, "AUROC", mean, None, *ends)


def text(svg: bytes) -> str:
    """What matplotlib notes beside the outlines of every text."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", svg.decode()))


def test_differences_are_drawn_for_every_experiment_that_has_them() -> None:
    results = [
        difference("A→B", "REGrad* − Entropy", 1.0),
        difference("A→B", "REGrad* − ExGrad", -0.5),
        difference("A→C", "REGrad* − Entropy", 2.0),
        difference("A→D", "REGrad* − Entropy", None),
        difference("A→B", "Entropy", 90.0),
    ]
    svg = figures.draw("ood", results)
    assert svg is not None
    said = text(svg)
    assert "A→B  (MNIST)" in said
    assert "A→C  (MNIST)" in said
    assert "A→D" not in said
    assert "REGrad* − ExGrad" in said
    assert figures.draw("ood", results) == svg  # the same numbers, the same bytes
    assert figures.draw("ood", [results[-1]]) is None


def test_a_table_without_a_plot() -> None:
    assert figures.draw("runtime", [difference("A", "REGrad* − Entropy", 1.0)]) is None


def test_curves_are_drawn_of_the_points_that_there_are() -> None:
    def points(title: str, row: str, *accuracies: float | None) -> list[Result]:
        return [
            Result("active-learning", title, title, row, f"ACC at {20 * place}", accuracy)
            for place, accuracy in enumerate(accuracies, 1)
        ]

    measured = [
        *points("MNIST", "Entropy", 10.0, 20.0, 30.0),
        *points("MNIST", labelling.RANDOM, 10.0, 15.0, 20.0),
        *points("MNIST", "LA", 10.0, 15.0, 20.0),
        Result("active-learning", "SVHN", "SVHN", "REGrad*", "ACC", None),
    ]
    svg = figures.draw("active-learning", measured)
    assert svg is not None
    said = text(svg)
    assert "MNIST" in said
    assert "Entropy" in said
    assert labelling.RANDOM in said
    assert "SVHN" not in said  # which has no points
    assert "REGrad*" not in said
    assert "LA" not in said  # which is not among those shown
    assert figures.draw("active-learning", measured[-1:]) is None
