"""One network tried: fifteen families with every kind of layer, each equal to the definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regrad.experiments.sweep import trial as trials
from regrad.experiments.sweep.catalogue import CLASSES, Listed
from regrad.experiments.sweep.table import EQUAL
from regrad.experiments.sweep.trial import shaken, trial

#: The quick form of the sweep: small networks whose layers, norms, heads and orders of axes differ.
FAMILIES = {
    ("timm", "convnext"): "test_convnext",
    ("timm", "convnextv2"): "convnextv2_atto",
    ("timm", "edgenext"): "edgenext_xx_small",
    ("timm", "mobilenetv3"): "mobilenetv3_small_050",
    ("timm", "resnet"): "test_resnet",
    ("timm", "nfnet"): "test_nfnet",
    ("timm", "byobnet"): "test_byobnet",
    ("timm", "efficientnet"): "test_efficientnet",
    ("timm", "vision_transformer"): "test_vit",
    ("timm", "regnet"): "regnetx_002",
    ("timm", "ghostnet"): "ghostnet_050",
    ("timm", "mobilevit"): "mobilevit_xxs",
    ("timm", "efficientvit_msra"): "efficientvit_m0",
    ("timm", "starnet"): "starnet_s050",
    ("torchvision", "squeezenet"): "squeezenet1_1",
    ("torchvision", "shufflenetv2"): "shufflenet_v2_x0_5",
}
#: Which of them may have fewer blocks, and how: each kind of layer is in one.
FEWER = {
    **{name: {"depths": (1, 1, 1, 1)} for name in ("test_convnext", "convnextv2_atto", "edgenext_xx_small")},
    "efficientvit_m0": {"depth": (1, 1, 1)},
    "test_vit": {"depth": 2},
}


@pytest.mark.parametrize("family", FAMILIES, ids="-".join)
def test_a_family_is_scored_as_the_definition_says(family: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "few_blocks", lambda item: FEWER.get(item.name, {}))
    about, *results = trial(Listed(*family, FAMILIES[family]), ("reference", "exact"))
    assert about["parameters"] > 0
    assert [result["outcome"] for result in results] == ["scored", "scored"], results
    assert results[1]["error"] <= EQUAL


def test_what_takes_no_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listed, "build", lambda self, **_: nn.Linear(3, CLASSES))
    (result,) = trial(Listed("timm", "any", "any"))
    assert result["outcome"] == "refused"
    assert "takes no square image of 32 to 512 pixels" in result["reason"]


def test_a_failure_of_an_engine_costs_that_engine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, engine: str, **settings: object) -> object:
        if engine == "exact":
            raise RuntimeError("a fault of its own")
        return scorer(*args, engine=engine, **settings)  # type: ignore[arg-type]

    scorer = trials.Scorer
    monkeypatch.setattr(trials, "Scorer", broken)
    _, first, second, third = trial(Listed("timm", "resnet", "test_resnet"), ("reference", "exact", "sketch"))
    assert (first["outcome"], second["outcome"], third["outcome"]) == ("scored", "failed", "scored")
    assert "a fault of its own" in second["reason"]
    assert third["error"] > 0


def test_constants_are_drawn_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(network[3].weight)
    before = network[0].weight.detach().clone()
    shaken(network)
    assert torch.equal(network[0].weight, before)
    for values in (network[1].weight, network[1].running_mean, network[1].running_var, network[3].weight):
        assert values.unique().numel() == values.numel()
    assert float(network[1].running_var.min()) > 0
