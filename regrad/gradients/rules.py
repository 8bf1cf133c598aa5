"""How a layer's parameter gradient follows from its input and the gradient of its output, one function a layer type.

A rule is called once per module call with the input x of M = images * copies rows, image-major, and names for each
parameter either

- an :class:`Outer`: the gradient is sum_n rows(D)_n (x) inputs_n over the positions n of all copies of an image, or
- a :class:`Direct`: the gradient itself, summed over positions and copies.

To support a layer type, write one function here and decorate it with ``@rule(Type)``. Types without a rule are
differentiated image by image, exactly, and more slowly. A rule is for the types it names alone: a type that merely
inherits from one may compute anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrad.network.alike import SAME, keeps_methods, qualified_name
from regrad.network.hooks import pulled_back


@dataclass(frozen=True)
class Outer:
    """A gradient of the form sum_n rows(D)_n (x) inputs_n, for each of G groups of channels.

    Attributes:
        shape: (G, n, d_in, d_out), n positions over all copies of an image.
        patches: gives what the positions' inputs A of some images are, (B, G, n, d_in), once it is reshaped: a view.
        rows: maps the output gradient D to (B, G, n, d_out).
        gram: makes A A^T, (B, G, n, n), where there is a cheaper way than from A.
        columns: gives which of A's columns the parameter's own d_in are, (d_in,); None: they are in their order.
        by_image: whether a product for each image takes no longer than one of all, if it is large: then A need not be
            held.
        derived: maps sum_n rows(D)_n (x) inputs_n, (T, G d_out, d_in), and sum_n rows(D)_n, (T, G d_out), of T targets
            to numbers, (T, k), whose squares add up to the squared norm of the gradient of each of the module's
            parameters, by their own names; None: the products are the one parameter's gradient.
    """

    shape: tuple[int, int, int, int]
    patches: Callable[[slice], Tensor]
    rows: Callable[[Tensor], Tensor]
    gram: Callable[[], Tensor] | None = None
    columns: Callable[[], Tensor] | None = None
    by_image: bool = False
    derived: Callable[[Tensor, Tensor], dict[str, Tensor]] | None = None

    def inputs(self, part: slice = slice(None)) -> Tensor:
        """A of some images."""
        patches = self.patches(part)
        return patches.reshape(len(patches), *self.shape[:3])


@dataclass(frozen=True)
class Direct:
    """A gradient that is cheap to form.

    Attributes:
        gradient: maps the output gradient D to (B, number of entries).
    """

    gradient: Callable[[Tensor], Tensor]


Rule = Callable[[Any, Tensor, int], dict[str, "Outer | Direct"]]
RULES: dict[type[nn.Module] | str, Rule] = {}


def rule(*types: type[nn.Module] | str) -> Callable[[Rule], Rule]:
    """Register the decorated function for these module types; those of other libraries by their qualified names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, function))
        return function

    return register


def find_rule(module: nn.Module) -> Rule | None:
    """The rule for what the module computes, else None: see :func:`regrad.network.alike.computes_as`.

    Whoever uses a rule tries it against autograd once: a module is not all that can be done with its parameters.
    """
    for base in type(module).__mro__:
        name = qualified_name(base)
        alike = (kind for kind, names in SAME.items() if name in names)
        function = next((RULES[key] for key in (base, name, *alike) if key in RULES), None)
        if function is not None and keeps_methods(module, base):
            return function
    return None


@rule(nn.Linear)
def linear(module: nn.Linear, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = x W^T + b on (..., d_in): dW = sum_n D_n (x) x_n, db = sum_n D_n."""
    inputs = x.reshape(images, 1, -1, module.in_features)
    shape = (1, inputs.shape[2], module.in_features, module.out_features)
    return {
        "weight": Outer(shape, lambda part: inputs[part], lambda d: d.reshape(images, 1, -1, module.out_features)),
        "bias": Direct(lambda d: d.reshape(images, -1, module.out_features).sum(1)),
    }


@rule(nn.Conv1d, nn.Conv2d)
def convolution(module: nn.Conv1d | nn.Conv2d, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = W * x + b: a Linear on the unfolded input patches of every position, one for each group of channels."""
    if any(module._reversed_padding_repeated_twice):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=mode)
    return _convolution(module, x, images)


@rule("timm.layers.conv2d_same.Conv2dSame")
def same_convolution(module: nn.Conv2d, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """The same with TensorFlow's padding: ceil(side / stride) positions, the odd pixel at the right and the bottom."""
    settings = zip(x.shape[2:], _pair(module.kernel_size), _pair(module.stride), _pair(module.dilation), strict=True)
    total = [max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0) for side, k, s, d in settings]
    top, left = total[0] // 2, total[1] // 2
    return _convolution(module, F.pad(x, (left, total[1] - left, top, total[0] - top)), images)


def _convolution(module: nn.Conv1d | nn.Conv2d, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """Of a convolution without padding; a one-dimensional one is one pixel high."""
    x = x.unsqueeze(2) if x.dim() == 3 else x
    groups, out = module.groups, module.out_channels
    size, stride, dilation = _pair(module.kernel_size), _pair(module.stride), _pair(module.dilation)
    height, width = (
        (side - d * (k - 1) - 1) // s + 1 for side, k, s, d in zip(x.shape[2:], size, stride, dilation, strict=True)
    )
    positions = len(x) // images * height * width
    d_in = x.shape[1] // groups * size[0] * size[1]

    # Pixels of one channel after another, or in the order of the memory, which is copied 25 times as fast on a CPU.
    pixels_first = x.stride(1) == 1 < x.stride(3)

    def columns() -> Tensor:
        return torch.arange(d_in, device=x.device).view(*size, -1).movedim(2, 0).flatten()

    def patches(part: slice) -> Tensor:
        # A view of the pixels, so that reshaping it is one copy: F.unfold makes two, and on a GPU a launch an image.
        own = x.unflatten(0, (images, -1))[part].unflatten(2, (groups, -1))
        image, number, group, channel, down, right = own.stride()
        windows = own.as_strided(
            (len(own), groups, own.shape[1], height, width, own.shape[3], *size),
            (
                image,
                group,
                number,
                down * stride[0],
                right * stride[1],
                channel,
                down * dilation[0],
                right * dilation[1],
            ),
            own.storage_offset(),
        )
        return windows.movedim(5, -1) if pixels_first else windows

    def rows(d: Tensor) -> Tensor:
        return _channels_last(d, images).unflatten(2, (groups, out // groups)).transpose(1, 2)

    return {
        "weight": Outer(
            (groups, positions, d_in, out // groups),
            patches,
            rows,
            _pixel_gram(x, images, (height, width), size, stride, dilation) if groups == 1 else None,
            columns if pixels_first else None,
            by_image=x.device.type == "cpu",  # a GPU wants few large calls
        ),
        "bias": Direct(lambda d: _channels_last(d, images).sum(1)),
    }


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
def batch_norm(module: nn.modules.batchnorm._BatchNorm, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = w (x - mean) / sqrt(var + eps) + b with running statistics: dw = sum D x^, db = sum D per channel."""
    assert module.running_mean is not None
    assert module.running_var is not None
    shape = (1, -1, *[1] * (x.dim() - 2))
    scale = (module.running_var + module.eps).rsqrt()
    return _scale_and_shift((x - module.running_mean.view(shape)) * scale.view(shape), images)


def as_scaled(module: nn.modules.batchnorm._BatchNorm, x: Tensor, y: Tensor) -> Tensor:
    """y as it is, differentiated as s x: mapped over targets that is one product, where BatchNorm's takes nine."""
    assert module.running_var is not None
    product = x * ((module.running_var + module.eps).rsqrt() * module.weight).view(1, -1, *[1] * (x.dim() - 2))
    with torch.no_grad():
        return product.copy_(y)


#: For modules of a rule: their output y, made anew from x so that its derivative takes fewer operations when mapped.
REMADE: dict[Rule, Callable[[Any, Tensor, Tensor], Tensor]] = {batch_norm: as_scaled}


@rule("timm.layers.norm_act.BatchNormAct2d")
def batch_norm_and_activation(module: Any, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = act(drop(z)), z = w x^ + b: a BatchNorm's, with the gradient of z, which is made from that of y."""
    inner = batch_norm(module, x, images)

    with torch.enable_grad():
        z = F.batch_norm(x, module.running_mean, module.running_var, module.weight, module.bias, eps=module.eps)
        z = z.detach().requires_grad_(True)
        y = module.act(module.drop(z))

    @lru_cache(maxsize=1)  # weight and bias ask for the same one
    def before(d: Tensor) -> Tensor:
        (gradient,) = pulled_back(d, y, [z], retain_graph=True)
        assert gradient is not None
        return gradient

    return {name: Direct(_after(before, factor)) for name, factor in inner.items() if isinstance(factor, Direct)}


def _after(first: Callable[[Tensor], Tensor], factor: Direct) -> Callable[[Tensor], Tensor]:
    return lambda d: factor.gradient(first(d))


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


@rule("torchvision.models.convnext.LayerNorm2d", "timm.layers.norm.LayerNorm2d")
def channels_first_layer_norm(module: nn.LayerNorm, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = w x^ + b with x^ normalised over the channels of (B, C, H, W), at every pixel by itself."""
    normalized = F.layer_norm(x.movedim(1, -1), module.normalized_shape, eps=module.eps).movedim(-1, 1)
    return _scale_and_shift(normalized, images)


@rule(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    """y = w x^ + b with x^ normalised over groups of channels: dw = sum D x^, db = sum D per channel."""
    return _scale_and_shift(F.group_norm(x, module.num_groups, eps=module.eps), images)


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


Pair = tuple[int, int]


def _pixel_gram(
    x: Tensor, images: int, out: Pair, size: Pair, stride: Pair, dilation: Pair
) -> Callable[[], Tensor] | None:
    """A A^T of a convolution from the Gram of its pixels, without unfolding: a sum of shifted windows of X X^T.

    (A A^T)[p, q] = sum_o x[s p + d o] . x[s q + d o] over the offsets o of the kernel. X X^T has (pixels)^2 C
    multiplications where A A^T from the patches has (positions)^2 C k; None where that is more.
    """
    height, width = x.shape[2:]
    offsets = [(i * dilation[0], j * dilation[1]) for i in range(size[0]) for j in range(size[1])]
    if (height * width) ** 2 >= (out[0] * out[1]) ** 2 * len(offsets) and len(offsets) > 1:
        return None

    def window(offset: int, axis: int) -> slice:
        return slice(offset, offset + (out[axis] - 1) * stride[axis] + 1, stride[axis])

    def gram() -> Tensor:
        pixels = _channels_last(x, images)
        number = len(x) // images
        k = (pixels @ pixels.transpose(1, 2)).reshape(images, number, height, width, number, height, width)
        total = sum(k[:, :, window(i, 0), window(j, 1), :, window(i, 0), window(j, 1)] for i, j in offsets)
        assert isinstance(total, Tensor)
        side = number * out[0] * out[1]
        return total.reshape(images, 1, side, side)

    return gram


def _channels_last(x: Tensor, images: int) -> Tensor:
    """(M, C, ...) as (images, positions over all copies, C): a view where the memory is channels-last already."""
    return x.movedim(1, -1).reshape(images, -1, x.shape[1])


def _scale_and_shift(normalized: Tensor, images: int) -> dict[str, Outer | Direct]:
    normalized = _channels_last(normalized, images)
    return {
        "weight": Direct(lambda d: (_channels_last(d, images) * normalized).sum(1)),
        "bias": Direct(lambda d: _channels_last(d, images).sum(1)),
    }


def _pair(value: int | tuple[int, ...]) -> Pair:
    """A convolution setting as (vertical, horizontal)."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (1, values[0]) if len(values) == 1 else (values[0], values[1])


def _numel(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
