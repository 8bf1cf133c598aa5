"""Layers whose derivative along a direction with shared signs is one product: y = W x along d w has d (w x).

No list of types: a module qualifies when its output, on a probe, is linear in its parameters and row r of them makes
entry r of the output along some axis. Linear and convolution layers do, and the scale and shift of normalisations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from regrad.gradients.sketching.directions import Block
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked
from regrad.network.memory import out_of_memory


class AddDerivative(torch.autograd.Function):
    """output + step * product at step = 0, in one pass over the derivatives where the product rule takes three."""

    generate_vmap_rule = True

    @staticmethod
    def forward(output: Tensor, step: Tensor, product: Tensor) -> Tensor:
        """The value, in which the step does not show."""
        return output.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """Keep the product for the derivative."""
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def jvp(ctx: Any, output: Tensor | None, step: Tensor, product: None) -> Tensor:
        """The output's derivative, if it has one, and that of the step."""
        (factor,) = ctx.saved_tensors
        return step * factor if output is None else torch.addcmul(output, step, factor)


def record_calls(watched: dict[str, nn.Module], network: nn.Module, probe: Tensor) -> dict[str, list[Call]]:
    """Every call of the ``watched`` modules; tensors among its arguments are copies."""
    calls: dict[str, list[Call]] = {name: [] for name in watched}

    def note(name: str, call: Call) -> None:
        args = tuple(value.clone() if isinstance(value, Tensor) else value for value in call.args)
        calls[name].append(replace(call, args=args))

    with plain_attention(), hooked(watched, leave=note):
        network(probe)
    return calls


def row_axis(module: nn.Module, block: Block, calls: list[Call]) -> int | None:
    """The axis of the output on which row r of the parameters, and linearly so, makes entry r alone; None if none."""
    step = block.draws["rows"][0]
    own = replace(block, module="")
    for axis in (1, -1):
        if calls and all(_acts_on(module, own, step, call, axis) for call in calls):
            return axis
    return None


def _acts_on(module: nn.Module, block: Block, step: Tensor, call: Call, axis: int) -> bool:
    if not isinstance(call.output, Tensor) or call.output.dim() < 2 or call.output.shape[axis] != len(step):
        return False
    if call.keywords or any(isinstance(value, Tensor) and not value.is_floating_point() for value in call.args):
        return False  # a look-up may act row by row for the numbers of the probe alone

    def moved(steps: dict[str, Tensor]) -> Tensor:
        return functional_call(module, block.moved(steps), call.args)

    try:
        truth = jvp(moved, ({"rows": torch.zeros_like(step)},), ({"rows": step},))[1]
        product = functional_call(module, block.signs, call.args)
    except Exception as error:
        if out_of_memory(error):
            raise
        return False
    return close(along_axis(step, product, axis) * product, truth)


def along_axis(step: Tensor, output: Tensor, axis: int) -> Tensor:
    """``step`` (rows,) shaped to multiply ``output`` along ``axis``."""
    shape = [1] * output.dim()
    shape[axis] = -1
    return step.reshape(shape)


def close(a: Tensor, b: Tensor) -> bool:
    """Whether ``a`` and ``b`` are two roundings of the same products, TensorFloat-32 included."""
    tolerance = max(5e-3, 8 * torch.finfo(b.dtype).eps)
    return bool(((a - b).abs().max() <= tolerance * b.abs().max()).item())
