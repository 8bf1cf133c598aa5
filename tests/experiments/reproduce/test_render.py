"""Tables as Markdown and as a page: ours beside the paper's, and what is missing said so."""

from __future__ import annotations

from dataclasses import replace

from regrad.experiments.measured.results import Result
from regrad.experiments.reproduce import render
from regrad.experiments.reproduce.tables import TABLES

ABOUT = {"command": "regrad reproduce ood --images=500 --seeds=3"}


def result(experiment: str, row: str, metric: str, mean: float | None, **more: float | None) -> Result:
    given = {"deviation": 0.2, "low": 97.0, "high": 99.0, "paper": None, "paper_deviation": None} | more
    if mean is None:
        given |= {"deviation": None, "low": None, "high": None}
    runs = 0 if mean is None else 3
    return Result(
        "ood", "MNIST, standard CNN", experiment, row, metric, mean, runs=runs, runs_of="training", images=500, **given
    )  # type: ignore[arg-type]


RESULTS = [
    result("MNIST→FMNIST", "REGrad*", "AUROC", 98.061, paper=98.78, paper_deviation=0.14),
    result("MNIST→FMNIST", "REGrad*", "AUPR", 98.3, paper=98.79, paper_deviation=0.07),
    result("MNIST→FMNIST", "REGrad* − Entropy", "AUROC", -0.5, low=-0.9, high=-0.1, deviation=None),
    result("MNIST→X<Y", "REGrad*", "AUROC", None, paper=91.0),
]


def test_markdown_has_ours_the_papers_and_what_is_missing() -> None:
    lines = render.table_markdown(TABLES["ood"], RESULTS, ABOUT, "../figures/ood.svg").splitlines()
    assert "| | MNIST→FMNIST | MNIST→FMNIST, paper | MNIST→X<Y, paper |".replace("| |", "|  |") in lines
    assert "| REGrad* | 98.06 ± 0.20 / 98.30 ± 0.20 [97.00, 99.00] | 98.78 ± 0.14 / 98.79 ± 0.07 | 91.00 |" in lines
    assert "| REGrad* − Entropy | −0.50 [−0.90, −0.10] | – | – |" in lines
    assert any(
        line.startswith(
            "**MNIST, standard CNN**, 3 training seeds, 500 images of each set; MNIST→X<Y: not measured here"
        )
        for line in lines
    )
    assert "![Table 1: telling unknown images from known ones](../figures/ood.svg)" in lines
    assert any(line.startswith("Command: `regrad reproduce ood --images=500 --seeds=3`") for line in lines)
    below = lines.index(next(line for line in lines if "*beyond the paper*" in line))
    assert below < lines.index("| REGrad* − Entropy | −0.50 [−0.90, −0.10] | – | – |")


def test_every_line_of_a_table_has_as_many_cells() -> None:
    for _, grid in render.grids(TABLES["ood"], RESULTS):
        assert len({len(row) for row in grid}) == 1


def test_what_neither_we_nor_the_paper_have_is_named() -> None:
    ((title, grid),) = render.grids(TABLES["ood"], [result("C10→C100", "REGrad*", "AUROC", None)])
    assert title == "**MNIST, standard CNN**, C10→C100: not measured here"
    assert grid == []


def test_a_caption_says_when_and_by_experiment_where_that_differs() -> None:
    old = [replace(each, device="Abacus", date="2026-01-02") for each in RESULTS if each.experiment == "MNIST→FMNIST"]
    assert render.caption("CNN", old, []) == (
        "**CNN**, 3 training seeds, 500 images of each set, on Abacus, 2026-01-02"
    )
    new = [replace(old[0], experiment="MNIST→SVHN", date="2026-03-04", images=200, runs=1)]
    assert render.caption("CNN", [*old, *new], ["MNIST→LSUN"]) == (
        "**CNN**, MNIST→FMNIST: 3 training seeds, 500 images of each set, on Abacus, 2026-01-02; "
        "MNIST→SVHN: 1 training seed, 200 images of each set, on Abacus, 2026-03-04; MNIST→LSUN: not measured here"
    )
    later = [replace(each, experiment="MNIST→SVHN") for each in old]
    assert render.caption("CNN", [*old, *later], []) == render.caption("CNN", old, [])


def test_a_caption_counts_runs_of_one_kind() -> None:
    timed = Result("ood", "G", "cost", "REGrad*", "AUROC", 1.0, runs=5, runs_of="rounds", images=2)
    caption = render.caption("G", [result("C10→C100", "REGrad*", "AUROC", 90.0), timed], [])
    assert caption == "**G**, 3 training seeds, 500 images of each set"


def test_the_page_is_escaped_and_whole() -> None:
    page = render.page({"ood": (RESULTS, ABOUT)}, {"ood": b'<?xml version="1.0"?><svg><g/></svg>'})
    assert "MNIST→X&lt;Y" in page
    assert "X<Y" not in page
    assert "<svg><g/></svg>" in page
    assert "<?xml" not in page
