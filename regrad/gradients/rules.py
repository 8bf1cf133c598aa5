"""How a layer's parameter gradient follows from its input and the gradient of its output, one function a layer type.

A rule is called once per module call with the input x of M = images * copies rows, image-major, and names for each
parameter either

- an :class:`Outer`: the gradient is sum_n rows(D)_n (x) inputs_n over the positions n of all copies of an image, or
- a :class:`Direct`: the gradient itself, summed over positions and copies.

To support a layer type, write one function here and decorate it with ``@rule(Type)``. Types without a rule are
differentiated image by image, exactly, and more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Outer:
    """A gradient of the form sum_n rows(D)_n (x) inputs_n, for each of G groups of channels.

    Attributes:
        inputs: (B, G, n, d_in), n positions over all copies of an image.
        rows: maps the output gradient D to (B, G, n, d_out).
    """

    inputs: Tensor
    rows: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Direct:
    """A gradient that is cheap to form.

    Attributes:
        gradient: maps the output gradient D to (B, number of entries).
    """

    gradient: Callable[[Tensor], Tensor]


Rule = Callable[[Any, Tensor, int], dict[str, "Outer | Direct"]]
RULES: dict[type[nn.Module], Rule] = {}


def rule(*types: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register the decorated function for these module types."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, function))
        return function

    return register


def find_rule(module: nn.Module) -> Rule | None:
    """The rule for the module's type or its nearest parent type that has one, else None.

    A subclass may compute something else: whoever uses a rule checks it against autograd once. A module with
    parameters that the rule does not know (a parametrization, a low-rank update) has none.
    """
    if not {name for name, _ in module.named_parameters(recurse=False)} <= {"weight", "bias"}:
        return None
    if hasattr(module, "parametrizations"):
        return None
    return next((RULES[kind] for kind in type(module).__mro__ if kind in RULES), None)


@rule(nn.Linear)
def linear(module: nn.Linear, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = x W^T + b on (..., d_in): dW = sum_n D_n (x) x_n, db = sum_n D_n."""
    return {
        "weight": Outer(x.reshape(images, 1, -1, module.in_features), _rows(images, module.out_features)),
        "bias": Direct(lambda d: d.reshape(images, -1, module.out_features).sum(1)),
    }


@rule(nn.Conv1d, nn.Conv2d)
def convolution(module: nn.Conv1d | nn.Conv2d, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = W * x + b: a Linear on the unfolded input patches of every position, one for each group of channels."""
    groups, out = module.groups, module.out_channels
    patches = unfolded(module, x)  # (M, C_in * k, P)
    per_group = patches.reshape(images, -1, groups, patches.shape[1] // groups, patches.shape[2])
    inputs = per_group.permute(0, 2, 1, 4, 3).reshape(images, groups, -1, per_group.shape[3])

    def rows(d: Tensor) -> Tensor:
        d = d.reshape(images, -1, groups, out // groups, patches.shape[2])
        return d.permute(0, 2, 1, 4, 3).reshape(images, groups, -1, out // groups)

    return {
        "weight": Outer(inputs, rows),
        "bias": Direct(lambda d: d.reshape(images, -1, out, patches.shape[2]).sum((1, 3))),
    }


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(module: nn.modules.batchnorm._BatchNorm, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = w (x - mean) / sqrt(var + eps) + b with running statistics: dw = sum D x^, db = sum D per channel."""
    assert module.running_mean is not None
    assert module.running_var is not None
    shape = (1, -1, *[1] * (x.dim() - 2))
    scale = (module.running_var + module.eps).rsqrt()
    return _scale_and_shift((x - module.running_mean.view(shape)) * scale.view(shape), images, channel_dim=1)


@rule(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = w x^ + b with x^ normalised over the last dimensions: dw = sum D x^, db = sum D over all other positions."""
    normalized = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    size = normalized[0].numel() if x.dim() == len(module.normalized_shape) else _numel(module.normalized_shape)
    flat = normalized.reshape(images, -1, size)
    return {
        "weight": Direct(lambda d: (d.reshape(flat.shape) * flat).sum(1)),
        "bias": Direct(lambda d: d.reshape(flat.shape).sum(1)),
    }


@rule(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = w x^ + b with x^ normalised over groups of channels: dw = sum D x^, db = sum D per channel."""
    return _scale_and_shift(F.group_norm(x, module.num_groups, eps=module.eps), images, channel_dim=1)


@rule(nn.Embedding)
def embedding(module: nn.Embedding, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y_n = W[x_n]: row v of dW is the sum of D_n over the positions with x_n = v (``padding_idx`` gets none)."""
    index = x.reshape(images, -1, 1).expand(-1, -1, module.embedding_dim)

    def gradient(d: Tensor) -> Tensor:
        d = d.reshape(images, -1, module.embedding_dim)
        table = d.new_zeros(images, module.num_embeddings, module.embedding_dim).scatter_add_(1, index, d)
        if module.padding_idx is not None:
            table[:, module.padding_idx] = 0
        return table.flatten(1)

    return {"weight": Direct(gradient)}


def unfolded(module: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """The patches a convolution multiplies with its weight: (M, C_in * k, P), ordered as ``F.unfold`` does."""
    size, stride, dilation = (_pair(value) for value in (module.kernel_size, module.stride, module.dilation))
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x, padding = F.pad(x, module._reversed_padding_repeated_twice, mode=mode), (0, 0)
    else:
        padding = _pair(module.padding)
        padding = (0, padding[1]) if x.dim() == 3 else padding
    if x.dim() == 3:
        x = x.unsqueeze(2)
    return F.unfold(x, size, dilation, padding, stride)


def _scale_and_shift(normalized: Tensor, images: int, channel_dim: int) -> dict[str, Outer | Direct]:
    channels = normalized.shape[channel_dim]
    normalized = normalized.reshape(images, -1, channels, normalized[0, 0].numel())
    return {
        "weight": Direct(lambda d: (d.reshape(normalized.shape) * normalized).sum((1, 3))),
        "bias": Direct(lambda d: d.reshape(normalized.shape).sum((1, 3))),
    }


def _rows(images: int, width: int) -> Callable[[Tensor], Tensor]:
    return lambda d: d.reshape(images, 1, -1, width)


def _pair(value: int | tuple[int, ...] | str) -> tuple[int, int]:
    """A convolution setting as (vertical, horizontal); one-dimensional ones run along a picture one pixel high."""
    assert not isinstance(value, str)
    values = (value,) if isinstance(value, int) else tuple(value)
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
