"""TensorFloat-32 where there is no GPU that has it: what its rounding changes, and nothing of its speed.

    x~ = x with 10 bits of mantissa, to the nearest, ties away from zero,      product(a, b) = a~ b~, summed in float32.

Source: NVIDIA's PTX instruction set, ``cvt.rna.tf32.f32``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from regrad.network.operations import Operations

_DROPPED = 13  # bits of float32's 23
_aten = torch.ops.aten
#: Operation -> where its factors stand among its arguments; what is added to a product is not rounded.
_FACTORS: dict[Any, slice] = {
    _aten.mm.default: slice(0, 2),
    _aten.bmm.default: slice(0, 2),
    _aten.linear.default: slice(0, 2),
    _aten.matmul.default: slice(0, 2),
    _aten.addmm.default: slice(1, 3),
    _aten.baddbmm.default: slice(1, 3),
    _aten.convolution.default: slice(0, 2),
    _aten.convolution_backward.default: slice(0, 3),
}


def rounded(x: Tensor) -> Tensor:
    """x~ of a float32 tensor of finite numbers."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << _DROPPED - 1)) >> _DROPPED << _DROPPED).view(torch.float32).view_as(x)


@contextmanager
def emulated() -> Iterator[None]:
    """Every matrix product and convolution of float32 numbers meanwhile, in either direction, rounds its factors."""
    with _Rounding(), sdpa_kernel(SDPBackend.MATH):  # whose products are seen from here
        yield


def rounded_factors(operation: Callable[..., Any], arguments: Sequence[Any]) -> list[Any]:
    """The ``arguments`` of ``operation``, with the float32 factors of its products rounded, if it makes products."""
    factors = _FACTORS.get(operation, slice(0, 0))
    rounding = list(arguments)
    rounding[factors] = [
        rounded(each) if isinstance(each, Tensor) and each.dtype == torch.float32 else each
        for each in rounding[factors]
    ]
    return rounding


class _Rounding(Operations):
    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return function(*rounded_factors(function, args), **(kwargs or {}))
