"""Layer rules tried on a network before they are relied upon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from regrad.gradients.recording import Recording, Watched
from regrad.gradients.rules import Direct
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked, requiring_grad


def disagreeing(
    network: nn.Module, parameters: Mapping[str, nn.Parameter], watched: Sequence[Watched], image: Tensor
) -> set[str]:
    """Names of the watched parameters whose rule does not give the norm that autograd gives for one input.

    This also finds what no rule can see: a weight used once more by a function, a module that changes its input.

    Args:
        network: a private copy.
        parameters: all that count, by name.
        watched: the modules that have a rule, and their parameters.
        image: what the network receives, (1, channels, H, W).
    """
    recording = Recording(1)

    def note(i: int, call: Call) -> Tensor:
        return _note(recording, watched[i], call)

    modules = {i: item.module for i, item in enumerate(watched)}
    with requiring_grad(parameters.values()), torch.enable_grad(), plain_attention():
        with hooked(modules, leave=note):
            logits = network(image)
        cotangent = torch.linspace(-1, 1, logits.shape[1], dtype=logits.dtype, device=logits.device)[None]
        recording.prepare(logits.shape[1])
        truth = torch.autograd.grad(logits, list(parameters.values()), cotangent, allow_unused=True)
    squares = recording.squares()
    tried = {name for item in watched for name in item.parameters.values()}
    return {
        name
        for name, gradient in zip(parameters, truth, strict=True)
        if name in tried and not _agree(float(squares.get(name, torch.zeros(1)).sum()), gradient)
    }


def _note(recording: Recording, watched: Watched, call: Call) -> Tensor:
    try:
        return recording.note(watched, call)
    except RuntimeError:  # a subclass with other shapes
        nothing = Direct(lambda d: d.new_full((recording.images, 1), math.nan))
        return recording.add(watched, dict.fromkeys(watched.parameters, nothing), call.output)


def _agree(squared: float, gradient: Tensor | None) -> bool:
    wanted = 0.0 if gradient is None else float(gradient.double().square().sum())
    return abs(squared - wanted) <= 1e-3 * max(wanted, squared, 1e-30)
