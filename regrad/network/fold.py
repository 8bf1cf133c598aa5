"""What is only run forward, made cheaper: BatchNorm folded into the convolution before it.

In eval mode bn(conv(x)) = s (W x + b - mean) + t with s = w / sqrt(var + eps) is a convolution with weight s W and bias
s (b - mean) + t. Where the two follow each other is seen from one forward pass, and checked by the logits of another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regrad.network.alike import computes_as
from regrad.network.copies import plain_attention, private_copy
from regrad.network.hooks import Call, hooked

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def forward_copy(network: nn.Module, example: Tensor) -> nn.Module:
    """A private copy of ``network`` for predictions alone: the same function, folded and laid out for speed."""
    network = convolution_format(private_copy(network))
    fold_batch_norms(network, set(), example[:1])
    return network


def convolution_format(network: nn.Module) -> nn.Module:
    """``network`` with its memory laid out channels-last, what convolutions are fastest in; changed in place.

    By hand, since ``Module.to`` asks this layout of tensors of five dimensions too, which have none.
    """
    if any(isinstance(module, nn.Conv2d) for module in network.modules()):
        for value in (*network.parameters(), *network.buffers()):
            if value.dim() == 4:
                value.data = value.data.contiguous(memory_format=torch.channels_last)
    return network


@torch.no_grad()
def fold_batch_norms(network: nn.Module, keep: set[str], example: Tensor) -> int:
    """Fold BatchNorms into convolutions wherever neither is named in ``keep``; returns how many.

    Args:
        network: a private copy; changed in place. Nothing is changed when the folded network's logits differ.
        keep: names of modules whose parameters are differentiated.
        example: inputs to trace and to check with, (B, channels, H, W).
    """
    with plain_attention():
        pairs = normed_convolutions(network, keep, example)
        if not pairs:
            return 0
        before = network(example)
        undo = [fold_pair(network, conv, norm) for conv, norm in pairs]
        after = network(example)
    if float((after - before).abs().max()) <= 1e-4 * float(before.abs().max().clamp_min(1e-6)):
        return len(pairs)
    for restore in undo:  # a convolution's output is also used without its BatchNorm
        restore()
    return 0


def normed_convolutions(network: nn.Module, keep: set[str], example: Tensor) -> list[tuple[str, str]]:
    """Names of (convolution, BatchNorm) where the one's output is the other's input, each called once."""
    produced: dict[int, tuple[str, Tensor]] = {}
    called: list[str] = []
    pairs: list[tuple[str, str]] = []
    foldable = {
        name: module
        for name, module in network.named_modules()
        if name not in keep and _foldable(module) and not module._forward_hooks and not module._forward_pre_hooks
    }

    def note(name: str, call: Call) -> None:
        called.append(name)
        if isinstance(foldable[name], CONVOLUTIONS):
            produced[id(call.output)] = (name, call.output)  # kept alive, so that no other tensor gets its id
        elif id(call.input) in produced:
            pairs.append((produced[id(call.input)][0], name))

    with hooked(foldable, leave=note):
        network(example)
    return [pair for pair in pairs if all(called.count(name) == 1 for name in pair)]


def _foldable(module: nn.Module) -> bool:
    if module._modules or "weight" not in module._parameters:  # made anew from others, in every call
        return False
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.running_mean is not None and any(computes_as(module, kind) for kind in BATCH_NORMS)
    return any(computes_as(module, kind) for kind in CONVOLUTIONS)


@dataclass(frozen=True)
class Affine:
    """What a BatchNorm makes of the product z = W x of the convolution before it: g r (z + o) + t, for each channel.

    Attributes:
        weight: g.
        inverse: r = 1 / sqrt(var + eps).
        offset: o = b - mean.
        bias: t.
    """

    weight: Tensor
    inverse: Tensor
    offset: Tensor
    bias: Tensor

    @classmethod
    def of(cls, conv: nn.Module, norm: nn.Module) -> Affine:
        """In float64."""
        assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        inverse = (norm.running_var.detach().double() + norm.eps).rsqrt()
        own = (norm.weight, norm.bias) if norm.affine else (torch.ones_like(inverse), torch.zeros_like(inverse))
        offset = -norm.running_mean.detach().double()
        if isinstance(conv.bias, Tensor):
            offset = offset + conv.bias.detach().double()
        return cls(own[0].detach().double(), inverse, offset, own[1].detach().double())

    @property
    def scale(self) -> Tensor:
        """s = g r."""
        return self.weight * self.inverse


@torch.no_grad()
def fold_pair(network: nn.Module, conv_name: str, norm_name: str) -> Callable[[], None]:
    """Fold one pair; returns what undoes it."""
    conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
    assert isinstance(conv, CONVOLUTIONS)
    parent_name, _, own = norm_name.rpartition(".")
    parent = network.get_submodule(parent_name)
    before: list[tuple[nn.Module, str, nn.Module | Tensor | None]] = [
        (conv, "weight", conv.weight),
        (conv, "bias", conv.bias),
        (parent, own, norm),
    ]
    affine = Affine.of(conv, norm)
    weight = conv.weight.double() * affine.scale.view(-1, *[1] * (conv.weight.dim() - 1))
    bias = affine.offset * affine.scale + affine.bias
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=False)
    setattr(parent, own, nn.Identity())

    def undo() -> None:
        for module, name, value in before:
            setattr(module, name, value)

    return undo
