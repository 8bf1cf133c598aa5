"""Engine, cut and directions, resolved once from network and configuration: no timing, no data.

In units of one forward pass over all copies of an image, F multiplications a copy, for a pass that differentiates
behind its first counted layer (T multiplications a copy from there on, of which W in counted layers):

    exact:   1 + Q (T + G) / F,      G = sum_l min(n^2 (d_out + d_in / Q), n d_in d_out) / (N+1),
    sketch:  1 + k (T + W') / F,

Q target distributions (the C classes, or others that scores ask for), n positions in all copies, and
W' = W without the layers whose rows share signs, which need one product for all directions. A pass over the clean image
alone counts 1 / (N+1) of that. ``regrad benchmark engine`` shows these estimates beside the times they stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from regrad.gradients import cut
from regrad.gradients.directions import SHARED_ROWS
from regrad.gradients.layers import Layer
from regrad.gradients.rules import Outer, find_rule
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked
from regrad.network.operations import Multiplications

WORTH = 2.0  # an estimate must be so many times as fast as the exact number


@dataclass(frozen=True)
class Pass:
    """One run of an engine over a batch.

    Attributes:
        copies: of an image.
        weights: a_l, (S, layers), before the cut.
        targets: how many targets beside those that are as many as classes.
        classes: how many times there are as many as classes.
    """

    copies: int
    weights: Tensor
    targets: int = 0
    classes: int = 1


def resolve(
    network: nn.Module,
    engine: str,
    layers: list[Layer],
    decayed: Tensor,
    passes: Sequence[Pass],
    inputs: Tensor,
    tolerance: float,
    directions: int,
) -> dict[str, Any]:
    """The choices that scores depend on.

    Args:
        network: a private copy.
        engine: the one asked for; ``auto`` chooses between exact and sketch.
        decayed: a_l, (layers,), for which the cut is made.
        passes: what has to be run.
        inputs: what the network receives for the probe images.
        tolerance: the share of sum_c p_c ||a g_c||^2 that may be left out; 0 differentiates every layer.
        directions: k of the sketch.

    Returns:
        ``engine``, ``layers`` (L), ``first_layer``, ``left_out``, ``cost`` (of either engine, in forward passes),
        ``why`` in words, and ``directions`` if they matter.
    """
    last = max(layer.index for layer in layers)
    plan: dict[str, Any] = {"engine": engine, "layers": last, "first_layer": 1, "left_out": 0.0}
    why = ["every layer is differentiated"]
    if engine != "reference" and tolerance > 0:
        shares = cut.layer_shares(network, layers, decayed, inputs)
        plan["first_layer"], plan["left_out"] = cut.first_kept(layers, shares, tolerance)
        why = [
            f"layers before {plan['first_layer']} of {last} hold {plan['left_out']:.1e} of the squared gradient, "
            f"at most {tolerance:g}"
        ]
    if engine != "reference":
        plan["cost"] = estimate(network, layers, kept(layers, passes, plan["first_layer"]), inputs, directions)
    if engine == "auto":
        cost = plan["cost"]
        plan["engine"] = "sketch" if cost["exact"] > WORTH * cost["sketch"] else "exact"
        why.append(
            f"an estimated {cost['exact']:.3g} forward passes with exact, {cost['sketch']:.3g} with sketch and "
            f"{directions} directions"
        )
    if plan["engine"] == "sketch":
        plan["directions"] = directions
    return plan | {"why": "; ".join(why)}


def kept(layers: list[Layer], passes: Sequence[Pass], first_layer: int) -> list[Pass]:
    """``passes`` with weight 0 for what the cut leaves out; rows that weigh all layers alike are never cut."""
    counted = torch.tensor([float(layer.index >= first_layer) for layer in layers], dtype=torch.float64)
    return [
        replace(item, weights=torch.stack([row if bool((row == 1).all()) else row * counted for row in item.weights]))
        for item in passes
    ]


def estimate(
    network: nn.Module, layers: list[Layer], passes: Sequence[Pass], inputs: Tensor, directions: int
) -> dict[str, float]:
    """Time of ``exact`` and ``sketch`` over one plain forward pass of the dearest pass's copies.

    Where there is a pass over the clean images too, ``exact_clean`` and ``sketch_clean`` are its part of that.
    """
    sizes = _measure(network, layers, inputs[:1])
    most = max(item.copies for item in passes)
    total = {"exact": 0.0, "sketch": 0.0}
    for item in passes:
        counted = [i for i in range(len(layers)) if float(item.weights[:, i].max()) > 0]
        before = min((sizes.before[i] for i in counted if i in sizes.before), default=sizes.total)
        tail = sizes.total - before
        targets = item.targets + item.classes * sizes.classes
        grams = sum(sizes.products(i, item.copies, targets) for i in counted)
        own = sum(sizes.own.get(i, 0) for i in counted if not sizes.shared(i))
        exact = 1 + targets * (tail + grams) / sizes.total
        sketch = 1 + directions * len(item.weights) * (tail + own) / sizes.total
        for name, cost in (("exact", exact), ("sketch", sketch)):
            total[name] += cost * item.copies / most
            if item.copies < most:
                total[f"{name}_clean"] = cost * item.copies / most
    return {name: round(cost, 2) for name, cost in total.items()}


@dataclass
class _Sizes:
    """Multiplications of one input: in all, before each layer is entered, and in each layer; and the Outer shapes."""

    total: float
    classes: int
    before: dict[int, float]
    own: dict[int, float]
    outer: dict[int, list[tuple[int, int, int, int]]]

    def shared(self, i: int) -> bool:
        return any(shape[3] * shape[0] >= SHARED_ROWS for shape in self.outer.get(i, ()))

    def products(self, i: int, copies: int, targets: int) -> float:
        """Of the norm of layer ``i``'s block for one of the ``targets``, a copy."""
        cost = 0.0
        for groups, positions, d_in, d_out in self.outer.get(i, ()):
            n = positions * copies
            cost += groups * min(n * n * (d_out + d_in / targets), n * d_in * d_out) / copies
        return cost


def _measure(network: nn.Module, layers: list[Layer], probe: Tensor) -> _Sizes:
    """Count the multiplications of one forward pass over ``probe`` (1, channels, H, W)."""
    counter = Multiplications()
    before: dict[int, float] = {}
    own: dict[int, float] = {}
    outer: dict[int, list[tuple[int, int, int, int]]] = {}
    modules = dict(network.named_modules(remove_duplicate=False))
    watched = {i: modules[layer.name] for i, layer in enumerate(layers)}

    def enter(i: int, call: Call) -> None:
        before.setdefault(i, counter.total)

    def leave(i: int, call: Call) -> None:
        module = watched[i]
        own[i] = own.get(i, 0.0) + counter.total - before[i] if not list(module.children()) else 0.0
        outer.setdefault(i, []).extend(_shapes(module, call))

    with hooked(watched, enter, leave), counter, torch.no_grad(), plain_attention():
        logits = network(probe)
    return _Sizes(max(counter.total, 1.0), logits.shape[1], before, own, outer)


def _shapes(module: nn.Module, call: Call) -> list[tuple[int, int, int, int]]:
    """The sizes of the outer products that the module's rule makes of a call of one image; none without a rule."""
    rule = find_rule(module)
    if rule is None or not isinstance(call.input, Tensor):
        return []
    try:
        factors = rule(module, call.input, 1)
    except Exception:  # the rule has not been tried on this network, and an estimate must not need one
        return []
    return [factor.shape for factor in factors.values() if isinstance(factor, Outer)]
