"""Which layers a network has, in which order an image meets them, and what each weighs (Eq. 12).

a_l = exp(lambda (l - L)), l = 1..L: the last layer weighs 1. A layer is a module that owns parameters directly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked
from regrad.network.reach import reached_parameters

GROUPINGS = ("modules", "stages")


@dataclass(frozen=True)
class Layer:
    """One module that owns parameters, and its place in the order of Eq. 12.

    Attributes:
        name: the module's qualified name; the network itself is ``""``.
        index: l, from 1 to L; several modules share an l under ``stages``.
        parameters: names of the parameters counted here (a shared one is counted where it is entered first), without
            those that the logits do not depend on, such as an auxiliary head's: their gradient is zero.
        calls: how often one forward pass runs the module.
        batch_major: in every call, row k of input and output belongs to image k // (rows / images).
    """

    name: str
    index: int
    parameters: tuple[str, ...]
    calls: int
    batch_major: bool


def find_layers(network: nn.Module, probe: Tensor, grouping: str = "modules") -> list[Layer]:
    """The layers of ``network`` in the order in which modules are first entered.

    A module that is never called itself (the output projection inside attention) stands right after its nearest
    called ancestor; a parameter shared by two modules belongs to the one entered first.

    Args:
        network: in eval mode; see :func:`private_copy`.
        probe: at least two different inputs (B, channels, H, W).
        grouping: ``modules`` (one l per module) or ``stages`` (one l per top-level child).

    Raises:
        UsageError: a module mixes the images of a batch, ``grouping`` is unknown, or some parameters that the logits
            depend on have no gradient.
    """
    if grouping not in GROUPINGS:
        raise UsageError(f"layers {grouping!r}: one of {', '.join(GROUPINGS)}")
    used = reached_parameters(network, probe)
    changed = probe.clone()
    changed[0] = probe[0].flip(-1) * 0.5 + 0.25
    calls, logits = _record(network, probe)
    changed_calls, changed_logits = _record(network, changed)
    _refuse_mixing(network, logits, changed_logits)
    entered = _entry_order(network, list(calls))
    owner: dict[int, str] = {}
    layers: list[Layer] = []
    places: dict[str, int] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    for name in entered:
        own = [(key, value) for key, value in modules[name].named_parameters(recurse=False) if id(value) not in owner]
        if not own:
            continue
        owner.update((id(value), name) for _, value in own)
        group = name if grouping == "modules" else name.partition(".")[0]
        places.setdefault(group, len(places) + 1)
        names = tuple(key for key, value in own if id(value) in used)
        ends, changed_ends = calls.get(name, []), changed_calls.get(name, [])
        major = len(ends) == len(changed_ends) and all(
            _batch_major(a, b, len(probe)) for a, b in zip(ends, changed_ends, strict=True)
        )
        layers.append(Layer(name, places[group], names, len(ends), major))
    return layers


def layer_parameters(network: nn.Module, layers: list[Layer]) -> list[list[nn.Parameter]]:
    """The counted parameters of each of ``layers`` in ``network``."""
    modules = dict(network.named_modules(remove_duplicate=False))
    return [[getattr(modules[layer.name], name) for name in layer.parameters] for layer in layers]


def layer_weights(layers: list[Layer], depth_decay: float) -> Tensor:
    """a_l = exp(lambda (l - L)) for each entry of ``layers``: float64 (len(layers),); lambda = inf keeps l = L alone.

    Source: Wang & Ji 2024, Eq. 12, scaled so that a_L = 1: the same ranking, and no overflow.

    Raises:
        UsageError: lambda is negative or not a number.
    """
    if not depth_decay >= 0:
        raise UsageError(f"depth decay (lambda) {depth_decay}: must be 0 or larger")
    last = max(layer.index for layer in layers)
    if math.isinf(depth_decay):
        return torch.tensor([float(layer.index == last) for layer in layers], dtype=torch.float64)
    return torch.tensor([math.exp(depth_decay * (layer.index - last)) for layer in layers], dtype=torch.float64)


Ends = tuple[Tensor | None, Tensor | None]  # what a call was given and what it returned


def _record(network: nn.Module, images: Tensor) -> tuple[dict[str, list[Ends]], Tensor]:
    """Every module's calls, by name in order of entry, and the logits."""
    calls: dict[str, list[Ends]] = {}

    def enter(name: str, call: Call) -> None:
        calls.setdefault(name, [])

    def leave(name: str, call: Call) -> None:
        calls[name].append((_copied(call.input), _copied(call.output)))

    with torch.no_grad(), plain_attention(), hooked(dict(network.named_modules()), enter, leave):
        logits = network(images)
    return calls, logits


def _copied(value: Any) -> Tensor | None:
    return value.clone() if isinstance(value, Tensor) else None


def _entry_order(network: nn.Module, called: list[str]) -> list[str]:
    order = list(called)
    for name, _ in network.named_modules():
        if name in order:
            continue
        ancestor = name
        while ancestor not in called and ancestor:
            ancestor = ancestor.rpartition(".")[0]
        place = order.index(ancestor) + 1 if ancestor in order else 0
        # Behind the uncalled relatives that were already put there, so that declaration order is kept.
        while place < len(order) and order[place] not in called and order[place].startswith(ancestor):
            place += 1
        order.insert(place, name)
    return order


def _batch_major(before: Ends, after: Ends, images: int) -> bool:
    """Whether changing image 0 changed only the first 1/images of the rows of a module's input and output."""
    for old, new in zip(before, after, strict=True):
        if old is None or new is None or old.dim() < 2 or old.shape != new.shape or len(old) % images:
            return False
        if not _close(old[len(old) // images :], new[len(old) // images :]):
            return False
    return True


def _refuse_mixing(network: nn.Module, before: Tensor, after: Tensor) -> None:
    if _close(before[1:], after[1:]):
        return
    culprits = [
        f"{name} ({type(module).__name__} without running statistics)"
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None
    ]
    raise UsageError(
        "the network's logits for one image depend on the other images of its batch"
        + (f": {', '.join(culprits[:3])}" if culprits else "")
        + "; a score would not belong to an image"
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    scale = a.abs().max().clamp_min(1e-12) if a.numel() else 1.0
    return bool(((a - b).abs() <= 1e-4 * scale).all())
