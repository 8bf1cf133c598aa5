"""The networks that a sweep tries."""

from __future__ import annotations

import pytest
import torch

from regrad.experiments.sweep.catalogue import (
    CLASSES,
    Listed,
    few_blocks,
    listed,
    size,
    smallest_of_each_family,
    version,
)


def test_every_classification_network_is_listed_once() -> None:
    import timm
    import torchvision.models

    names = {library: [item.name for item in listed((library,))] for library in ("torchvision", "timm")}
    assert sorted(names["torchvision"]) == sorted(torchvision.models.list_models(module=torchvision.models))
    assert sorted(names["timm"]) == sorted(timm.list_models())
    assert len(listed()) == sum(map(len, names.values()))


def test_the_smallest_of_a_family() -> None:
    items = [Listed("torchvision", "resnet", name) for name in ("resnet50", "resnet18", "resnet34")]
    items += [Listed("torchvision", "squeezenet", name) for name in ("squeezenet1_0", "squeezenet1_1")]
    assert [item.name for item in smallest_of_each_family(items)] == ["resnet18", "squeezenet1_1"]
    network = items[1].build()
    assert size(items[1]) == sum(value.numel() for value in network.parameters())
    with torch.no_grad():
        assert network(torch.rand(1, 3, 32, 32)).shape == (1, CLASSES)
    assert not network.training


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vit_giant_patch14_224", {"depth": 2}),
        ("convnext_xxlarge", {"depths": (1, 1, 1, 1)}),
        ("mixer_l32_224", {}),  # which has no such setting
        ("vit_base_patch16_224", {}),
    ],
)
def test_a_large_network_is_cut_short(name: str, settings: dict[str, object]) -> None:
    item = Listed("timm", "any", name)
    assert few_blocks(item) == settings
    if settings:
        assert size(item, **settings) < size(item) / 2
        widest = [max(value.shape[-1] for value in _parameters(item, **given)) for given in ({}, settings)]
        assert widest[0] == widest[1]


def _parameters(item: Listed, **settings: object) -> list[torch.nn.Parameter]:
    with torch.device("meta"):
        return list(item.build(**settings).parameters())


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_the_version_is_told(library: str) -> None:
    assert version(library)[0].isdigit()
