"""Which score each rule chooses, by hand, and what is measured of the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unittest import mock

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from regrad.experiments.material import methods
from regrad.experiments.material.experiments import against
from regrad.experiments.material.proxies import KINDS
from regrad.experiments.measured import in_use, probes
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Columns, Setting, Study

RNG = np.random.default_rng(4)
PAIRS = (*against("svhn-cnn", "svhn", "cifar10"), *against("resnet20-cifar10", "cifar10", "svhn", "fmnist"))
SCORES = tuple(methods.IN_USE.values())
IMAGES = 60


def columns(**means: float) -> Columns:
    """Every score around 0, but for ``means``; every fourth prediction is wrong."""
    scores = {name: RNG.normal(means.get(name, 0.0), 1, IMAGES) for name in SCORES}
    return scores | {"prediction": np.zeros(IMAGES), "label": (np.arange(IMAGES) % 4 == 0).astype(float)}


def sets_of(known: str) -> dict[str, Columns]:
    """Of the known set errors are told by entropy, patches by gen, and other proxies by energy."""
    own = columns()
    own["entropy"] = own["entropy"] + 4 * own["label"]
    unlike = {kind: columns(energy=4.0) for kind in KINDS} | {"patches": columns(gen=4.0)}
    return {known: own, **{f"{known}-{kind}": each for kind, each in unlike.items()}}


SETS = {pair.model: sets_of(pair.known) for pair in PAIRS}
#: The score that tells the unknown images of each pair best.
LEADERS = ("scale", "fdbd", "fdbd")
UNKNOWN = {
    (pair.model, pair.unknown): columns(**{leader: 6.0}, gen=1.0 + 2 * number)
    for number, (pair, leader) in enumerate(zip(PAIRS, LEADERS, strict=True))
}


def scored(_: Study, model: str, seed: int, sets: Sequence[str], setting: Setting) -> dict[str, Columns]:
    there = SETS[model] | {unknown: each for (owner, unknown), each in UNKNOWN.items() if owner == model}
    return {name: there[name] for name in sets if name in there}


@pytest.fixture(scope="module")
def cells() -> dict[tuple[str, str, str, str], Result]:
    with mock.patch.object(probes, "scored", scored):
        measured = probes.probes(Study("data", "out", IMAGES, 1), PAIRS)
    return {(cell.group, cell.experiment, cell.row, cell.metric): cell for cell in measured}


def truth(pair: int, score: str) -> float:
    known, unknown = SETS[PAIRS[pair].model][PAIRS[pair].known], UNKNOWN[PAIRS[pair].model, PAIRS[pair].unknown]
    return 100 * float(roc_auc_score(np.repeat([0, 1], IMAGES), np.r_[known[score], unknown[score]]))


@pytest.mark.parametrize(
    ("rule", "score"),
    [
        ("Proxies: patches", "gen"),
        ("Proxies: pixels", "energy"),
        ("Mean of the proxies", "energy"),
        ("Errors", "entropy"),
    ],
)
@pytest.mark.parametrize("pair", range(3))
def test_what_a_rule_chooses_is_judged_by_what_it_has_not_seen(
    cells: dict[tuple[str, str, str, str], Result], rule: str, score: str, pair: int
) -> None:
    place = (PAIRS[pair].group, PAIRS[pair].name, rule)
    chosen, behind = cells[*place, probes.METRIC], cells[*place, probes.BEHIND]
    assert chosen.mean == pytest.approx(truth(pair, score))
    assert behind.mean == pytest.approx(max(truth(pair, each) for each in SCORES) - truth(pair, score))
    assert chosen.images == IMAGES
    # Other images would have led to the same choice: the AUROCs that decide are far apart.
    assert (chosen.low, chosen.high) == (pytest.approx(chosen.mean), pytest.approx(chosen.mean))


def test_the_best_elsewhere_is_that_of_other_networks(cells: dict[tuple[str, str, str, str], Result]) -> None:
    for place, score in enumerate(("fdbd", "scale", "scale")):
        cell = cells[PAIRS[place].group, PAIRS[place].name, probes.ELSEWHERE, probes.METRIC]
        assert cell.mean == pytest.approx(truth(place, score))


def test_networks_without_proxies_count_for_what_is_best_elsewhere_alone() -> None:
    with mock.patch.object(probes, "scored", scored):
        measured = probes.probes(Study("data", "out", IMAGES, 1), PAIRS[:1], beside=PAIRS[1:])
    assert {cell.group for cell in measured} == {PAIRS[0].group, in_use.OF_ALL}
    (cell, *_) = (each for each in measured if (each.row, each.metric) == (probes.ELSEWHERE, probes.METRIC))
    assert cell.mean == pytest.approx(truth(0, "fdbd"))


def test_proxies_and_errors_count_alike(cells: dict[tuple[str, str, str, str], Result]) -> None:
    own = SETS["svhn-cnn"]
    label = own["svhn"]["label"]

    def value(score: str) -> float:
        kinds = [
            roc_auc_score(np.repeat([0, 1], IMAGES), np.r_[own["svhn"][score], own[f"svhn-{kind}"][score]])
            for kind in KINDS
        ]
        return float(np.mean([np.mean(kinds), roc_auc_score(label, own["svhn"][score])]))

    best = max(SCORES, key=value)
    cell = cells[PAIRS[0].group, PAIRS[0].name, "Proxies and errors", probes.METRIC]
    assert cell.mean == pytest.approx(truth(0, best))


@pytest.mark.parametrize(("title", "pairs"), [("all", range(3)), ("others", range(1))])
def test_shares_and_means_over_pairs(
    cells: dict[tuple[str, str, str, str], Result], title: str, pairs: Sequence[int]
) -> None:
    best = [max(truth(pair, each) for each in SCORES) for pair in range(3)]
    for row, score in (("Proxies: patches", "gen"), ("Always fDBD", "fdbd"), ("Always GEN", "gen")):
        lost = [best[pair] - truth(pair, score) for pair in pairs]
        shown = [
            cells[in_use.OF_ALL, f"{column}, {title}", row, probes.METRIC].mean
            for column in ("pairs within one point, %", "mean behind the best", "most behind the best")
        ]
        near = 100 * sum(each <= 1 for each in lost) / len(lost)
        assert shown == pytest.approx([near, np.mean(lost), max(lost)])


def test_a_network_without_errors_has_no_choice_by_errors() -> None:
    own = SETS["svhn-cnn"]
    right = own["svhn"] | {"label": own["svhn"]["prediction"]}
    run = probes._evidence([own["svhn"], *(own[f"svhn-{kind}"] for kind in KINDS)], right, {})
    chosen = probes.chosen_places(run, *(np.ones((2, IMAGES)) for _ in range(2 + len(KINDS))))
    assert all(math.isnan(place) for place in chosen["Errors"])
    assert chosen["Proxies: patches"].tolist() == [SCORES.index("gen")] * 2
