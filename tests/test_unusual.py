"""Networks as people bring them: scored by every engine as the definition says, or refused in a line."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from regrad import Classifier, Scorer, UsageError
from tests import unusual
from tests.unusual import OTHERS, SCORED, SIZE

pytestmark = pytest.mark.filterwarnings("ignore")

SCORES = ("regrad", "exgrad", "gradnorm", "entropy")
IDS = ["a", "b", "c"]
IMAGES = torch.rand(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
DIRECTIONS = 300
#: Their functions have no forward derivative.
NOT_SKETCHED = {
    *("weight norm", "weight norm of the head", "older weight norm", "older weight norm of the head"),
    *("gradient inside", "backward alone", "through numpy", "half inside", "through numpy behind a layer"),
}


def _scorer(network: nn.Module, engine: str, scores: tuple[str, ...] = SCORES) -> Scorer:
    settings: dict[str, Any] = {"samples": 2, "tolerance": 0, "directions": DIRECTIONS, "engine": engine}
    return Scorer(Classifier(network, SIZE, channels=1, mean=0.3, std=0.4), scores, **settings)


@pytest.mark.parametrize("name", SCORED)
def test_it_is_scored_as_the_definition_says(name: str) -> None:
    wanted = _scorer(unusual.build(name), "reference")(IMAGES, IDS)
    for engine, rtol in (("exact", 1e-4), ("sketch", 5 * math.sqrt(0.5 / DIRECTIONS))):
        if engine == "sketch" and name in NOT_SKETCHED:
            with pytest.raises(UsageError, match=r"engine sketch: \w+ has no forward-mode derivative .*; use exact"):
                _scorer(unusual.build(name), engine)
            continue
        scorer = _scorer(unusual.build(name), engine)
        columns = scorer(IMAGES, IDS)
        for score in SCORES:
            torch.testing.assert_close(columns[score], wanted[score], rtol=rtol, atol=0, msg=f"{engine} {score}")


#: Scored in types that are coarser than float32: how far that may lead from the definition in float64.
COARSE = {
    "half": 2e-3,
    "bfloat16": 2e-2,
    "mixed with half": 2e-3,
    "half inside": 2e-3,
    "autocast": 1e-2,
    "autocast inside": 1e-2,
}


@pytest.mark.parametrize("name", COARSE)
def test_a_coarse_network_is_scored_as_finely_as_it_predicts(name: str) -> None:
    wanted = _scorer(unusual.build(name), "reference")(IMAGES, IDS)
    for engine in ("exact", "sketch"):
        if engine == "sketch" and name in NOT_SKETCHED:
            continue
        columns = _scorer(unusual.build(name), engine)(IMAGES, IDS)
        rtol = COARSE[name] + (5 * math.sqrt(0.5 / DIRECTIONS) if engine == "sketch" else 0)
        torch.testing.assert_close(columns["regrad"], wanted["regrad"], rtol=rtol, atol=0)


SCORED_TOO = ("exported for any batch", "bound to other modules", "bound method", "a batch of one loses its dimension")


@pytest.mark.parametrize("name", SCORED_TOO)
def test_these_are_scored_too(name: str) -> None:
    wanted = _scorer(unusual.build(name), "reference")(IMAGES, IDS)
    columns = _scorer(unusual.build(name), "exact")(IMAGES, IDS)
    torch.testing.assert_close(columns["regrad"], wanted["regrad"], rtol=1e-4, atol=0)


#: What there is no gradient of, and whether scores of predictions alone can be had.
REFUSED = {
    "scripted": True,
    "traced": True,
    "scripted part": True,
    "exported": False,
    "quantised head": True,
    "no_grad before the head": True,
    "no_grad": True,
    "inference mode before the head": True,
    "inference mode": True,
    "detached": True,
    "reentrant checkpoint": True,
    "dropout always on": False,
    "noise always on": False,
    "no parameters": True,
    "lazy": False,
    "meta": False,
    "complex": True,
    "unregistered layers": False,
    "batches of two": False,
    "batch statistics": False,
    "a generator inside": False,
}


@pytest.mark.parametrize("engine", ["auto", "exact", "sketch", "reference"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_scores_is_refused_in_a_line(name: str, engine: str) -> None:
    with pytest.raises(UsageError) as caught:
        _scorer(unusual.build(name), engine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, predicted in REFUSED.items() if predicted])
def test_predictions_alone_need_no_gradient(name: str) -> None:
    network = unusual.build(name)
    scorer = _scorer(network, "auto", ("entropy", "energy"))
    columns = scorer(IMAGES, IDS)
    with torch.no_grad():
        logits = network.eval()(scorer.classifier.normalize(IMAGES)).double()
    torch.testing.assert_close(columns["energy"], -logits.logsumexp(1), rtol=1e-5, atol=0)


def test_every_network_here_is_in_one_of_the_tests() -> None:
    tried = {*COARSE, *SCORED_TOO, *REFUSED, "through numpy behind a layer", "mixed with half"}
    assert tried == set(OTHERS)


class Forgetful(nn.Sequential):
    """Copied without what it holds."""

    def __deepcopy__(self, memo: Any) -> nn.Module:
        return Forgetful(*unusual.plain()[:5], nn.Linear(128, unusual.CLASSES))


@pytest.mark.parametrize("scores", [("regrad",), ("entropy",)])
def test_a_copy_that_is_another_function_is_refused(scores: tuple[str, ...]) -> None:
    network = Forgetful(*unusual.plain())
    with pytest.raises(UsageError, match=r"Forgetful: a copy of it \(copy.deepcopy\) gives other logits"):
        _scorer(network, "exact", scores)
