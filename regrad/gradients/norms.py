"""What an engine is, and what it returns: class-gradient norms of a batch, and the draws behind an estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

_RUN = 4096  # entries summed in float32: longer sums are less precise, and not faster
_SHORT_RUN = 16  # shorter ones are slow
_FEW = 512  # entries that are not worth a sum of their own


def run_of(entries: int) -> int:
    """How many entries of so many are summed in float32 at once: a divisor."""
    run = math.gcd(entries, _RUN)
    return entries if entries <= _RUN or run < _SHORT_RUN else run


def norms_of_runs(rows: Tensor) -> Tensor:
    """Norms of runs of the entries of ``rows`` (B, P), as they are and without a copy; few entries are their own."""
    if rows.shape[1] <= _FEW:
        return rows
    run = math.gcd(rows.shape[1], _RUN)
    return torch.linalg.vector_norm(rows.unflatten(1, (-1, run if run >= _SHORT_RUN else rows.shape[1])), dim=2)


def squared_norm(gradient: Tensor | None) -> Tensor | float:
    """||g||^2 of a gradient of any shape, float64 (); 0 where autograd gives none."""
    return 0.0 if gradient is None else norms_of_runs(gradient.reshape(1, -1)).double().square().sum()


@dataclass(frozen=True)
class ClassNorms:
    """What an engine returns for B images.

    Attributes:
        squared: ||a * g_q||^2, float64 (S, B, T): S weightings, T targets (the C classes first).
        logits: f(x_i), float64 (B, N+1, C), the clean image first.
        roots: ||a * g_q|| of an engine that estimates and knows the bias of its roots, (S, B, T).
        draws: whose mean ``squared`` is, (k, S, B, T), of an engine that estimates.
    """

    squared: Tensor
    logits: Tensor
    roots: Tensor | None = None
    draws: Tensor | None = None

    @property
    def norms(self) -> Tensor:
        """||a * g_q||, float64 (S, B, T)."""
        return self.squared.sqrt() if self.roots is None else self.roots

    def part(self, s: int, targets: slice) -> ClassNorms:
        """Weighting ``s`` and some targets alone, still with a dimension S = 1."""
        parts = [None if part is None else part[..., s : s + 1, :, targets] for part in (self.roots, self.draws)]
        return ClassNorms(self.squared[s : s + 1, :, targets], self.logits, *parts)

    def of_images(self, order: Tensor) -> ClassNorms:
        """Those of the images ``order``, (B,)."""
        parts = [None if part is None else part[..., order, :] for part in (self.roots, self.draws)]
        return ClassNorms(self.squared[:, order], self.logits[order], *parts)

    @classmethod
    def of_parts(cls, parts: Sequence[ClassNorms]) -> ClassNorms:
        """The images of all ``parts``, in order."""
        if len(parts) == 1:
            return parts[0]

        def joined(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else torch.cat(values, -2)

        logits = torch.cat([part.logits for part in parts])
        return cls(torch.cat([part.squared for part in parts], 1), logits, joined("roots"), joined("draws"))

    def norms_without_each(self) -> Tensor | None:
        """The norms that all draws but one give, (k, S, B, T), for a jackknife; None without draws."""
        if self.draws is None:
            return None
        number = len(self.draws)
        return ((number * self.squared - self.draws) / (number - 1)).clamp_min(0).sqrt()


class Engine(Protocol):
    """A way to class-gradient norms of a network whose layers, weightings and probe it was built with.

    Attributes:
        network: the private copy that it computes with.
        bytes_per_input: memory one copy of one image takes; fixes how many go at once.
        bytes_beside: memory a call takes for any number of them.
        most_inputs: how many copies go at once, where that is fewer than a call has; None: all.
    """

    network: nn.Module
    bytes_per_input: int
    bytes_beside: int
    most_inputs: int | None

    @property
    def remarks(self) -> Sequence[str]:
        """What whoever reads the scores should know of the way to them."""
        ...

    @property
    def without_rule(self) -> Sequence[str]:
        """Names of the counted parameters that are differentiated image by image, for want of a layer rule."""
        ...

    def convert(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype`` from now on."""
        ...

    def afford(self, memory: int) -> None:
        """Take up to so many bytes in a call, beside ``bytes_beside``, where that is more and makes it faster."""
        ...

    def bytes_of(self, inputs: int) -> int:
        """Memory that so many copies at once take, beside ``bytes_beside``."""
        ...

    def twins(self, count: int) -> Sequence[Engine]:
        """Up to ``count`` others that do the same with the same weights, each for a thread of its own."""
        ...

    def __call__(
        self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None = None, classes: bool = True
    ) -> ClassNorms:
        """Norms for ``copies`` (B, N+1, channels, H, W), what the network receives, the clean image first.

        Args:
            copies: what the network receives.
            targets: maps clean log-probabilities (B, C) to further target distributions (B, E, C), appended to the
                classes.
            classes: False leaves the classes out: the targets are all that is found.
        """
        ...
