"""How deep each class is differentiated: the less of a score it makes up, the fewer layers.

A score sum_c p_c^gamma ||a g_c|| is made up by a few classes, most of it. With s_c the share of class c, taken from the
logits as p_c^gamma ||e_c - p||, and f_m the share of the squared gradient that lies before layer m (behind the cut),
layers before m_c are left out for class c such that

    sum_c s_c f_{m_c} <= most,

at the least cost: of all steps towards the last layer, those come first that leave out least for what they save. What
is left out is then estimated, from m_c on to the whole, by the mean ratio of the classes of the same image that were
differentiated deeper; the class with the largest share is differentiated as deep as there is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

_DIGITS = 4  # of what is written into a plan, so that machines which round differently make the same one


@dataclass(frozen=True)
class Depth:
    """A layer from which on a class may be differentiated.

    Attributes:
        first_layer: m.
        left_out: f_m, the share of the squared gradient before it and behind the cut.
        cost: of a class, in forward passes.
    """

    first_layer: int
    left_out: float
    cost: float


def worthwhile(candidates: Sequence[Depth]) -> list[Depth]:
    """Those of ``candidates``, the deepest first, of which none leaves out more than others at the same cost.

    They are the corners of the lower convex hull, so that further steps save less for what they leave out.

    >>> [each.first_layer for each in worthwhile([Depth(1, 0, 3.0), Depth(2, 0.5, 2.5), Depth(3, 0.6, 1.0)])]
    [1, 3]
    """
    hull: list[Depth] = []
    for candidate in candidates:
        while hull and candidate.cost <= hull[-1].cost and candidate.left_out <= hull[-1].left_out:
            hull.pop()
        if hull and candidate.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-2], candidate):
            hull.pop()
        hull.append(candidate)
    return hull


def _price(deeper: Depth, other: Depth) -> float:
    """What the step from one to the ``other`` leaves out for what it saves."""
    return (other.left_out - deeper.left_out) / max(deeper.cost - other.cost, 1e-12)


@dataclass(frozen=True)
class Depths:
    """The depths there are, and what may be left out.

    Attributes:
        each: two or more, the deepest first.
        powers: every gamma with which classes are weighed.
        most: bound of the sum over classes of what is left out, as a share of the squared gradient.
    """

    each: tuple[Depth, ...]
    powers: tuple[float, ...]
    most: float

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any], powers: Sequence[float]) -> Depths | None:
        """From what :meth:`in_plan` gave; None where there is one depth for all classes."""
        known = plan.get("depths")
        return cls(tuple(Depth(**each) for each in known["each"]), tuple(powers), known["most"]) if known else None

    def in_plan(self) -> dict[str, Any]:
        """For a plan, from which :meth:`of_plan` makes the same again."""
        return {"most": self.most, "each": [asdict(depth) for depth in self.each]}

    def choose(self, log_p: Tensor) -> Tensor:
        """Which depth each class has, of log-probabilities (B, C) of the clean images: int64 (B, C), 0 the deepest.

        A class with a larger share is never the shallower one.
        """
        shares = class_shares(log_p, self.powers)
        left_out, cost = (
            shares.new_tensor([getattr(each, name) for each in self.each]) for name in ("left_out", "cost")
        )
        # One entry for each class and each step towards the last layer.
        adds = shares[..., None] * left_out.diff()
        adds = adds.scatter(1, shares.argmax(1)[:, None, None].expand(-1, -1, adds.shape[2]), torch.inf)
        order = (adds / -cost.diff()).flatten(1).argsort(dim=1, stable=True)
        taken = adds.flatten(1).gather(1, order).cumsum(1) <= self.most
        return torch.zeros_like(order).scatter(1, order, taken.long()).unflatten(1, adds.shape[1:]).sum(2)

    def cost(self, log_p: Tensor) -> Tensor:
        """What all classes of an image take, in forward passes, (B,)."""
        return log_p.new_tensor([each.cost for each in self.each])[self.choose(log_p)].sum(1)

    def whole(self, squared: Tensor, chosen: Tensor) -> Tensor:
        """||a g_c||^2, (B, C), of what was differentiated, and the estimate of the rest.

        Args:
            squared: (depths, B, C), for each depth the sum from its first layer on; looked at where it was chosen or a
                deeper one was.
            chosen: from :meth:`choose`.
        """
        whole = squared[0]
        for depth in range(1, len(self.each)):
            deeper, here = chosen < depth, chosen == depth
            known = deeper & (squared[depth] > 0)
            ratios = torch.where(known, whole / squared[depth].where(known, 1), 0).sum(1) / known.sum(1).clamp_min(1)
            ratios = ratios.where(known.any(1), 1)
            whole = torch.where(here, squared[depth] * ratios[:, None], whole)
        return whole


@dataclass(frozen=True)
class Order:
    """In which order the classes of each image are differentiated, (B, classes): those that go deepest first.

    ``chosen`` are their depths, by class, where there are several ``depths``.
    """

    order: Tensor
    depths: Depths | None = None
    chosen: Tensor | None = None

    @classmethod
    def of(cls, depths: Depths | None, log_p: Tensor) -> Order:
        """Of clean log-probabilities (B, C)."""
        if depths is None:
            return cls(torch.arange(log_p.shape[1], device=log_p.device).expand(log_p.shape))
        chosen = depths.choose(log_p)
        return cls(chosen.argsort(dim=1, stable=True), depths, chosen)

    @property
    def classes(self) -> int:
        """How many there are."""
        return self.order.shape[1]

    def passes(self) -> Iterator[tuple[range, int]]:
        """Places in the order, and how deep the image that goes deepest there does."""
        if self.chosen is None:
            yield range(self.classes), 0
            return
        start = 0
        for depth, together in itertools.groupby(self.chosen.gather(1, self.order).amin(0).tolist()):
            stop = start + len(list(together))
            yield range(start, stop), depth
            start = stop

    def first_layers(self, count: int) -> Tensor | None:
        """From which layer on each class counts, in this order, and from the first there is those behind: (B, count).

        None where all do from the same.
        """
        if self.depths is None or self.chosen is None:
            return None
        firsts = self.order.new_tensor([each.first_layer for each in self.depths.each])
        first = firsts[0].expand(len(self.order), count).clone()
        first[:, : self.classes] = firsts[self.chosen.gather(1, self.order)]
        return first

    def distributions(self, places: range, extra: Tensor, p: Tensor) -> Tensor:
        """The classes at these places or, behind them, ``extra`` ones, broadcast over copies: (T, B, 1, C)."""
        if places.start >= self.classes:
            wanted = extra[:, places.start - self.classes : places.stop - self.classes].transpose(0, 1)
        else:
            at = self.order[:, places.start : places.stop].T[..., None]
            wanted = p.new_zeros(*at.shape[:2], p.shape[-1]).scatter(2, at, 1)
        return wanted[:, :, None]

    def by_class(self, per_layer: Tensor) -> Tensor:
        """What came in this order, (layers, B, classes), in the order of the classes."""
        return per_layer if self.chosen is None else per_layer.gather(2, self.order.argsort(1).expand_as(per_layer))


def class_shares(log_p: Tensor, powers: Sequence[float]) -> Tensor:
    """The share of each class in a score, (B, C): the largest over ``powers``."""
    p = log_p.exp()
    squares, predicted = p.square(), p.argmax(1, keepdim=True)
    others = p.scatter(1, predicted, 0)  # 1 - p without the difference, where p is nearly 1
    rest = (1 - p).scatter(1, predicted, others.sum(1, keepdim=True))
    apart = (squares.sum(1, keepdim=True) - squares).scatter(1, predicted, others.square().sum(1, keepdim=True))
    lengths = (rest.square() + apart.clamp_min(0)).sqrt()
    weighed = [(log_p * power).exp() * lengths for power in powers]
    return torch.stack([each / each.sum(1, keepdim=True).clamp_min(1e-300) for each in weighed]).amax(0)


def to_digits(number: float) -> float:
    """To as many digits as a plan has.

    >>> to_digits(0.123456)
    0.1235
    """
    return float(f"{number:.{_DIGITS}g}")
