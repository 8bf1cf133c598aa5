"""The classification networks of torchvision and timm: their families, their sizes, and how one is made."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LIBRARIES = ("torchvision", "timm")
CLASSES = 5
LARGE = 200_000_000  # parameters; what has more is tried with few of its blocks, if it can be had so
_FEW_BLOCKS: tuple[dict[str, Any], ...] = (
    {"depth": 2},
    {"depth": 2, "num_kv_heads": 8},  # which others name for each block
    *({name: (1, 1, 1, 1)} for name in ("depths", "stages", "layers")),
)


@dataclass(frozen=True)
class Listed:
    """One network by name; ``family`` is the module of its library that defines it."""

    library: str
    family: str
    name: str

    def build(self, **settings: Any) -> nn.Module:
        """With random weights and :data:`CLASSES` classes, in evaluation mode."""
        if self.library == "timm":
            import timm

            network = timm.create_model(self.name, pretrained=False, num_classes=CLASSES, **settings)
        else:
            import torchvision.models

            network = torchvision.models.get_model(self.name, weights=None, num_classes=CLASSES, **settings)
        made: nn.Module = network.eval()
        return made


def listed(libraries: tuple[str, ...] = LIBRARIES) -> list[Listed]:
    """All of them, by library, family and name."""
    return sorted(
        (item for library in libraries for item in (_timm() if library == "timm" else _torchvision())),
        key=lambda item: (item.library, item.family, item.name),
    )


def _timm() -> list[Listed]:
    import timm

    return [
        Listed("timm", timm.model_entrypoint(name).__module__.rpartition(".")[2], name) for name in timm.list_models()
    ]


def _torchvision() -> list[Listed]:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    builders = {name: torchvision.models.get_model_builder(name) for name in names}
    return [Listed("torchvision", builder.__module__.rpartition(".")[2], name) for name, builder in builders.items()]


def few_blocks(item: Listed) -> dict[str, Any]:
    """Settings that leave a :data:`LARGE` timm network few blocks, each as wide as it is; none for another."""
    if item.library != "timm" or (whole := size(item)) <= LARGE:
        return {}
    return next((settings for settings in _FEW_BLOCKS if _size_with(item, settings) < whole / 2), {})


def _size_with(item: Listed, settings: dict[str, Any]) -> float:
    try:
        return size(item, **settings)
    except Exception:  # it has no such setting, and its builder raises whatever it likes
        return float("inf")


def size(item: Listed, **settings: Any) -> int:
    """How many parameters the network has, from one without memory if it can be made without."""
    try:
        with torch.device("meta"):
            network = item.build(**settings)
    except (NotImplementedError, RuntimeError):  # it computes with its weights while it is made
        network = item.build(**settings)
    return sum(parameter.numel() for parameter in network.parameters())


def smallest_of_each_family(items: list[Listed]) -> list[Listed]:
    """The network with the fewest parameters of every family, in the order of ``items``."""
    smallest: dict[tuple[str, str], tuple[int, Listed]] = {}
    for item in items:
        parameters = size(item)
        if parameters < smallest.get((item.library, item.family), (parameters + 1, item))[0]:
            smallest[item.library, item.family] = (parameters, item)
    return [item for _, item in smallest.values()]


def version(library: str) -> str:
    """Of the installed library."""
    return str(importlib.import_module(library).__version__)
