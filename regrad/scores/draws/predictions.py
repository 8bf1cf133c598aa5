"""Predictions of a perturbed network, or of a perturbed image: what perturbation scores are functions of.

Each source gives log-probabilities (B, K, C) for what the network receives, (B, channels, H, W), and the images' ids.
What an image gets depends on (seed, id) alone, and parameter draws on the seed alone: not on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from regrad import perturb
from regrad.errors import UsageError, require
from regrad.network.copies import plain_attention, private_copy
from regrad.network.fold import convolution_format, forward_copy
from regrad.network.hooks import Call, hooked
from regrad.network.memory import even_slices, in_pieces, inputs_kept, saved_for_backward

DROPOUT_PLACES = ("all", "last")
PredictionSource = Callable[[Tensor, Sequence[str]], Tensor]


@dataclass(frozen=True)
class DrawSettings:
    """How predictions are perturbed.

    The paper names no values. ``theta_sigma`` is small enough for the quadratic regime of its Proposition 3.5, in which
    the ranking does not depend on it, and large enough for float32; a dropout rate of 0.1 changes few predictions of a
    network that was not trained with it; ten draws cost as much as the ten noisy copies.

    Attributes:
        draws: K.
        theta_sigma: deviation of every parameter.
        dropout_rate: share of the features set to 0.
        dropout_at: ``all``: before every convolution and Linear layer but the first; ``last``: before the last one.
            Whole channels are dropped before convolutions, and whole features over all tokens before Linear layers.
        seed: of all draws.
        memory: bytes that parameter draws may be kept in, instead of being drawn again for each batch, and that the
            graph of an adversarial step may take.
    """

    draws: int = 10
    theta_sigma: float = 1e-3
    dropout_rate: float = 0.1
    dropout_at: str = "all"
    seed: int = 0
    memory: int = 1 << 30

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: a setting is out of its range.
        """
        checks = {
            f"draws {self.draws}: must be a whole number, 1 or larger": isinstance(self.draws, int) and self.draws > 0,
            f"theta sigma {self.theta_sigma}: must be 0 or larger": 0 <= self.theta_sigma < float("inf"),
            f"dropout rate {self.dropout_rate}: must be at least 0 and below 1": 0 <= self.dropout_rate < 1,
            f"dropout at {self.dropout_at!r}: one of {', '.join(DROPOUT_PLACES)}": self.dropout_at in DROPOUT_PLACES,
        }
        require(checks)


class ParameterDraws:
    """theta + theta_sigma d_k with d_k ~ N(0, I), k = 1..K, over all parameters; the same for every image."""

    def __init__(self, network: nn.Module, settings: DrawSettings, steps: Tensor, probe: Tensor) -> None:
        self._network, self._settings = convolution_format(private_copy(network)), settings
        self._most = inputs_kept(self._network, probe)
        size = sum(value.numel() * value.element_size() for value in self._network.parameters())
        kept = settings.draws * size <= settings.memory
        self._kept = [self._draw(k) for k in range(settings.draws)] if kept else None

    def __call__(self, x: Tensor, ids: Sequence[str]) -> Tensor:
        """log p, float64 (B, K, C)."""
        draws = (self._kept[k] if self._kept else self._draw(k) for k in range(self._settings.draws))
        with plain_attention():
            return torch.stack([in_pieces(partial(self._of, draw), self._most, x) for draw in draws], 1)

    def _of(self, draw: dict[str, Tensor], x: Tensor) -> Tensor:
        return _log_p(functional_call(self._network, draw, (x,)))

    def _draw(self, k: int) -> dict[str, Tensor]:
        drawn = {}
        for name, value in self._network.named_parameters():
            key = perturb.keys(self._settings.seed, [f"{k}:{name}"], purpose="parameters")
            noise = perturb.normal(key, 1, value.numel())[0, 0].reshape(value.shape)
            drawn[name] = value.detach() + self._settings.theta_sigma * noise.to(value)
        return drawn


class DropoutDraws:
    """K masks an image, x -> x m / (1 - rate) with m ~ Bernoulli(1 - rate), before the layers of ``dropout_at``.

    Raises:
        UsageError: the network has no layer to put dropout before.
    """

    def __init__(self, network: nn.Module, settings: DrawSettings, steps: Tensor, probe: Tensor) -> None:
        self._network, self._settings = forward_copy(network, probe), settings
        self._most = inputs_kept(self._network, probe)
        called = self._called(probe)
        places = called[1:] if settings.dropout_at == "all" else called[1:][-1:]
        if not places:
            raise UsageError(
                f"inserted_dropout: {type(network).__name__} has one layer only: nothing to drop before it"
            )
        self._places = {name: self._network.get_submodule(name) for name in places}

    def __call__(self, x: Tensor, ids: Sequence[str]) -> Tensor:
        """log p, float64 (B, K, C)."""
        with plain_attention():
            draws = range(self._settings.draws)
            return torch.stack([in_pieces(partial(self._predict, k), self._most, x, ids) for k in draws], 1)

    def _predict(self, draw: int, x: Tensor, ids: Sequence[str]) -> Tensor:
        def drop(name: str, call: Call) -> Call:
            return call.with_input(call.input * self._mask(name, call.input, ids, draw))

        with hooked(self._places, enter=drop):
            return _log_p(self._network(x))

    def _mask(self, name: str, x: Tensor, ids: Sequence[str], draw: int) -> Tensor:
        """What the input ``x`` of a layer is multiplied with: a number for each image and channel or feature."""
        features, axis = (x.shape[-1], -1) if isinstance(self._places[name], nn.Linear) else (x.shape[1], 1)
        key = perturb.keys(self._settings.seed, ids, purpose=f"dropout:{draw}:{name}")
        rate = self._settings.dropout_rate
        mask = (perturb.uniform(key, 1, features)[:, 0] >= rate) / (1 - rate)
        shape = [len(x), *[1] * (x.dim() - 1)]
        shape[axis] = features
        return mask.repeat_interleave(len(x) // len(ids), 0).reshape(shape).to(x)

    def _called(self, probe: Tensor) -> list[str]:
        """Convolutions and Linear layers in the order of their first call."""
        names: dict[str, None] = {}
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
        layers = {name: module for name, module in self._network.named_modules() if isinstance(module, kinds)}

        def note(name: str, call: Call) -> None:
            names.setdefault(name)

        with torch.no_grad(), plain_attention(), hooked(layers, enter=note):
            self._network(probe)
        return list(names)


class AdversarialDraws:
    """x + t s sign(grad_x CE(f(x), argmax f(x))) for K values t, evenly spaced in [-1, 1]: FGSM forth and back."""

    def __init__(self, network: nn.Module, settings: DrawSettings, steps: Tensor, probe: Tensor) -> None:
        self._network, self._steps = forward_copy(network, probe), steps
        self._most = inputs_kept(self._network, probe)
        with plain_attention(), torch.enable_grad(), saved_for_backward(self._network) as saved:
            self._network(probe.detach().requires_grad_(True))
        fitting = max(1, settings.memory * len(probe) // (2 * sum(saved.values()) + 1))
        self._images = min(fitting, self._most or fitting)
        self._offsets = torch.linspace(-1, 1, settings.draws).tolist() if settings.draws > 1 else [1.0]

    def __call__(self, x: Tensor, ids: Sequence[str]) -> Tensor:
        """log p, float64 (B, K, C)."""
        with plain_attention():
            gradient = torch.cat([self._gradient(x[part]) for part in even_slices(len(x), self._images)])
            step = self._steps.to(x) * gradient.sign()
            return torch.stack([in_pieces(self._of, self._most, x + offset * step) for offset in self._offsets], 1)

    def _of(self, x: Tensor) -> Tensor:
        return _log_p(self._network(x))

    def _gradient(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            logits = self._network(leaf)
            loss = F.cross_entropy(logits, logits.argmax(1), reduction="sum")
            return torch.autograd.grad(loss, leaf)[0]


SOURCES: dict[str, Any] = {
    "parameters": ParameterDraws,
    "dropout": DropoutDraws,
    "adversarial": AdversarialDraws,
}


def build(source: str, network: nn.Module, settings: DrawSettings, steps: Tensor, probe: Tensor) -> PredictionSource:
    """The source called ``source``.

    Args:
        network: the caller's; a copy is made.
        steps: s of the adversarial steps in what the network receives, broadcast over (channels, H, W).
        probe: inputs to find layers with, (B, channels, H, W).
    """
    made: PredictionSource = SOURCES[source](network, settings, steps, probe)
    return made


def _log_p(logits: Tensor) -> Tensor:
    return logits.double().log_softmax(1)
