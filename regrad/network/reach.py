"""Which parameters the logits depend on, as autograd sees it, and whether it sees all of them.

A layer that a network runs under ``no_grad``, in inference mode, through a re-entrant checkpoint, detached or through
numpy has no gradient, though the logits depend on its parameters: its share of every norm would be missing without a
word. Where autograd sees no gradient, the parameters are moved a little, theta + t d: logits that change in proportion
to t depend on them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from regrad.errors import UsageError
from regrad.network.copies import plain_attention
from regrad.network.hooks import pulled_back, requiring_grad
from regrad.network.memory import out_of_memory
from regrad.storage.redact import reason

STEP = 1e-2  # t, in units of each parameter's own size
_SHOWN = 3
_ROUNDING = 50  # times the type's precision: what logits change by without a cause
_REMEDY = "; scores of predictions alone (entropy, energy, ...) need no gradients"


def reached_parameters(network: nn.Module, images: Tensor) -> set[int]:
    """ids of the parameters that the logits of ``images`` (B, channels, H, W) depend on.

    An image may choose its way through the network: where two have other parameters, all count.

    Raises:
        UsageError: the network cannot be differentiated, or not all that it depends on.
    """
    _refuse_programs(network)
    parameters = {name: value for name, value in network.named_parameters() if value.is_floating_point()}
    _refuse_complex(network)
    if not parameters:
        raise UsageError(f"the network has no parameters: there is no gradient to measure{_cause(network)}")
    by_image = [_with_gradient(network, parameters, image[None]) for image in images]
    reached = set.union(*by_image)
    chosen = any(names != reached for names in by_image)
    unreached = {name: value for name, value in parameters.items() if name not in reached}
    if unreached and not chosen and _matter(network, unreached, images):
        raise UsageError(_cut_off(network, list(unreached)))
    if not reached:
        raise UsageError(f"the network's logits do not depend on its parameters{_cause(network)}")
    return {id(value) for name, value in parameters.items() if chosen or name in reached}


def _with_gradient(network: nn.Module, parameters: Mapping[str, nn.Parameter], image: Tensor) -> set[str]:
    """Names of the ``parameters`` that have a gradient for ``image``."""
    try:
        with requiring_grad(parameters.values()), torch.enable_grad(), plain_attention():
            logits = network(image)
            if not logits.requires_grad:
                return set()
            cotangent = torch.linspace(-1, 1, logits.shape[1]).to(logits).expand_as(logits)
            gradients = pulled_back(cotangent, logits, list(parameters.values()))
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"autograd cannot differentiate {type(network).__name__}: {reason(error)}{_REMEDY}") from error
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _matter(network: nn.Module, parameters: Mapping[str, nn.Parameter], images: Tensor) -> bool:
    """Whether the logits change in proportion to small changes of ``parameters``."""
    generator = torch.Generator().manual_seed(0)
    steps = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value) * _size(value)
        for name, value in parameters.items()
    }

    def logits(t: float) -> Tensor:
        moved = {name: value.detach() + t * steps[name] for name, value in parameters.items()}
        return functional_call(network, moved, (images,)).double()

    with torch.no_grad(), plain_attention():
        before, whole, half = logits(0.0), logits(STEP), logits(STEP / 2)
    change, twice = whole - before, 2 * (half - before)
    precision = max(torch.finfo(value.dtype).eps for value in parameters.values())
    noticed = float(change.norm()) > _ROUNDING * precision * float(before.norm())
    return noticed and float((change - twice).norm()) < 0.5 * float(change.norm())


def _size(value: Tensor) -> Tensor:
    size = value.detach().double().abs().mean()
    return torch.where(size > 0, size, 1.0).to(value)


def _refuse_programs(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UsageError(
                f"{_called(name)} is a TorchScript program, whose layers cannot be watched: give the torch.nn.Module "
                f"that it was made of{_REMEDY}"
            )


def _refuse_complex(network: nn.Module) -> None:
    for name, value in network.named_parameters():
        if value.is_complex():
            raise UsageError(
                f"{name} is a complex parameter, of which no gradient norm is defined here: keep its real and "
                f"imaginary part in a real one (torch.view_as_complex){_REMEDY}"
            )


def _cut_off(network: nn.Module, names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    cause = _cause(network) or (
        ": the layers run under no_grad, in inference mode or in a re-entrant checkpoint, or their outputs are "
        "detached; take that out of the network's forward, which needs none of it to predict"
    )
    return f"the logits depend on {shown}, but no gradient comes there{cause}{_REMEDY}"


def _cause(network: nn.Module) -> str:
    """What of the network has no gradient by its kind, in words; nothing if nothing has."""
    for name, module in network.named_modules():
        if ".quantized" in type(module).__module__:
            return (
                f": {_called(name)} ({type(module).__name__}) is quantised, which has none; give the network as it was "
                "before it was quantised"
            )
    return ""


def _called(name: str) -> str:
    return name or "the network"
