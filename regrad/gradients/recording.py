"""What one forward pass leaves behind, and the norms that follow once output gradients have arrived.

The copies of an image are just more positions of a layer. With A a layer's inputs and D_q its output gradients, one row
a position, the block of a layer y = A W^T is D_q^T A, and

    ||D_q^T A||^2 = sum (A A^T) * (D_q D_q^T)      (Gram form: A A^T is computed once for all classes), or directly.

Per class and image with n positions the Gram form costs n^2 (d_out + d_in / classes), the direct form n d_in d_out
multiplications; the cheaper one is chosen from these sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from regrad.gradients.rules import Direct, Outer, Rule
from regrad.network.hooks import Call

_RUN = 4096  # entries summed in float32: longer sums are less precise, and not faster
_SHORT_RUN = 16  # shorter ones are slow


@dataclass(frozen=True)
class Watched:
    """A module whose parameters a rule differentiates.

    Attributes:
        parameters: those that count: how all of the network call them, by the module's own names.
    """

    module: nn.Module
    rule: Rule
    parameters: Mapping[str, str]

    def without(self, names: Collection[str]) -> Watched:
        """The same, with the parameters that the network calls ``names`` left to others."""
        return replace(self, parameters={own: name for own, name in self.parameters.items() if name not in names})


@dataclass
class Use:
    """The calls of one parameter in one forward pass: how its gradient follows from the output gradients.

    Attributes:
        factors: one for each call.
        arrived: the output gradients of the calls, as far as the backward pass has brought them.
        arriving: bytes of all of them.
        gram: A A^T over the positions of all calls, where the Gram form is the cheaper one.
        inputs: A, likewise, where the direct form is.
    """

    factors: list[Outer | Direct] = field(default_factory=list)
    arrived: list[Tensor | None] = field(default_factory=list)
    arriving: int = 0
    gram: Tensor | None = None
    inputs: list[Tensor] = field(default_factory=list)

    def add(self, factor: Outer | Direct, output: Tensor) -> int:
        """Note one more call; returns its place among the others."""
        self.factors.append(factor)
        self.arrived.append(None)
        self.arriving += output.numel() * output.element_size()
        return len(self.arrived) - 1

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once all calls are known."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        if not outer or len(outer) < len(self.factors) or not _gram_is_cheaper(outer, targets):
            self.inputs = [_inputs(factor) for factor in self.factors]
        elif len(outer) == 1 and outer[0].gram is not None:
            self.gram = outer[0].gram()
        else:
            inputs = torch.cat([factor.inputs() for factor in outer], dim=2)
            self.gram = inputs @ inputs.transpose(2, 3)

    def held(self, targets: int, copies: int) -> int:
        """How many numbers :meth:`prepare` would form for ``copies`` of an image, of which one was seen."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        if outer and len(outer) == len(self.factors) and _gram_is_cheaper(outer, targets, copies):
            return outer[0].shape[0] * (copies * sum(factor.shape[1] for factor in outer)) ** 2
        return sum(math.prod(factor.shape[:3]) * copies for factor in outer if factor.gradient is None)

    def squared(self) -> Tensor | None:
        """||block||^2 for the gradients that have arrived, float64 (B,); None if none has. They are forgotten."""
        arrived, self.arrived = self.arrived, [None] * len(self.arrived)
        if all(d is None for d in arrived):
            return None
        if self.gram is not None and all(d is not None for d in arrived):
            rows = torch.cat([f.rows(d) for f, d in zip(self.factors, arrived, strict=True)], dim=2)  # type: ignore[arg-type, union-attr]
            products = self.gram * (rows @ rows.transpose(2, 3))
            return products.sum(3).sum((1, 2), dtype=torch.float64)
        gradient = sum(self._gradient(i, d) for i, d in enumerate(arrived) if d is not None)
        assert isinstance(gradient, Tensor)
        return _squared_norms(gradient)

    def _gradient(self, call: int, d: Tensor) -> Tensor:
        """The parameter's gradient from one call, one row an image."""
        factor = self.factors[call]
        if factor.gradient is not None:
            return factor.gradient(d)
        inputs = self.inputs[call] if self.inputs else factor.inputs()
        return (factor.rows(d).transpose(2, 3) @ inputs).flatten(1)


@dataclass
class Recording:
    """One forward pass over ``images`` and their copies.

    Attributes:
        uses: by parameter, as the network calls it.
        leaves: where the graph begins: outputs of watched modules that would have had none.
    """

    images: int
    uses: dict[str, Use] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)

    def note(self, watched: Watched, call: Call) -> Tensor:
        """Take down a call of a module; returns the output that goes on, from which the gradient will be received."""
        factors = watched.rule(watched.module, call.input.detach(), self.images)
        chosen = {name: factors[own] for own, name in watched.parameters.items()}
        output: Tensor = call.output
        if not output.requires_grad:
            leaf = output.detach().requires_grad_(True)
            self.leaves.append(leaf)
            output = leaf.clone()  # the network may change it in place, which a leaf does not allow
        slots = []
        for name, factor in chosen.items():
            use = self.uses.setdefault(name, Use())
            slots.append((use, use.add(factor, output)))

        def receive(gradient: Tensor) -> None:
            for use, slot in slots:
                use.arrived[slot] = gradient

        output.register_hook(receive)
        return output

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once the forward pass is over."""
        for use in self.uses.values():
            use.prepare(targets)

    def squares(self) -> dict[str, Tensor]:
        """||block||^2 of every parameter for the gradients that have just arrived: float64 (B,)."""
        squares = {name: use.squared() for name, use in self.uses.items()}
        return {name: value for name, value in squares.items() if value is not None}

    def bytes_per_input(self, targets: int, copies: int, element_size: int) -> int:
        """What gradients and prepared forms take for one copy, where one copy of one image was recorded."""
        arriving = sum(use.arriving for use in self.uses.values())
        held = sum(use.held(targets, copies) for use in self.uses.values())
        return 2 * arriving + held * element_size // copies


def _inputs(factor: Outer | Direct) -> Tensor:
    """A of a factor whose gradient needs it; nothing of others."""
    return torch.empty(0) if factor.gradient is not None else factor.inputs()


def _gram_is_cheaper(calls: list[Outer], targets: int, copies: int = 1) -> bool:
    _, _, d_in, d_out = calls[0].shape
    n = copies * sum(factor.shape[1] for factor in calls)
    return n * n * (d_out + d_in / targets) < n * d_in * d_out


def _squared_norms(rows: Tensor) -> Tensor:
    """Float64 (B,) for ``rows`` (B, P): runs of entries as they are, without a copy, then float64."""
    run = math.gcd(rows.shape[1], _RUN)
    runs = rows.unflatten(1, (-1, run if run >= _SHORT_RUN else rows.shape[1]))
    return torch.linalg.vector_norm(runs, dim=2).double().square().sum(1)
