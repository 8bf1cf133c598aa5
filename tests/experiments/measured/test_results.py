"""The paper's numbers, against the averages that its own tables print, and the files that results are kept in."""

from __future__ import annotations

import statistics
from pathlib import Path

import pyarrow.parquet
import pytest

from regrad import UsageError
from regrad.experiments.material import methods
from regrad.experiments.measured import results
from regrad.experiments.measured.results import Result

# The columns "Avg" of Tables 1, 2 and 3, typed in from the article: what a slip in paper.csv would contradict.
AVERAGES = {
    "NEGrad": (54.20, 39.20, 0.002, 46.91, 2.560),
    "UNGrad": (63.68, 56.93, 0.652, 47.07, 2.564),
    "GradNorm": (25.12, 28.90, -1.564, 46.05, 2.572),
    "ExGrad": (91.86, 81.02, 0.897, 47.11, 2.559),
    "Perturb x": (90.56, 66.04, 0.869, 46.47, 2.566),
    "Perturb θ": (92.09, 66.74, 0.863, 47.47, 2.555),
    "MC-AA": (86.96, 56.60, 0.860, 46.74, 2.557),
    "Inserted Dropout": (92.39, 71.55, 0.874, 47.69, 2.557),
    "Entropy": (92.70, 68.83, 0.902, 46.03, 2.572),
    "ExGrad V Term": (92.85, 68.10, 0.899, 45.20, 2.582),
    "LA": (92.81, 80.65, 0.874, 44.06, 2.592),
    "REGrad*": (94.56, 85.91, 0.904, 48.83, 2.547),
}
FIRST = ("MNIST→Omniglot", "MNIST→FMNIST", "C10→SVHN", "C10→LSUN")
SECOND = ("SVHN→C10", "SVHN→C100", "C100→SVHN", "C100→LSUN")
SETS = ("MNIST", "C10", "SVHN", "C100")


def average(table: str, experiments: tuple[str, ...], row: str, *metrics: str) -> float:
    return statistics.mean(results.paper()[table, each, row, metric][0] for each in experiments for metric in metrics)


@pytest.mark.parametrize("row", methods.PAPER)
def test_the_papers_numbers_have_the_papers_averages(row: str) -> None:
    first, second, raulc, accuracy, nll = AVERAGES[row]
    assert average("ood", FIRST, row, "AUROC", "AUPR") == pytest.approx(first, abs=0.0051)
    assert average("calibration", SETS, row, "rAULC") == pytest.approx(raulc, abs=0.00051)
    assert average("active-learning", SETS, row, "ACC") == pytest.approx(accuracy, abs=0.0051)
    assert average("active-learning", SETS, row, "NLL") == pytest.approx(nll, abs=0.00051)
    assert average("ood", SECOND, row, "AUROC", "AUPR") == pytest.approx(second, abs=0.0051)


def test_the_last_row_of_the_ablation_is_the_method_of_table_1() -> None:
    paper = results.paper()
    for experiment in ("MNIST→FMNIST", "C10→SVHN", "SVHN→C10", "C100→SVHN"):
        for metric in ("AUROC", "AUPR"):
            whole = paper["ablation", experiment, "REGrad + layer-selective + perturb", metric]
            assert whole[0] == paper["ood", experiment, "REGrad*", metric][0]
            assert paper["ablation", experiment, "ExGrad", metric][0] == paper["ood", experiment, "ExGrad", metric][0]


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [Result("ood", "g", "a→b", "REGrad*", "AUROC", 98.1, 0.2, 97.0, 99.0, 3, "training", 500, 98.2, 0.02)]
    assert results.read_results(str(tmp_path), "ood") is None
    results.write_results(str(tmp_path), "ood", rows, command="regrad reproduce ood")
    assert results.read_results(str(tmp_path), "ood") == (rows, {"table": "ood", "command": "regrad reproduce ood"})
    assert pyarrow.parquet.read_table(tmp_path / "results/ood.parquet").to_pylist()[0]["mean"] == 98.1


def test_results_of_another_version_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/ood.json").write_text('{"results": [{"old": 1}]}')
    with pytest.raises(UsageError, match=r"ood\.json: not a result of this version .*run the table again"):
        results.read_results(str(tmp_path), "ood")


def test_numbers_of_a_table_that_has_one_day_are_of_that_day(tmp_path: Path) -> None:
    rows = [Result("ood", "g", "a→b", "Entropy", "AUROC", 98.1), Result("ood", "g", "a→b", "LA", "AUROC", None)]
    results.write_results(str(tmp_path), "ood", rows, machine={"device": "Abacus", "date": "2026-01-02"})
    held, _ = results.read_results(str(tmp_path), "ood") or ([], {})
    assert [(cell.device, cell.date) for cell in held] == [("Abacus", "2026-01-02"), ("", "")]


def cell(experiment: str, mean: float | None, row: str = "Entropy", images: int = 9, **more: str) -> Result:
    return Result("ood", "g", experiment, row, "AUROC", mean, images=images, **more)  # type: ignore[arg-type]


def test_what_can_be_measured_no_more_stays_and_what_is_the_same_keeps_its_day() -> None:
    old = {"device": "Abacus", "date": "2026-01-02"}
    new = {"device": "Loom", "date": "2026-03-04"}
    held = [
        cell("a→gone", 90.0, **old),
        cell("a→gone", 91.0, "LA", **old),
        cell("a→same", 80.0, **old),
        cell("a→other", 70.0, **old),
        cell("a→other", 71.0, "LA", **old),
        cell("a→dropped", 60.0, **old),
        cell("a→fewer", 50.0, **old),
    ]
    fresh = [
        cell("a→other", 70.5),
        cell("a→other", None, "LA"),  # of other images than the number that is held: no part of this experiment
        cell("a→new", 50.0),
        cell("a→gone", None),
        cell("a→gone", None, "LA"),
        cell("a→same", 80.0),
        cell("a→never", None),
        cell("a→fewer", 51.0, images=8),
    ]
    assert results.with_days(fresh, held, **new) == [
        cell("a→other", 70.5, **new),
        cell("a→other", None, "LA"),
        cell("a→new", 50.0, **new),
        cell("a→gone", 90.0, **old),
        cell("a→gone", 91.0, "LA", **old),
        cell("a→same", 80.0, **old),
        cell("a→never", None),
        cell("a→fewer", 50.0, **old),
    ]
