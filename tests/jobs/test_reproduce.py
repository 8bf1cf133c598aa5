"""The job that measures the paper's tables: its quick form on real images, going on, and wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import reproduce
from regrad import table
from regrad.reproduce import experiments, methods
from tests.data import data_path


@pytest.mark.data
def test_the_quick_form_of_table_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "QUICK_IMAGES", 50)
    data = data_path("weights/resnet20-cifar10.safetensors").parents[1]
    command = ["ood", "--quick", "--data", str(data), "--output", str(tmp_path / "out")]
    assert reproduce.main(command) == 0
    shown = capfd.readouterr()
    assert "C10→TinyImageNet" in shown.out

    found = json.loads((tmp_path / "out/results/ood.json").read_text())["results"]
    cells = {(r["experiment"], r["row"], r["metric"]): r["mean"] for r in found}
    for experiment in experiments.QUICK:
        for row in methods.ALL:
            for metric in ("AUROC", "AUPR"):
                assert 0 <= cells[experiment.name, row, metric] <= 100
    near = "C10→TinyImageNet"
    assert cells[near, "REGrad*", "AUROC"] > cells[near, "ExGrad", "AUROC"] > 70
    far = ("MNIST→FMNIST", "MNIST→Omniglot")
    assert all(cells[each, row, "AUROC"] > 80 for each in far for row in ("REGrad*", "ExGrad", "Entropy"))
    # Read as the paper's tables read it, GradNorm is no better than its mirror image: the sign is a choice.
    for experiment in experiments.QUICK:
        both = cells[experiment.name, "GradNorm", "AUROC"] + cells[experiment.name, "GradNorm, negated", "AUROC"]
        assert both == pytest.approx(100)

    for scored in (tmp_path / "out/scores").glob("*/seed-0/quick"):
        rows = table.read(str(scored), ["negrad", "ungrad"])
        assert (
            max(abs(n) / u for n, u in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)) < 1e-3
        )

    assert reproduce.main(command) == 0  # again: everything is there
    assert "scoring" not in capfd.readouterr().err
    assert reproduce.main(["docs", "--output", str(tmp_path / "out"), "--docs", str(tmp_path / "docs")]) == 0
    assert "| REGrad* |" in (tmp_path / "docs/tables/ood.md").read_text()
    assert (tmp_path / "docs/figures/ood.svg").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["nonsense"], "invalid choice"),
        (["runtime", "--quick"], "runtime: no quick form; there is one of ood"),
        (["ood", "--images", "0"], "not a whole number of at least 1"),
    ],
)
def test_wrong_usage_is_one_line(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_table_of_an_empty_output_holds_the_papers_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ood", "--no-compute", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert reproduce.main(command) == 0
    assert "MNIST→Omniglot, MNIST→FMNIST: not measured here" in capsys.readouterr().out
    page = (tmp_path / "out/tables.html").read_text()
    assert "98.19 ± 0.02 / 97.95 ± 0.06" in page
