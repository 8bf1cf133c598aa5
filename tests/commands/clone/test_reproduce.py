"""The job that measures the paper's tables: their quick form on real images, going on, and wrong usage."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from regrad import table
from regrad.commands.clone import reproduce
from regrad.experiments.material import image_sets, methods, models
from regrad.experiments.measured import hyperparameters, in_use, labelling, results, runtime, separation, sketched
from regrad.experiments.measured import temperature as temperatures
from regrad.experiments.measured.scoring import Study
from regrad.experiments.reproduce import quick
from regrad.experiments.reproduce.tables import TABLES
from regrad.pipeline import worker
from regrad.select import POOL
from tests.data import data_path

UNFITTED = {("SVHN→C10", "LA"), ("SVHN", "LA")}  # no training images of the published network are at hand
BRIEFLY_LABELLED = ("REGrad*", labelling.RANDOM, "REGrad*, k-center")  # in the second table; the first has all rows
PERCENT = ("AUROC", "AUPR", "ACC")
Cells = dict[tuple[str, str, str], float | None]


def cells(out: Path, name: str) -> Cells:
    found = json.loads((out / f"results/{name}.json").read_text())["results"]
    return {(r["experiment"], r["row"], r["metric"]): r["mean"] for r in found}


def with_one_copy(row: hyperparameters.Variant) -> hyperparameters.Variant:
    """Of what is smoothed, one copy instead of ten."""
    return replace(row, flags=row.flags | {"samples": "1"}) if row.score == "regrad" else row


@pytest.mark.data
def test_the_quick_form_of_every_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "QUICK_IMAGES", 30)
    monkeypatch.setattr(image_sets, "SHARD_ROWS", 30)  # whole shards are scored
    # The same code on fewer of what is alike: each temperature and setting costs a scorer of its own.
    monkeypatch.setattr(temperatures, "TEMPERATURES", (1, 2))
    few = ("a layer is a stage", "σ = 0.02 of the pixel")
    opened = [row for row in hyperparameters.OPEN if row.name in few]
    monkeypatch.setattr(hyperparameters, "OPEN", [*map(with_one_copy, opened)])
    monkeypatch.setattr(hyperparameters, "ROWS", [*map(with_one_copy, hyperparameters.ROWS)])
    monkeypatch.setattr(separation, "RESAMPLES", 50)
    monkeypatch.setattr(worker, "MEASURED_IMAGES", 1)
    monkeypatch.setattr(runtime, "ROUNDS", 2)
    monkeypatch.setattr(runtime, "BATCH", 4)
    engines = {row: sketched.ENGINES[row] for row in (sketched.EXACT, "4 directions")}
    monkeypatch.setattr(sketched, "ENGINES", engines)
    monkeypatch.setitem(TABLES, "sketch", replace(TABLES["sketch"], rows=tuple(engines)))
    monkeypatch.setitem(quick.QUICK, "runtime", partial(runtime.runtime, networks=("mnist-cnn-quick",)))
    for table_name, (task,) in [*quick.QUICK_TASKS.items()]:  # every method trains a network for every cycle
        rows = None if table_name == "active-learning" else BRIEFLY_LABELLED
        small = replace(task, per_cycle=3, candidates=3 * POOL + 10, pool=300)  # still more than k-center looks at
        brief = (replace(small, steps=3, test_images=50, cycles=1, rows=rows),)
        monkeypatch.setitem(quick.QUICK_TASKS, table_name, brief)
        monkeypatch.setitem(quick.QUICK, table_name, partial(labelling.labelling, table=table_name, tasks=brief))
    transformer = models.MODELS["mnist-vit-quick"]
    assert transformer.recipe is not None
    briefly = replace(transformer, recipe=replace(transformer.recipe, epochs=1, limit=500))
    monkeypatch.setitem(models.MODELS, "mnist-vit-quick", briefly)
    data, out = data_path("weights/resnet20-cifar10.safetensors").parents[1], tmp_path / "out"
    command = ["all", "--quick", "--data", str(data), "--output", str(out)]
    assert reproduce.main(command) == 0
    shown = capfd.readouterr().out
    found = {name: cells(out, name) for name in TABLES}
    for name, of_table in found.items():
        assert of_table, name
        assert {row for _, row, _ in of_table} >= set(TABLES[name].rows), name
        assert all(math.isfinite(value or 0) for value in of_table.values()), name
        missing = {(experiment, row) for (experiment, row, _), value in of_table.items() if value is None}
        left_out = name == "active-learning-more"
        assert {place for place in missing if not left_out or place[1] in BRIEFLY_LABELLED} <= UNFITTED, name
        shares = {place: value for place, value in of_table.items() if place[2] in PERCENT and "−" not in place[1]}
        percents = [value for (experiment, _, _), value in shares.items() if "behind" not in experiment]
        assert all(0 <= float(value or 0) <= 100 for value in percents), name
        assert all(row in shown for row in TABLES[name].rows)

    check_table_1(found["ood"])
    # Tables that are made of the same scores say the same, and so does the same score under another flag.
    for experiment in ("MNIST→FMNIST", "C10→TinyImageNet"):
        for row, same in (("ExGrad", "ExGrad"), ("REGrad + layer-selective + perturb", "REGrad*")):
            assert found["ablation"][experiment, row, "AUROC"] == found["ood"][experiment, same, "AUROC"]
    plain = found["ablation"]["MNIST→FMNIST", "REGrad", "AUROC"]
    assert found["hyperparameters"]["MNIST→FMNIST", "λ → 0", "AUROC"] == pytest.approx(plain, abs=0.2)

    for scored in (out / "scores").glob("*/seed-0/quick"):
        rows = table.read(str(scored), ["negrad", "ungrad"])
        assert (
            max(abs(n) / u for n, u in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)) < 1e-3
        )

    assert reproduce.main(["ood", *command[1:]]) == 0  # again: everything is there
    assert "scoring" not in capfd.readouterr().err
    assert reproduce.main(["docs", "--output", str(out), "--docs", str(tmp_path / "docs")]) == 0
    assert {page.stem for page in (tmp_path / "docs/tables").iterdir()} == set(TABLES)
    assert "| REGrad* |" in (tmp_path / "docs/tables/ood.md").read_text()
    plots = {plot.stem for plot in (tmp_path / "docs/figures").iterdir()}
    assert plots == {"ood", "active-learning", "active-learning-more"}


@pytest.mark.parametrize("name", ["calibration", "scores"])
def test_what_cannot_be_measured_again_stays_with_its_day_and_counts_in_means(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = TABLES[name].compute(Study(str(tmp_path), str(tmp_path / "out"), compute=False))
    place = (column[0].group, column[0].experiment)
    held = [replace(cell, mean=80.0, runs=1, images=9) for cell in column if (cell.group, cell.experiment) == place]
    results.write_results(str(tmp_path / "out"), name, held, machine={"device": "Abacus", "date": "2026-01-02"})
    command = [name, "--no-compute", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    for _ in range(2):
        assert reproduce.main(command) == 0
    told, _ = results.read_results(str(tmp_path / "out"), name) or ([], {})
    assert [cell for cell in told if (cell.group, cell.experiment) == place] == [
        replace(cell, device="Abacus", date="2026-01-02") for cell in held
    ]
    assert len(told) >= len(column)
    means = [cell.mean for cell in told if cell.group == in_use.OF_ALL and cell.mean is not None]
    assert means == ([] if name == "calibration" else [80.0] * len(in_use.ROWS) + [0.0] * len(in_use.ROWS))
    assert reproduce.main(["docs", "--output", str(tmp_path / "out"), "--docs", str(tmp_path / "docs")]) == 0
    assert "9 images of each set, on Abacus, 2026-01-02" in (tmp_path / f"docs/tables/{name}.md").read_text()


def check_table_1(found: Cells) -> None:
    pairs = [experiment.name for experiment in (*quick.SVHN, *quick.FAR, *quick.NEAR)]
    value = {(name, row): float(found[name, row, "AUROC"] or "nan") for name in pairs for row in methods.ALL}
    near, *far = reversed(pairs)
    assert value[near, "REGrad*"] > value[near, "ExGrad"] > 70
    assert all(value[each, row] > 80 for each in far for row in ("REGrad*", "ExGrad", "Entropy"))
    # Read as the paper's tables read it, GradNorm is no better than its mirror image: the sign is a choice.
    for name in pairs:
        assert value[name, "GradNorm"] + value[name, "GradNorm, negated"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["nonsense"], "invalid choice"),
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
