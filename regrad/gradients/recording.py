"""What one forward pass leaves behind, and the norms that follow once output gradients have arrived.

The copies of an image are just more positions of a layer. With A a layer's inputs and D_q its output gradients, one row
a position, the block of a layer y = A W^T is D_q^T A, and

    ||D_q^T A||^2 = sum (A A^T) * (D_q D_q^T)      (Gram form: A A^T is computed once for all classes), or directly.

Per class and image with n positions the Gram form costs n^2 (d_out + d_in / classes), the direct form n d_in d_out
multiplications; the cheaper one is chosen from these sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from regrad.gradients.layers import Layer
from regrad.gradients.norms import norms_of_runs
from regrad.gradients.rules import REMADE, Direct, Outer, Rule, find_rule
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


def find_watched(network: nn.Module, layers: Sequence[Layer], parameters: Mapping[str, nn.Parameter]) -> list[Watched]:
    """The modules that use one of the ``parameters`` and have a rule for it, as the layer that owns it has."""
    modules = dict(network.named_modules(remove_duplicate=False))
    rules = {module: _find_rule(module) for module in dict.fromkeys(modules.values())}
    ruled = {
        id(parameter)
        for layer in layers
        if layer.batch_major and layer.calls and rules[modules[layer.name]] is not None
        for parameter in modules[layer.name].parameters(recurse=False)
    }
    names = {id(parameter): name for name, parameter in parameters.items() if id(parameter) in ruled}
    watched = []
    for module, rule in rules.items():
        own = {key: names[id(value)] for key, value in module.named_parameters(recurse=False) if id(value) in names}
        if own and rule is not None:
            watched.append(Watched(module, rule, own))
    return watched


def _find_rule(module: nn.Module) -> Rule | None:
    # A forward hook of the network's own may change the output, so that the rule's output gradient is not the layer's.
    return None if module._forward_hooks else find_rule(module)


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
        device: of the addends, which do not say it themselves where many targets go together.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        self._columns = columns
        self._device = device
        self._made: dict[Layout, Tensor] = {}  # the same for every target

    def __call__(self, addends: Sequence[tuple[int, Addends]]) -> Tensor:
        """Float64 (B, columns), where each of ``addends`` comes with the column that it counts in."""
        total = None
        for to_square in (True, False):
            own = [(column, each.numbers) for column, each in addends if each.to_square == to_square]
            if own:
                numbers = torch.cat([numbers for _, numbers in own], 1).double()
                ones = self._ones(tuple((column, numbers.shape[1]) for column, numbers in own))
                sums = (numbers.square() if to_square else numbers) @ ones
                total = sums if total is None else total + sums
        assert total is not None, "there are addends"
        return total

    def _ones(self, layout: Layout) -> Tensor:
        if layout not in self._made:
            width = sum(width for _, width in layout)
            ones = torch.zeros(width, self._columns, dtype=torch.float64, device=self._device)
            start = 0
            for column, width in layout:
                ones[start : start + width, column] = 1
                start += width
            self._made[layout] = ones
        return self._made[layout]


def outer_sum(rows: Tensor, inputs: Tensor) -> Tensor:
    """sum_n rows_n (x) inputs_n: (B, G, n, d_out), (B, G, n, d_in) -> (B, G, d_out, d_in)."""
    return rows.transpose(2, 3) @ inputs


class OuterSums(torch.autograd.Function):
    """:func:`outer_sum`, mapped over targets one product of all their rows: by itself PyTorch would repeat the inputs.

    A call of it costs more than one of the function.
    """

    @staticmethod
    def forward(rows: Tensor, inputs: Tensor) -> Tensor:
        """Of one target."""
        return outer_sum(rows, inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Nothing: it is not differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], rows: Tensor, inputs: Tensor) -> tuple[Tensor, int]:
        """Of all of them: the rows have one dimension more."""
        assert in_dims[0] is not None
        assert in_dims[1] is None, "inputs are the same for every target"
        together = rows.movedim(in_dims[0], 3)
        return outer_sum(together.flatten(3), inputs).unflatten(2, together.shape[3:]), 2


@dataclass
class Use:
    """The calls of one parameter in one forward pass: how its gradient follows from the output gradients.

    Attributes:
        product: forms :func:`outer_sum`.
        factors: one for each call.
        outputs: which of the outputs that gradients are asked for is that of each call.
        gram: A A^T over the positions of all calls, where the Gram form is the cheaper one.
        inputs: A, likewise, where the direct form is.
    """

    product: Callable[[Tensor, Tensor], Tensor] = outer_sum
    factors: list[Outer | Direct] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    gram: Tensor | None = None
    inputs: list[Tensor] = field(default_factory=list)

    def add(self, factor: Outer | Direct, output: int) -> None:
        """Note one more call."""
        self.factors.append(factor)
        self.outputs.append(output)

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once all calls are known."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        if not outer or len(outer) < len(self.factors) or not _gram_is_cheaper(outer, targets):
            self.inputs = [_inputs(factor) for factor in self.factors]
        elif len(outer) == 1 and outer[0].gram is not None:
            self.gram = outer[0].gram()
        else:
            inputs = _joined([factor.inputs() for factor in outer])
            self.gram = inputs @ inputs.transpose(2, 3)

    def held(self, targets: int, copies: int) -> int:
        """How many numbers :meth:`prepare` would form for ``copies`` of an image, of which one was seen."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        if outer and len(outer) == len(self.factors) and _gram_is_cheaper(outer, targets, copies):
            return outer[0].shape[0] * (copies * sum(factor.shape[1] for factor in outer)) ** 2
        return sum(math.prod(factor.shape[:3]) * copies for factor in outer if factor.gradient is None)

    def take(self, gradients: Mapping[int, Tensor | None]) -> Addends | None:
        """Of the ``gradients`` of its outputs, by their places; None if none of them is there."""
        own = [gradients[output] for output in self.outputs]
        there = [(call, d) for call, d in enumerate(own) if d is not None]
        if not there:
            return None
        if self.gram is not None and len(there) == len(own):
            rows = _joined([self.factors[call].rows(d) for call, d in there])  # type: ignore[union-attr]
            return Addends((self.gram * (rows @ rows.transpose(2, 3))).sum(3).flatten(1), to_square=False)
        first, *others = (self._gradient(call, d) for call, d in there)
        return Addends(norms_of_runs(sum(others, first)), to_square=True)

    def _gradient(self, call: int, d: Tensor) -> Tensor:
        """The parameter's gradient from one call, one row an image."""
        factor = self.factors[call]
        if factor.gradient is not None:
            return factor.gradient(d)
        inputs = self.inputs[call] if self.inputs else factor.inputs()
        return self.product(factor.rows(d), inputs).flatten(1)


@dataclass
class Recording:
    """One forward pass over ``images`` and their copies.

    Attributes:
        together: whether gradients will come for several targets at once.
        uses: by parameter, as the network calls it.
        edges: where in the graph the gradients of the watched modules' outputs are, one for each call.
        arriving: bytes of these gradients, as often as one counts for a parameter.
    """

    images: int
    together: bool = False
    uses: dict[str, Use] = field(default_factory=dict)
    edges: list[GradientEdge] = field(default_factory=list)
    arriving: int = 0

    def note(self, watched: Watched, call: Call) -> Tensor:
        """Take down a call of a module; returns the output that goes on, whose gradient will be asked for."""
        factors = watched.rule(watched.module, call.input.detach(), self.images)
        chosen = {name: factors[own] for own, name in watched.parameters.items()}
        output = in_graph(call.output)
        if output is call.output and self.together and watched.rule in REMADE and not _differentiated(watched.module):
            output = REMADE[watched.rule](watched.module, call.input, output)
        edge = get_gradient_edge(output)  # now: a change in place would move the output away from it
        for name, factor in chosen.items():
            self.uses.setdefault(name, Use(OuterSums.apply if self.together else outer_sum)).add(
                factor, len(self.edges)
            )
            self.arriving += output.numel() * output.element_size()
        self.edges.append(edge)
        return output

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once the forward pass is over."""
        for use in self.uses.values():
            use.prepare(targets)

    def outputs(self, names: Collection[str]) -> list[int]:
        """Which of :attr:`edges` the parameters ``names`` need, in order."""
        return sorted({output for name in names if name in self.uses for output in self.uses[name].outputs})

    def addends(self, gradients: Mapping[int, Tensor | None], names: Collection[str]) -> dict[str, Addends]:
        """Of each parameter of ``names``, from the ``gradients`` at :attr:`edges`; none where no gradient came."""
        taken = {name: use.take(gradients) for name, use in self.uses.items() if name in names}
        return {name: addends for name, addends in taken.items() if addends is not None}

    def bytes_held(self, targets: int, copies: int, element_size: int) -> int:
        """What prepared forms take for one copy, where one copy of one image was recorded."""
        return sum(use.held(targets, copies) for use in self.uses.values()) * element_size // copies

    def bytes_per_target(self) -> int:
        """What gradients take for each target that is differentiated at once, and what norms are formed from."""
        return 2 * self.arriving

    def bytes_per_output(self) -> int:
        """Of one of the gradients, in the mean."""
        return self.arriving // max(1, len(self.uses))


def in_graph(output: Tensor) -> Tensor:
    """``output`` as part of a graph, which begins here if there is none yet.

    Then a copy goes on: the network may change it in place, which a leaf does not allow.
    """
    return output if output.requires_grad else output.detach().requires_grad_(True).clone()


def _differentiated(module: nn.Module) -> bool:
    """Whether autograd's part is among the module's own parameters."""
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _joined(rows: Sequence[Tensor]) -> Tensor:
    """Positions of all calls."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows), dim=2)


def _inputs(factor: Outer | Direct) -> Tensor:
    """A of a factor whose gradient needs it; nothing of others."""
    return torch.empty(0) if factor.gradient is not None else factor.inputs()


def _gram_is_cheaper(calls: list[Outer], targets: int, copies: int = 1) -> bool:
    _, _, d_in, d_out = calls[0].shape
    n = copies * sum(factor.shape[1] for factor in calls)
    return n * n * (d_out + d_in / targets) < n * d_in * d_out
