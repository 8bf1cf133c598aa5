"""Random directions over the parameters of a module: v with E v v^T = I, a function of seed, name and shape alone.

Parameters are drawn iid N(0, 1), except in modules of ``SHARED_ROWS`` rows or more. Row r, what makes output channel r,
is there v_j[r] = d_j[r] w[r], with d iid N(0, 1) and random signs w that all k directions share. Then

    v_j . g | w  ~  N(0, V),    V = sum_r (w[r] . g[r])^2,    E V = ||g||^2,    Var V <= 2 sum_r ||g[r]||^4:

given w the k draws are independent and normal, and V has a relative variance of about 2 over the number of rows that
matter, small beside the 2/k of the draws. In return v needs k numbers a row, and a layer that is linear in its
parameters, y = W x, has the derivative d_j (w x): one product for all directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from regrad import perturb

SHARED_ROWS = 256


@dataclass(frozen=True)
class Block:
    """The counted parameters of one module and their k directions.

    Attributes:
        module: its qualified name.
        place: its position among the layers.
        values: the parameters by their own name.
        draws: (k, *shape) by parameter; where rows share signs, d alone, (k, rows), under the name ``rows``.
        signs: w by parameter; empty where nothing is shared.
    """

    module: str
    place: int
    values: dict[str, Tensor]
    draws: dict[str, Tensor]
    signs: dict[str, Tensor]

    def to(self, dtype: torch.dtype) -> Block:
        """The same in another type."""
        values, draws, signs = (
            {name: value.to(dtype) for name, value in part.items()} for part in (self.values, self.draws, self.signs)
        )
        return Block(self.module, self.place, values, draws, signs)

    def moved(self, steps: dict[str, Tensor]) -> dict[str, Tensor]:
        """The parameters, by qualified name, after ``steps`` along one direction (shaped as one of the draws)."""
        prefix = f"{self.module}." if self.module else ""
        if not self.signs:
            return {prefix + name: value + steps[name] for name, value in self.values.items()}
        return {
            prefix + name: value + steps["rows"].reshape(-1, *[1] * (value.dim() - 1)) * self.signs[name]
            for name, value in self.values.items()
        }


def draw_block(module: str, place: int, values: dict[str, Tensor], directions: int, seed: int) -> Block:
    """Draw ``directions`` for the parameters ``values`` of ``module``; on their device, in their dtype."""

    def normal(name: str, count: int, like: Tensor) -> Tensor:
        key = perturb.keys(seed, [f"{module}.{name}"], purpose="direction")
        return perturb.normal(key, directions, count)[0].to(like)

    rows = {value.shape[:1] for value in values.values()}
    first = next(iter(values.values()))
    if len(rows) == 1 and first.dim() and len(first) >= SHARED_ROWS:
        draws = {"rows": normal("rows", len(first), first)}
        return Block(module, place, values, draws, {name: _signs(module, name, v, seed) for name, v in values.items()})
    draws = {name: normal(name, v.numel(), v).reshape(directions, *v.shape) for name, v in values.items()}
    return Block(module, place, values, {name: _like(draw, values[name]) for name, draw in draws.items()}, {})


def _signs(module: str, name: str, value: Tensor, seed: int) -> Tensor:
    key = perturb.keys(seed, [f"{module}.{name}"], purpose="signs")
    words = (perturb.uniform(key, 1, math.ceil(value.numel() / 32)).flatten() * 2.0**32).long()  # 32 signs each
    bits = ((words[:, None] >> torch.arange(32)) & 1).flatten()[: value.numel()]
    return _like((bits * 2 - 1).to(value).reshape(1, *value.shape), value)[0]


def _like(draws: Tensor, value: Tensor) -> Tensor:
    """``draws`` (k, *shape) in the memory format of ``value``."""
    if value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last):
        return draws.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (len(draws), -1))
    return draws


def root_bias(directions: int) -> float:
    """b_k = E sqrt(chi^2_k / k) = sqrt(2/k) Gamma((k+1)/2) / Gamma(k/2): what the root of a mean of k squares loses.

    >>> round(root_bias(16), 4)
    0.9845
    """
    k = directions
    return math.sqrt(2 / k) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2))


def corrected_root(exact: Tensor, sketched: Tensor, directions: int) -> Tensor:
    """sqrt(exact + E sketched) up to order 1/k^2, and without bias where ``exact`` is 0."""
    total = exact + sketched
    share = sketched / total.clamp_min(1e-300)
    return total.sqrt() * (1 + share.square() * (1 / root_bias(directions) - 1))
