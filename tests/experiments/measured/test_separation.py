"""Means, intervals and differences against scikit-learn and a plain bootstrap; and the rows of every table."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from regrad.experiments.material import experiments, methods
from regrad.experiments.measured import separation
from regrad.experiments.measured.scoring import Columns, Setting, Study
from regrad.experiments.measured.separation import Runs

IMAGES = 120
EXPERIMENT = experiments.SEPARATION[0]
PUBLISHED = next(each for each in experiments.SEPARATION if each.model == "resnet20-cifar10")


def columns(seed: int, shift: float, names: tuple[str, ...] = tuple(methods.ALL.values())) -> Columns:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(shift, 1, IMAGES).round(2) for name in (*names, "prediction")}


@pytest.fixture(scope="module")
def runs() -> Runs:
    """Two runs of everything, and a third of what draws random numbers."""
    known = [columns(0, 0), columns(1, 0), columns(2, 0, methods.DRAWN)]
    unknown = [columns(3, 1), columns(4, 1.2), columns(5, 1, methods.DRAWN)]
    return Runs(known, unknown)


def plain(runs: Runs, score: str, metric: object = roc_auc_score) -> list[float]:
    truth = np.r_[np.zeros(IMAGES), np.ones(IMAGES)]
    return [100 * metric(truth, np.r_[pair]) for pair in runs.of(score)]  # type: ignore[operator]


def test_numbers_are_scikit_learns_and_the_papers_stand_beside(runs: Runs) -> None:
    found = {(r.row, r.metric): r for r in separation.results("ood", EXPERIMENT, methods.ALL, runs)}
    assert len(found) == 2 * len(methods.ALL)
    for row, score in methods.ALL.items():
        for metric, function in (("AUROC", roc_auc_score), ("AUPR", average_precision_score)):
            values, result = plain(runs, score, function), found[row, metric]
            assert result.mean == pytest.approx(np.mean(values), abs=1e-9)
            assert result.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
            assert result.low is not None
            assert result.high is not None
            assert result.low < result.mean < result.high
    assert found["REGrad*", "AUROC"].runs == 3
    assert found["Entropy", "AUROC"].runs == 2
    assert (found["REGrad*", "AUROC"].paper, found["REGrad*", "AUROC"].paper_deviation) == (98.19, 0.02)
    assert found["Energy", "AUROC"].paper is None


def test_intervals_are_those_of_a_plain_bootstrap(runs: Runs) -> None:
    rng, values = np.random.default_rng(1), []
    truth = np.r_[np.zeros(IMAGES), np.ones(IMAGES)]
    for _ in range(600):
        known, unknown = rng.integers(IMAGES, size=IMAGES), rng.integers(IMAGES, size=IMAGES)
        each = [roc_auc_score(truth, np.r_[k[known], u[unknown]]) for k, u in runs.of("entropy")]
        values.append(100 * np.mean(each))
    low, high = separation.interval_offsets(runs, {"Entropy": "entropy"})["Entropy", "AUROC"]
    wanted = np.quantile(values, [0.025, 0.975]) - np.mean(plain(runs, "entropy"))
    assert (low, high) == pytest.approx(tuple(wanted), abs=0.8)  # of about 4.5 points either way


def test_a_difference_is_taken_on_the_same_images(runs: Runs) -> None:
    pairs = Runs(
        [k | {"entropy": k["regrad"] + 1} for k in runs.known], [u | {"entropy": u["regrad"] + 1} for u in runs.unknown]
    )
    found = {r.row: r for r in separation.rival_differences("ood", PUBLISHED, pairs)}
    same = found["REGrad* − Entropy"]
    assert (same.mean, same.low, same.high) == (0, 0, 0)  # the same order image by image: no spread at all
    assert found["REGrad* − ExGrad"].low != found["REGrad* − ExGrad"].high
    # A network that is trained anew for each seed is another one in the third run, where ExGrad was not scored.
    assert "REGrad* − ExGrad" not in {r.row for r in separation.rival_differences("ood", EXPERIMENT, pairs)}


def test_what_was_not_measured_has_the_papers_number_alone() -> None:
    empty = Runs([], [])
    svhn = next(each for each in experiments.SEPARATION if each.name == "C10→SVHN")
    found = {(r.row, r.metric): r for r in separation.results("ood", svhn, methods.ALL, empty)}
    assert found["REGrad*", "AUROC"].mean is None
    assert found["REGrad*", "AUROC"].paper == 92.32
    assert not list(separation.rival_differences("ood", svhn, empty))


def test_a_run_that_was_stopped_counts_as_far_as_both_sets_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("prediction", *separation.EVERY.scores)
    bare = tuple(methods.BARE.values())

    def scored(study: Study, model: str, seed: int, sets: list[str], setting: Setting) -> dict[str, Columns]:
        if setting is separation.BARE:
            return {sets[0]: columns(7, 0, bare)}  # stopped before the unknown set
        return {sets[0]: columns(0, 0, names), sets[1]: {k: v[:90] for k, v in columns(3, 1, names).items()}}

    monkeypatch.setattr(separation, "scored", scored)
    runs = separation.gather(Study("data", "out", IMAGES, seeds=1), PUBLISHED)
    assert runs.images == 90
    assert {"regrad", "regrad_bias"} & runs.known[0].keys() == {"regrad"}
    found = {r.row: r.mean for r in separation.results("ood", PUBLISHED, methods.ALL, runs)}
    assert found["REGrad*"] is not None
    assert found["REGrad, last bias alone"] is None
    rows = {r.row for r in separation.rival_differences("ood", PUBLISHED, runs)}
    assert rows == set(methods.RIVALS) - {"REGrad* − REGrad, last bias alone"}


def test_every_experiment_of_the_paper_is_declared() -> None:
    names = {"MNIST→Omniglot", "MNIST→FMNIST", "C10→SVHN", "C10→LSUN"}
    names |= {"SVHN→C10", "SVHN→C100", "C100→SVHN", "C100→LSUN"}
    assert {each.name for each in experiments.SEPARATION if each.paper} == names
