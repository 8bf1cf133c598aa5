"""What one forward pass leaves behind, and the norms that follow once output gradients have arrived.

The copies of an image are just more positions of a layer. With A a layer's inputs and D_q its output gradients, one row
a position, the block of a layer y = A W^T is D_q^T A, and

    ||D_q^T A||^2 = sum (A A^T) * (D_q D_q^T)      (Gram form: A A^T is computed once for all classes), or directly.

Per class and image with n positions the Gram form costs n^2 (d_out + d_in / classes), the direct form n d_in d_out
multiplications; the cheaper one is chosen from these sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from regrad.gradients.norms import norms_of_runs
from regrad.gradients.rules import Direct, Outer, Rule
from regrad.network.hooks import Call


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


@dataclass(frozen=True)
class Addends:
    """Numbers of each image, (B, k), which add up to ||block||^2, or whose squares do."""

    numbers: Tensor
    to_square: bool


Layout = tuple[tuple[int, int], ...]  # of addends side by side: the column that each adds up in, and its width


class Sums:
    """Adds up the addends of many blocks by one product with zeros and ones: hundreds of small sums cost more.

    Args:
        columns: of what comes out.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._made: dict[Layout, Tensor] = {}  # the same for every target

    def __call__(self, addends: Sequence[tuple[int, Addends]]) -> Tensor:
        """Float64 (B, columns), where each of ``addends`` comes with the column that it counts in."""
        total = None
        for to_square in (True, False):
            own = [(column, each.numbers) for column, each in addends if each.to_square == to_square]
            if own:
                numbers = torch.cat([numbers for _, numbers in own], 1).double()
                ones = self._ones(tuple((column, numbers.shape[1]) for column, numbers in own), numbers)
                sums = (numbers.square() if to_square else numbers) @ ones
                total = sums if total is None else total + sums
        assert total is not None, "there are addends"
        return total

    def _ones(self, layout: Layout, like: Tensor) -> Tensor:
        if layout not in self._made:
            ones = like.new_zeros(sum(width for _, width in layout), self._columns)
            start = 0
            for column, width in layout:
                ones[start : start + width, column] = 1
                start += width
            self._made[layout] = ones
        return self._made[layout]


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

    def take(self) -> Addends | None:
        """Of the gradients that have arrived, which are forgotten; None if none has."""
        arrived, self.arrived = self.arrived, [None] * len(self.arrived)
        if all(d is None for d in arrived):
            return None
        if self.gram is not None and all(d is not None for d in arrived):
            rows = torch.cat([f.rows(d) for f, d in zip(self.factors, arrived, strict=True)], dim=2)  # type: ignore[arg-type, union-attr]
            return Addends((self.gram * (rows @ rows.transpose(2, 3))).sum(3).flatten(1), to_square=False)
        gradient = sum(self._gradient(i, d) for i, d in enumerate(arrived) if d is not None)
        assert isinstance(gradient, Tensor)
        return Addends(norms_of_runs(gradient), to_square=True)

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
        sums: adds up what the uses give.
    """

    images: int
    uses: dict[str, Use] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)
    sums: Sums | None = None

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

    def squares(self, columns: Mapping[str, int], number: int) -> Tensor | None:
        """||block||^2 for the gradients that have just arrived, which are forgotten: float64 (B, number).

        None if no gradient has arrived.

        Args:
            columns: of each parameter, the same in every call; those of one column are added up.
            number: of columns.
        """
        taken = [(columns[name], use.take()) for name, use in self.uses.items()]
        arrived = [(column, addends) for column, addends in taken if addends is not None]
        if self.sums is None:
            self.sums = Sums(number)
        return self.sums(arrived) if arrived else None

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
