"""The classification networks of torchvision and timm: their families, their sizes, and how one is made."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

LIBRARIES = ("torchvision", "timm")
CLASSES = 5


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


def size(item: Listed) -> int:
    """How many parameters the network has, from one without memory if it can be made without."""
    try:
        with torch.device("meta"):
            network = item.build()
    except (NotImplementedError, RuntimeError):  # it computes with its weights while it is made
        network = item.build()
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
