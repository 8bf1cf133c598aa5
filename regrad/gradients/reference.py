"""The definition, written down: one image, one class, one backward pass at a time, in float64.

||a * g_c||^2 with g_c = 1/(N+1) sum_i grad_theta log p(c | x_i) (Eq. 13) and block l scaled by a_l (Eq. 12). Slow and
obviously right: the oracle of every faster engine, and what speed is measured against.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regrad.gradients.layers import Layer, layer_parameters
from regrad.gradients.norms import ClassNorms
from regrad.network.copies import computes_in, floating_type, plain_attention
from regrad.network.hooks import requiring_grad


class ReferenceEngine:
    """Squared class-gradient norms by plain autograd.

    Args:
        network: a private copy in eval mode; it is converted to ``dtype`` in place.
        layers: from :func:`regrad.gradients.layers.find_layers`.
        weights: a_l for each of ``layers``, (S, len(layers)), S weightings at once.
        probe: one or more inputs; a network that does not take them in ``dtype``, since it makes numbers of another
            type itself, stays in its own. None: it is known to.
    """

    bytes_per_input, bytes_beside = 1, 0  # images go through one at a time, however many there are
    most_inputs: int | None = None
    without_rule: tuple[str, ...] = ()  # it needs none

    def __init__(
        self,
        network: nn.Module,
        layers: list[Layer],
        weights: Tensor,
        probe: Tensor | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        fits = probe is None or computes_in(dtype, network, probe)
        self.network = network.to(dtype) if fits else network
        self.dtype = floating_type(self.network)
        self.remarks = (
            () if self.dtype == dtype else (f"in {self.dtype}, since the network does not compute in {dtype}",)
        )
        self.weights = weights.double().cpu().reshape(-1, len(layers))
        self._groups = layer_parameters(self.network, layers)

    def afford(self, memory: int) -> None:
        """Take no more: it goes one image and one class at a time."""

    def bytes_of(self, inputs: int) -> int:
        """Memory that so many copies at once take."""
        return inputs * self.bytes_per_input

    def twins(self, count: int) -> list[ReferenceEngine]:
        """None: it goes one image and one class at a time."""
        return []

    def convert(self, dtype: torch.dtype) -> None:
        """Stay as it is: whatever the others compute in, this is what they are measured against."""

    def __call__(
        self, copies: Tensor, targets: Callable[[Tensor], Tensor] | None = None, classes: Tensor | bool = True
    ) -> ClassNorms:
        """Norms for ``copies`` (B, N+1, channels, H, W), what the network receives, the clean image first.

        Args:
            copies: what the network receives.
            targets: maps clean log-probabilities (B, C) to further target distributions (B, E, C), appended to the
                classes.
            classes: which classes of each image, int64 (B, T); True: all of them, False: none.

        Source: Wang & Ji 2024, Eqs. 12 and 13.
        """
        parameters = [parameter for group in self._groups for parameter in group]
        logits, rows = [], []
        with requiring_grad(parameters), torch.enable_grad(), plain_attention():
            for b, image in enumerate(copies.to(self.dtype)):
                logits.append(self.network(image))
                log_p = logits[-1].log_softmax(1)
                mean = log_p.mean(0)
                values = mean[classes[b]] if isinstance(classes, Tensor) else mean[: len(mean) * classes]
                if targets is not None:
                    values = torch.cat([values, targets(log_p[:1].detach().double())[0].to(log_p) @ mean])
                for value in values:
                    gradients = iter(torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True))
                    rows.append([sum(_squared(next(gradients)) for _ in group) for group in self._groups])
        per_layer = torch.tensor(rows, dtype=torch.float64).reshape(len(copies), -1, len(self._groups))
        squared = torch.einsum("sl,bcl->sbc", self.weights.square(), per_layer)
        return ClassNorms(squared.to(copies.device), torch.stack(logits).detach().double())


def _squared(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(gradient.double().square().sum())
