"""The last layer in closed form: its class gradients follow from one forward pass, for all classes at once.

For logits z_i = W h_i + b and a target distribution q, with k(i, j) = h_i . h_j + 1 (the 1 is the bias),

    ||g_q||^2 = 1/(N+1)^2 sum_ij (q - p_i) . (q - p_j) k(i, j).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.network.alike import computes_as
from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked, pulled_back, requiring_grad
from regrad.network.memory import in_pieces


def find_head(network: nn.Module, probe: Tensor) -> str | None:
    """Name of the Linear layer whose output the logits are, if layer and weight serve for nothing else; else None.

    Args:
        network: a private copy in eval mode.
        probe: one or more inputs (B, channels, H, W).
    """
    calls: list[tuple[str, Call]] = []
    linears = {name: module for name, module in network.named_modules() if _is_linear(module)}
    with torch.no_grad(), plain_attention(), hooked(linears, leave=lambda name, call: calls.append((name, call))):
        logits = network(probe)
    last = [(name, call.input) for name, call in calls if call.output is logits]
    if len(last) != 1 or sum(name == last[0][0] for name, _ in calls) != 1:
        return None
    name, h = last[0]
    fits = h.dim() == 2 and h.dtype == logits.dtype == linears[name].weight.dtype  # autocast makes others of them
    return name if fits and _used_once(network, name, h, probe) else None


def _is_linear(module: nn.Module) -> bool:
    """Whether it is a Linear layer whose weight is a parameter, and not made of others in every call."""
    return computes_as(module, nn.Linear) and isinstance(module._parameters.get("weight"), nn.Parameter)


def without_head(network: nn.Module, name: str) -> nn.Linear:
    """The head called ``name``, which ``network`` from now on leaves out: it returns the head's input."""
    module = network.get_submodule(name)
    assert isinstance(module, nn.Linear)
    module.forward = _identity  # type: ignore[method-assign]
    return module


@dataclass(frozen=True)
class Head:
    """A last Linear layer, z = W h + b.

    Attributes:
        weight: W, float64 (C, d).
        bias: b, float64 (C,); None where it has none.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, features: Tensor) -> Tensor:
        """The logits, float64 (B, C), of ``features`` (B, d)."""
        return F.linear(features, self.weight, self.bias)


class HeadInput:
    """Logits and what the head makes them of, h, from one forward pass.

    Args:
        network: in eval mode; it is run as it is.
        name: of its head, from :func:`find_head`.

    Attributes:
        layer: the head by its values.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        module = network.get_submodule(name)
        assert isinstance(module, nn.Linear)
        self._network, self._head = network, module
        bias = None if module.bias is None else module.bias.detach().double()
        self.layer = Head(module.weight.detach().double(), bias)

    def __call__(self, x: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, C) and h (B, d), float64, of inputs (B, channels, H, W), of which ``most`` go at once."""
        seen: list[Tensor] = []
        with hooked({0: self._head}, leave=lambda _, call: seen.append(call.input)):
            logits = in_pieces(self._network, most, x)
        return logits.double(), torch.cat(seen).double()


def _identity(input: Tensor) -> Tensor:
    return input


def _used_once(network: nn.Module, name: str, h: Tensor, probe: Tensor) -> bool:
    """Whether logits and their gradient are those of one use of the layer: a function may use its weight once more."""
    module = network.get_submodule(name)
    assert isinstance(module, nn.Linear)
    with requiring_grad([module.weight]), torch.enable_grad(), plain_attention():
        logits = network(probe)
        if not logits.requires_grad:
            return False
        cotangent = torch.linspace(-1, 1, logits.shape[1]).to(logits).expand_as(logits)
        (gradient,) = pulled_back(cotangent, logits, [module.weight])
    if gradient is None:
        return False
    expected = F.linear(h, module.weight.detach(), module.bias)
    return _close(logits.detach(), expected) and _close(gradient, cotangent.T @ h)


def _close(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max()) <= 1e-3 * float(b.abs().max().clamp_min(1e-30))


def squared_norms(h: Tensor, p: Tensor, extra: Tensor, bias: bool = True) -> Tensor:
    """||g_q||^2 of a Linear head for the C classes, then the ``extra`` targets.

    Args:
        h: the head's input, (B, N+1, d).
        p: probabilities of every copy, float64 (B, N+1, C).
        extra: further target distributions, float64 (B, E, C).
        bias: whether the head's bias counts.

    Returns:
        float64 (B, C + E).
    """
    h = h.double()
    kernel = (h @ h.transpose(1, 2) + float(bias)) / h.shape[1] ** 2
    # q - p_i = w + v_i with w = q - p_0 and v_i = p_0 - p_i, both from a = p_0 - e_y for the most probable class y, so
    # that what is small where the network is sure of y is no difference of what is not. For a class w = e_c - e_y - a.
    y = p[:, 0].argmax(1)
    apart = _from_class(p, y)
    a, v = apart[:, :1], apart[:, :1] - apart
    base = (kernel * (v @ v.transpose(1, 2))).sum((1, 2))
    total, rows = kernel.sum((1, 2)), kernel.sum(2)
    w = _from_class(extra, y) - a
    own = 2.0 * _other_than(a, y) - 2 * _beside_class(a, y) + a.square().sum(2, keepdim=True)
    own = torch.cat([own[:, 0], w.square().sum(2)], dim=1)
    overlap = torch.cat([_beside_class(v, y) - v @ a.transpose(1, 2), v @ w.transpose(1, 2)], dim=2)
    squared = own * total[:, None] + 2 * torch.einsum("bi,bit->bt", rows, overlap) + base[:, None]
    return squared.clamp_min_(0)


def _from_class(q: Tensor, y: Tensor) -> Tensor:
    """q - e_y of distributions (B, T, C), each of whose entries is as exact as those of q."""
    index = _index(q, y)
    others = q.scatter(2, index, 0)
    return others.scatter(2, index, -others.sum(2, keepdim=True))


def _beside_class(values: Tensor, y: Tensor) -> Tensor:
    """(e_c - e_y) . values for every class c, (B, T, C)."""
    return values - values.gather(2, _index(values, y))


def _other_than(values: Tensor, y: Tensor) -> Tensor:
    """1 for every class but y, (B, T, C)."""
    return torch.ones_like(values).scatter(2, _index(values, y), 0)


def _index(values: Tensor, y: Tensor) -> Tensor:
    return y[:, None, None].expand(-1, values.shape[1], 1)
