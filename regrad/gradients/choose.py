"""Engine, cut and directions, resolved once from network and configuration: no timing, no data.

In units of one forward pass over all copies of an image, F multiplications a copy, for a pass that differentiates
behind its first counted layer (T multiplications a copy from there on, of which W in counted layers):

    exact:   1 + Q (T + G) / F,      G = sum_l min(n^2 (d_out + d_in / Q), n d_in d_out) / (N+1),
    sketch:  1 + k (T + W') / F,

Q target distributions (the C classes, or others that scores ask for), n positions in all copies, and
W' = W without the layers whose rows share signs, which need one product for all directions. Where classes are
differentiated to several depths (:mod:`regrad.gradients.depths`), T and G are each class's own, in the mean over the
probe images. A pass over the clean image
alone counts 1 / (N+1) of that. ``regrad benchmark engine`` shows these estimates beside the times they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from regrad.gradients import cut
from regrad.gradients.check import IMAGES
from regrad.gradients.depths import Depth, Depths, to_digits, worthwhile
from regrad.gradients.layers import Layer
from regrad.gradients.recorded.channelwise import FEW, find_channelwise, pays
from regrad.gradients.rules import Outer, find_rule
from regrad.gradients.sketching.directions import SHARED_ROWS
from regrad.network import head
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked
from regrad.network.operations import Multiplications

WORTH = 2.0  # an estimate must be so many times as fast as the exact number
A_PASS = 0.01  # of a forward pass: what a backward one costs without any product, on the last layers of a ResNet-20


@dataclass(frozen=True)
class Pass:
    """One run of an engine over a batch.

    Attributes:
        copies: of an image.
        weights: a_l, (S, layers), before the cut.
        targets: how many targets beside those that are as many as classes.
        classes: how many times there are as many as classes.
        powers: every gamma such that some score is sum_c p_c^gamma ||a g_c||; none where a score needs each norm by
            itself.
        depths: to which the classes themselves are differentiated, once resolved; None: as deep as there is.
    """

    copies: int
    weights: Tensor
    targets: int = 0
    classes: int = 1
    powers: tuple[float, ...] = ()
    depths: Depths | None = None


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
        tolerance: the share of sum_c p_c ||a g_c||^2 that the cut may leave out; the cut and the depths together may
            leave out twice as much. 0 differentiates every layer for every class.
        directions: k of the sketch.

    Returns:
        ``engine``, ``layers`` (L), ``first_layer``, ``left_out``, ``cost`` (of either engine, in forward passes),
        ``why`` in words, and ``depths`` and ``directions`` if they matter.
    """
    last = max(layer.index for layer in layers)
    plan: dict[str, Any] = {"engine": engine, "layers": last, "first_layer": 1, "left_out": 0.0}
    why = ["every layer is differentiated"]
    if engine == "reference":
        return plan | {"why": why[0]}
    sizes = _measure(network, layers, inputs)
    if tolerance > 0:
        shares = cut.layer_shares(network, layers, decayed, inputs)
        plan["first_layer"], plan["left_out"] = cut.first_kept(layers, shares, tolerance)
        why = [
            f"layers before {plan['first_layer']} of {last} hold {plan['left_out']:.1e} of the squared gradient, "
            f"at most {tolerance:g}"
        ]
        passes = kept(layers, passes, plan)
        depths = _depths(network, layers, decayed, inputs, sizes, passes)
        if len(depths) > 1:
            plan["depths"] = Depths(depths, (), to_digits(2 * tolerance - plan["left_out"])).in_plan()
            passes = kept(layers, passes, plan)
    plan["cost"] = _estimate(sizes, len(layers), passes, directions)
    if engine == "auto":
        cost = plan["cost"]
        plan["engine"] = "sketch" if cost["exact"] > WORTH * cost["sketch"] else "exact"
        why.append(
            f"an estimated {cost['exact']:.3g} forward passes with exact, {cost['sketch']:.3g} with sketch and "
            f"{directions} directions"
        )
    if plan["engine"] == "sketch":
        plan["directions"] = directions
    if plan["engine"] != "exact":
        plan.pop("depths", None)
    elif "depths" in plan:
        most = plan["depths"]["most"]
        why.insert(1, f"of less probable classes fewer are differentiated, which leaves out {most:.1e} more at most")
    return plan | {"why": "; ".join(why)}


def kept(layers: list[Layer], passes: Sequence[Pass], plan: Mapping[str, Any]) -> list[Pass]:
    """``passes`` as the ``plan`` has them: weight 0 for what the cut leaves out, and the depths of the classes.

    Rows that weigh all layers alike are never cut.
    """
    counted = torch.tensor([float(layer.index >= plan["first_layer"]) for layer in layers], dtype=torch.float64)
    return [
        replace(
            item,
            weights=torch.stack([row if _alike(row) else row * counted for row in item.weights]),
            depths=Depths.of_plan(plan, item.powers) if _several_depths(item) else None,
        )
        for item in passes
    ]


def _alike(weights: Tensor) -> bool:
    return bool((weights == 1).all())


def _several_depths(item: Pass) -> bool:
    """Whether scores add up the norms of all classes, by one weighting of the layers, which may be cut."""
    return bool(item.powers) and len(item.weights) == 1 and not _alike(item.weights[0])


def _depths(
    network: nn.Module, layers: list[Layer], decayed: Tensor, inputs: Tensor, sizes: _Sizes, passes: Sequence[Pass]
) -> tuple[Depth, ...]:
    """From which layers on classes may be differentiated, by the dearest of ``passes``; none where all are alike."""
    item = max(passes, key=lambda item: item.copies)
    counted = [i for i in range(len(layers)) if float(item.weights[:, i].max()) > 0]
    if not any(_several_depths(each) for each in passes) or len({layers[i].index for i in counted}) < 2:
        return ()
    # The classes that do not go deep are the improbable ones, so that all count alike here.
    shares = cut.layer_shares(network, [layers[i] for i in counted], decayed[counted], inputs, power=0).tolist()
    targets = item.targets + item.classes * sizes.classes
    candidates = []
    for first in sorted({layers[i].index for i in counted}):
        left_out = sum(share for i, share in zip(counted, shares, strict=True) if layers[i].index < first)
        behind = [i for i in counted if layers[i].index >= first]
        cost = sizes.backward(behind, item.copies, targets) / sizes.total
        candidates.append(Depth(first, to_digits(left_out), to_digits(cost)))
    return tuple(worthwhile(candidates))


def estimate(
    network: nn.Module, layers: list[Layer], passes: Sequence[Pass], inputs: Tensor, directions: int
) -> dict[str, float]:
    """Time of ``exact`` and ``sketch`` over one plain forward pass of the dearest pass's copies.

    Where there is a pass over the clean images too, ``exact_clean`` and ``sketch_clean`` are its part of that.
    """
    return _estimate(_measure(network, layers, inputs), len(layers), passes, directions)


def _estimate(sizes: _Sizes, layers: int, passes: Sequence[Pass], directions: int) -> dict[str, float]:
    most = max(item.copies for item in passes)
    total = {"exact": 0.0, "sketch": 0.0}
    for item in passes:
        counted = [i for i in range(layers) if float(item.weights[:, i].max()) > 0]
        targets = item.targets + item.classes * sizes.classes
        deepest = sizes.backward(counted, item.copies, targets) / sizes.total
        own = sum(sizes.own.get(i, 0) for i in counted if not sizes.shared(i))
        exact = 1 + targets * deepest
        if item.depths:
            exact += float(item.depths.cost(sizes.log_p).mean()) - sizes.classes * deepest
        sketch = 1 + directions * len(item.weights) * (sizes.tail(counted) + own) / sizes.total
        for name, cost in (("exact", exact), ("sketch", sketch)):
            total[name] += cost * item.copies / most
            if item.copies < most:
                total[f"{name}_clean"] = cost * item.copies / most
    return {name: round(cost, 2) for name, cost in total.items()}


@dataclass
class _Sizes:
    """Multiplications of one input: in all, before each layer is entered, and in each layer; and the Outer shapes.

    ``log_p`` is of all that were measured, (B, C). The norms of ``head``, of ``width`` inputs, and of layers that are
    ``channelwise`` follow without a backward pass, where that pays.
    """

    total: float
    log_p: Tensor
    before: dict[int, float]
    own: dict[int, float]
    outer: dict[int, list[tuple[int, int, int, int]]]
    width: int
    channelwise: set[int]
    head: int | None

    @property
    def classes(self) -> int:
        return self.log_p.shape[1]

    def _is_closed(self, i: int, copies: int, targets: int) -> bool:
        if i == self.head:
            return True
        shapes = self.outer.get(i, [])
        return targets > FEW and i in self.channelwise and all(pays(shape, self.width, copies) for shape in shapes)

    def tail(self, counted: Sequence[int]) -> float:
        """From where the first of the layers ``counted`` is entered."""
        return self.total - min((self.before[i] for i in counted if i in self.before), default=self.total)

    def backward(self, counted: Sequence[int], copies: int, targets: int) -> float:
        """Of a backward pass that differentiates ``counted``, and their norms, for one of the ``targets``, a copy.

        Closed forms take none, and the first of the others need not give the gradient of its input.
        """
        others = [i for i in counted if i in self.before and not self._is_closed(i, copies, targets)]
        if not others:
            return 0.0
        first = min(others, key=lambda i: self.before[i])
        products = sum(self.products(i, copies, targets) for i in others)
        return max(0.0, self.tail(others) - self.own.get(first, 0.0)) + products + A_PASS * self.total

    def shared(self, i: int) -> bool:
        return any(shape[3] * shape[0] >= SHARED_ROWS for shape in self.outer.get(i, ()))

    def products(self, i: int, copies: int, targets: int) -> float:
        """Of the norm of layer ``i``'s block for one of the ``targets``, a copy."""
        cost = 0.0
        for groups, positions, d_in, d_out in self.outer.get(i, ()):
            n = positions * copies
            cost += groups * min(n * n * (d_out + d_in / targets), n * d_in * d_out) / copies
        return cost


def _measure(network: nn.Module, layers: list[Layer], inputs: Tensor) -> _Sizes:
    """Count the multiplications of a forward pass over the first of ``inputs`` (B, channels, H, W)."""
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

    with torch.no_grad(), plain_attention():
        with hooked(watched, enter, leave), counter:
            network(inputs[:1])
        log_p = torch.cat([network(image[None]) for image in inputs]).double().log_softmax(1)
    last = head.find_head(network, inputs[:1])
    names = find_channelwise(network, last, inputs[:IMAGES])
    width = modules[last].weight.shape[1] if last else 0
    channelwise = {i for i, layer in enumerate(layers) if layer.name in names}
    place = next((i for i, layer in enumerate(layers) if layer.name == last), None)
    return _Sizes(max(counter.total, 1.0), log_p.cpu(), before, own, outer, width, channelwise, place)


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
