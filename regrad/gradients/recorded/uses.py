"""The calls of one parameter in a forward pass, and the norms of its gradients.

The copies of an image are just more positions of a layer. With A a layer's inputs and D_q its output gradients, one row
a position, the block of a layer y = A W^T is D_q^T A, and

    ||D_q^T A||^2 = sum (A A^T) * (D_q D_q^T)      (Gram form: A A^T is computed once for all classes), or directly.

Per class and image with n positions the Gram form costs n^2 (d_out + d_in / classes), the direct form n d_in d_out
multiplications; the cheaper one is chosen from these sizes alone. Several targets that have been differentiated are one
product in the direct form, which reads A once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from regrad.gradients.norms import norms_of_runs
from regrad.gradients.rules import Direct, Outer


@dataclass(frozen=True)
class Addends:
    """Numbers of each target and image, (T, B, k), which add up to ||block||^2, or whose squares do."""

    numbers: Tensor
    to_square: bool

    def spread(self, targets: Sequence[int], count: int) -> Addends:
        """Those of so many targets, of which these are some, and zeros."""
        if len(targets) == count:
            return self
        numbers = self.numbers.new_zeros(count, *self.numbers.shape[1:])
        numbers[targets] = self.numbers
        return replace(self, numbers=numbers)


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
        """Float64 (T, B, columns), where each of ``addends`` comes with the column that it counts in."""
        total = None
        for to_square in (True, False):
            own = [(column, each.numbers) for column, each in addends if each.to_square == to_square]
            if own:
                numbers = torch.cat([numbers for _, numbers in own], 2).double()
                ones = self._ones(tuple((column, each.shape[2]) for column, each in own))
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


_WORTH_A_CALL = 10_000_000  # multiplications

Gradients = Mapping[int, Tensor | None]  # of one target, by the outputs that they are of; None: there is none


@dataclass(eq=False)
class Use:
    """The calls of one parameter in one forward pass: how its gradient follows from the output gradients.

    Attributes:
        names: what the network calls it, and those that are derived from the same products, by their own names.
        product: forms :func:`outer_sum`.
        factors: one for each call.
        outputs: which of the outputs that gradients are asked for is that of each call.
        gram: A A^T over the positions of all calls, where the Gram form is the cheaper one.
        inputs: A, likewise, where the direct form is and all images go together.
        scratch: what is made for one image at a time lies in the same memory for every image, of the uses that share
            this: new memory is given page by page, which takes as long as to fill it.
    """

    names: Mapping[str, str]
    product: Callable[[Tensor, Tensor], Tensor] = outer_sum
    factors: list[Outer | Direct] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    gram: Tensor | None = None
    inputs: list[Tensor] = field(default_factory=list)
    scratch: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    def add(self, factor: Outer | Direct, output: int) -> None:
        """Note one more call."""
        self.factors.append(factor)
        self.outputs.append(output)

    def prepare(self, targets: int) -> None:
        """Form what does not depend on the target, once all calls are known."""
        outer = self._outer
        if not outer or not gram_is_cheaper(outer, targets):
            self.inputs = [] if self.by_image() else [_inputs(factor) for factor in self.factors]
        elif len(outer) == 1 and outer[0].gram is not None:
            self.gram = outer[0].gram()
        else:
            inputs = _joined([_inputs(factor) for factor in outer])
            self.gram = inputs @ inputs.transpose(2, 3)

    def by_image(self, copies: int = 1) -> bool:
        """Whether products are formed image by image, each of several targets, so that A is never held as a whole.

        For ``copies`` of an image of which one was seen.
        """
        outer = self._outer
        much = all(factor.by_image and math.prod(factor.shape) * copies >= _WORTH_A_CALL for factor in outer)
        return bool(outer) and much and self.product is outer_sum

    @property
    def _outer(self) -> list[Outer]:
        """The factors, if all of them are outer products; else none."""
        outer = [factor for factor in self.factors if isinstance(factor, Outer)]
        return outer if len(outer) == len(self.factors) else []

    def held(self, targets: int, copies: int) -> int:
        """How many numbers :meth:`prepare` would form for ``copies`` of an image, of which one was seen."""
        outer = self._outer
        if outer and gram_is_cheaper(outer, targets, copies):
            return outer[0].shape[0] * (copies * sum(factor.shape[1] for factor in outer)) ** 2
        factors = [] if self.by_image(copies) else self.factors
        return sum(math.prod(factor.shape[:3]) * copies for factor in factors if isinstance(factor, Outer))

    def derived(self, copies: int) -> int:
        """How many numbers products of which others are derived are, for one target and copy of an image."""
        shapes = [factor.shape for factor in self._outer if factor.derived is not None]
        return sum(2 * groups * d_in * d_out for groups, _, d_in, d_out in shapes) // copies

    def take(
        self, gradients: Sequence[Gradients], wanted: Sequence[Sequence[bool]] | None = None
    ) -> dict[str, Addends]:
        """By the network's names, of the ``gradients`` of some targets; nothing if none of its outputs has one.

        Args:
            gradients: of each target.
            wanted: for which images of each target; None: all. What need not be formed is 0.
        """
        there = [call for call, output in enumerate(self.outputs) if gradients[0][output] is not None]
        if not there:
            return {}
        factors = [self.factors[call] for call in there]
        arrived: list[list[Any]] = [[each[self.outputs[call]] for each in gradients] for call in there]
        if self.gram is not None and len(there) == len(self.factors):
            (name,) = self.names.values()
            return {name: Addends(self._by_gram(arrived), to_square=False)}
        if self.by_image() and self.gram is None:
            numbers = self._by_image(factors, arrived, wanted)
        elif all(isinstance(factor, Outer) for factor in factors):
            inputs = [self.inputs[call] if self.inputs else _inputs(self.factors[call]) for call in there]
            numbers = self._of_all(factors, arrived, inputs)
        else:
            numbers = self._of_each(there, arrived)
        return {self.names[own]: Addends(its, to_square=True) for own, its in numbers.items() if own in self.names}

    def _by_gram(self, arrived: Sequence[Sequence[Tensor]]) -> Tensor:
        """(T, B, G n): sums of rows of (A A^T) * (D D^T)."""
        assert self.gram is not None
        squares = []
        for gradients in zip(*arrived, strict=True):
            rows = _joined([factor.rows(d) for factor, d in zip(self._outer, gradients, strict=True)])
            squares.append((self.gram * (rows @ rows.transpose(2, 3))).sum(3).flatten(1))
        return stacked(squares)

    def _by_image(
        self,
        factors: Sequence[Any],
        arrived: Sequence[Sequence[Tensor]],
        wanted: Sequence[Sequence[bool]] | None,
    ) -> dict[str, Tensor]:
        """One product an image, of the targets that it is wanted for."""
        rows = [[factor.rows(d) for d in its] for factor, its in zip(factors, arrived, strict=True)]
        targets, images = len(rows[0]), len(rows[0][0])
        numbers: dict[str, Tensor] = {}
        for image in range(images):
            own = [k for k in range(targets) if wanted is None or wanted[k][image]]
            if not own:
                continue
            side_by_side = [torch.cat([its[k][image, None] for k in own], 3) for its in rows]
            inputs = [self._copied(factor, slice(image, image + 1), call) for call, factor in enumerate(factors)]
            for name, its in self._of_products(side_by_side, inputs, len(own)).items():
                if name not in numbers:
                    numbers[name] = its.new_zeros(targets, images, its.shape[2])
                numbers[name][own, image] = its[:, 0]
        return numbers

    def _copied(self, factor: Outer, part: slice, call: int) -> Tensor:
        """A of some images, without new memory."""
        patches = factor.patches(part)
        if patches.is_contiguous():
            return factor.inputs(part)
        key = (call, patches.numel(), patches.dtype)
        if key not in self.scratch:
            self.scratch[key] = patches.new_empty(patches.numel())
        copied = self.scratch[key].view(patches.shape).copy_(patches)
        return copied.view(len(patches), *factor.shape[:3])

    def _of_all(
        self, factors: Sequence[Any], arrived: Sequence[Sequence[Tensor]], inputs: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """One product of all images and targets."""
        side_by_side = [_joined([factor.rows(d) for d in its], 3) for factor, its in zip(factors, arrived, strict=True)]
        return self._of_products(side_by_side, inputs, len(arrived[0]))

    def _of_products(self, rows: Sequence[Tensor], inputs: Sequence[Tensor], targets: int) -> dict[str, Tensor]:
        """Numbers, (T, B, k), by own names, of each call's rows of all ``targets`` side by side, and its inputs."""

        def by_target(values: Tensor) -> Tensor:
            """(B, G, T d_out, ...) as (B T, G d_out, ...)."""
            return values.unflatten(2, (targets, -1)).transpose(1, 2).flatten(2, 3).flatten(0, 1)

        first, *others = map(self.product, rows, inputs)
        products = by_target(sum(others, first))
        (derived,) = {factor.derived for factor in self._outer} if len(rows) == 1 else (None,)
        if derived is None:
            (own,) = self.names
            numbers = {own: norms_of_runs(products.flatten(1))}
        else:
            numbers = derived(products, by_target(rows[0].sum(2)))
        return {own: its.unflatten(0, (-1, targets)).transpose(0, 1) for own, its in numbers.items()}

    def _of_each(self, calls: Sequence[int], arrived: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
        """Of gradients that are formed target by target."""
        (own,) = self.names
        gradients = []
        for its in zip(*arrived, strict=True):
            first, *others = map(self._gradient, calls, its)
            gradients.append(norms_of_runs(sum(others, first)))
        return {own: stacked(gradients)}

    def _gradient(self, call: int, d: Tensor) -> Tensor:
        """The parameter's gradient from one call, one row an image."""
        factor = self.factors[call]
        if isinstance(factor, Direct):
            return factor.gradient(d)
        return self.product(factor.rows(d), self.inputs[call]).flatten(1)


def stacked(of_targets: Sequence[Tensor]) -> Tensor:
    """(T, ...), without a copy of one alone."""
    return of_targets[0][None] if len(of_targets) == 1 else torch.stack(list(of_targets))


def _joined(rows: Sequence[Tensor], dim: int = 2) -> Tensor:
    """Of all calls, along the positions, or of all targets."""
    return rows[0] if len(rows) == 1 else torch.cat(list(rows), dim=dim)


def _inputs(factor: Outer | Direct) -> Tensor:
    """A of all images; nothing of a gradient that is formed without it."""
    return factor.inputs() if isinstance(factor, Outer) else torch.empty(0)


def gram_is_cheaper(calls: Sequence[Outer], targets: int, copies: int = 1) -> bool:
    """Whether the Gram form is, for ``copies`` of an image of which one was seen; it has no products to derive from."""
    _, _, d_in, d_out = calls[0].shape
    n = copies * sum(factor.shape[1] for factor in calls)
    derived = any(factor.derived is not None for factor in calls)
    return not derived and n * n * (d_out + d_in / targets) < n * d_in * d_out
