"""Active learning of Table 3 in small, on scikit-learn's digits in place of MNIST."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from regrad import UsageError
from regrad.experiments.material.tasks import TASKS, LabellingTask
from regrad.experiments.measured import labelling
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Study
from regrad.select.features import features
from tests.experiments.digits import write_packs

MNIST, SVHN = (replace(TASKS["active-learning"][place], candidates=60, steps=20, cycles=2) for place in (0, -1))
ROWS = ("REGrad*", "Perturb x", "LA", "Entropy", labelling.RANDOM, "Entropy, k-center")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A pool of 300 digits, two cycles, little training, and five of the methods."""
    write_packs(tmp_path / "data", mnist_train=slice(0, 300), mnist_test=slice(300, 500))
    monkeypatch.setattr(labelling, "POOL", 2)
    monkeypatch.setattr(labelling, "ROWS", {row: labelling.ROWS[row] for row in ROWS})
    return Study(str(tmp_path / "data"), str(tmp_path / "out"), seeds=1)


def measured(study: Study, *tasks: LabellingTask) -> dict[tuple[str, str, str], Result]:
    return {(r.experiment, r.row, r.metric): r for r in labelling.labelling(study, "active-learning", tasks)}


def test_every_method_begins_alike_and_a_finished_one_is_not_run_again(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measured(study, MNIST, SVHN)
    curves = {row: labelling.curves(study, MNIST, row)[0] for row in ROWS}
    for row, cycles in curves.items():
        assert [cycle["labelled"] for cycle in cycles] == [20, 40, 60]
        assert cycles[0]["metrics"] == curves["Entropy"][0]["metrics"], row  # the same labels and weights at first
        accuracy = 50 * sum(cycle["metrics"]["accuracy"] for cycle in cycles[1:])
        assert found["MNIST", row, "ACC"].mean == pytest.approx(accuracy)
        assert accuracy > 30  # chance is 10
        points = [(cycle["labelled"], pytest.approx(100 * cycle["metrics"]["accuracy"])) for cycle in cycles]
        assert [*zip(*labelling.curve(found.values(), "MNIST", row), strict=True)] == points
    assert len({str(cycles[1]["metrics"]) for cycles in curves.values()}) == len(ROWS)  # then each goes its own way
    assert found["MNIST", "REGrad*", "ACC"].paper == 75.31
    assert found["SVHN", "REGrad*", "ACC"].mean is None
    assert labelling.curve(found.values(), "SVHN", "REGrad*") == ([], [])
    assert found["SVHN", "REGrad*", "ACC"].paper == 67.37

    monkeypatch.setattr(labelling, "Laboratory", None)  # whoever ran something would need it
    assert measured(study, MNIST, SVHN) == found

    with pytest.raises(UsageError, match=r"active-learning/mnist: its runs had steps 20, now 40; delete it, or"):
        measured(study, replace(MNIST, steps=40))


def test_a_task_may_run_some_of_the_methods(study: Study) -> None:
    found = measured(study, replace(MNIST, rows=("Entropy",)))
    assert [row for _, row, metric in found if metric == "ACC" and found["MNIST", row, metric].runs] == ["Entropy"]
    named = {row for tasks in TASKS.values() for task in tasks for row in task.rows or ()}
    assert named == {labelling.RANDOM, "Entropy"} <= set(labelling.ROWS)


def test_diversity_takes_likely_ones_that_are_far_apart(study: Study) -> None:
    lab = labelling.Laboratory(MNIST, study.packs)
    rows = np.arange(100)
    model = lab.train(0, rows[:20])
    scores = lab.score("entropy", 0, model, rows)
    chosen = lab.diverse("entropy", 0, model, rows).bool()
    likely = scores >= scores.sort(descending=True).values[39]  # POOL times the 20
    assert (int(chosen.sum()), int(likely.sum())) == (20, 40)
    assert likely[chosen].all()
    assert chosen[scores.argmax()]
    assert not torch.equal(chosen, scores >= scores.sort(descending=True).values[19])
    near = torch.cdist(*[features(model[0], lab.images[:100])[chosen]] * 2).fill_diagonal_(torch.inf).min()
    plain = torch.cdist(*[features(model[0], lab.images[:100])[scores.topk(20).indices]] * 2).fill_diagonal_(torch.inf)
    assert near > plain.min()
