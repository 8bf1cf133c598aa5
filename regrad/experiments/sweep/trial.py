"""One network tried: the smallest input it takes, every engine, and how far each is from the definition."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from regrad import Classifier, Scorer
from regrad.errors import UsageError
from regrad.experiments.sweep.catalogue import CLASSES, Listed, few_blocks
from regrad.network.head import find_head
from regrad.storage.redact import reason

SIDES = (32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
SCORE = "regrad"
#: What is tried, in this order: the settings of a run, then every engine over all layers.
ENGINES: dict[str, dict[str, Any]] = {
    "auto": {},
    "reference": {},
    "exact": {"tolerance": 0.0},
    "sketch": {"tolerance": 0.0, "directions": 4},
}


def trial(item: Listed, engines: tuple[str, ...] = tuple(ENGINES)) -> Iterator[dict[str, Any]]:
    """What is found out about a network, piece by piece, so that a time limit costs the rest alone.

    ``side`` and ``parameters`` come first, and ``blocks``, the settings that leave a large network few of its blocks;
    then for each engine ``outcome`` (scored, refused or failed), ``reason``, ``seconds``, and for those without noise
    of their own ``error``, the largest relative difference from ``reference``.
    """
    blocks = few_blocks(item)
    network, side = _fitting(item, blocks)
    if network is None and blocks:  # so few do not fit together
        blocks = {}
        network, side = _fitting(item, blocks)
    if network is None:
        yield {"outcome": "refused", "reason": f"takes no square image of {SIDES[0]} to {SIDES[-1]} pixels"}
        return
    channels = _channels(network)
    parameters = sum(value.numel() for value in network.parameters())
    yield {"side": side, "parameters": parameters} | ({"blocks": blocks} if blocks else {})
    images = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    scores: dict[str, Tensor] = {}
    for engine in engines:
        started = time.monotonic()
        result: dict[str, Any] = {"engine": engine}
        try:
            classifier = Classifier(network, side, mean=0.5, std=0.25, channels=channels)
            settings: dict[str, Any] = {"samples": 1, "engine": engine, **ENGINES[engine]}
            scorer = Scorer(classifier, (SCORE,), **settings)
            scores[engine] = scorer(images, ["a", "b"])[SCORE]
            result |= {"outcome": "scored", "plan": scorer.plan["engine"], "values": scores[engine].tolist()}
            result["without_rule"] = len(scorer.plan.get("without_rule", ()))
        except UsageError as error:
            result |= {"outcome": "refused", "reason": str(error)}
        except Exception as error:
            result |= {"outcome": "failed", "reason": reason(error)}
        if "reference" in scores and engine in scores:
            difference = (scores[engine] - scores["reference"]).abs() / scores["reference"]
            result["error"] = float(difference.max())
        yield result | {"seconds": round(time.monotonic() - started, 2)}


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` with its constants drawn at random: a scale of 1e-6 or a head of zeros would test little."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(value: Tensor) -> Tensor:
        noise = torch.rand(value.shape, generator=generator)
        return (0.5 + noise if float(value.flatten()[0]) > 0.5 else (noise - 0.5) / 2).to(value)

    with torch.no_grad():
        for value in network.parameters():
            if value.is_floating_point() and value.numel() and bool((value == value.flatten()[0]).all()):
                value.copy_(drawn(value))
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                assert module.running_var is not None
                module.running_mean.copy_(drawn(module.running_mean))
                module.running_var.copy_(drawn(module.running_var))
    return network


def _fitting(item: Listed, blocks: dict[str, Any]) -> tuple[nn.Module | None, int]:
    """The network for the smallest image it takes, and the side of that."""
    plain = _built(item, **blocks)
    for side in SIDES:
        if plain is not None and _takes(plain, side):
            return _tempered(shaken(plain), side), side
        # Some have the size built in.
        resized = _built(item, img_size=side, **blocks) if item.library == "timm" else None
        if resized is not None and _takes(resized, side):
            return _tempered(shaken(resized), side), side
    return None, 0


def _tempered(network: nn.Module, side: int) -> nn.Module:
    """``network`` with logits that differ by about 1: of a softmax that is 0 or 1, gradients are noise."""
    images = torch.rand(2, _channels(network), side, side, generator=torch.Generator().manual_seed(2))
    head = find_head(network, images)
    if head is None:
        return network
    with torch.no_grad():
        spread = float(network(images).std())
        for parameter in network.get_submodule(head).parameters():
            parameter.div_(max(spread, 1.0))
    return network


def _built(item: Listed, **settings: Any) -> nn.Module | None:
    torch.manual_seed(0)
    try:
        return item.build(**settings)
    except Exception:
        return None


def _channels(network: nn.Module) -> int:
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in (1, 3, 4) else 3


def _takes(network: nn.Module, side: int) -> bool:
    try:
        with torch.no_grad():
            logits = network(torch.rand(2, _channels(network), side, side))
    except Exception:
        return False
    return isinstance(logits, Tensor) and logits.shape == (2, CLASSES) and math.isfinite(float(logits.sum()))
