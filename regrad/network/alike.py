"""Whether a module computes what a type does: that it inherits from the type says nothing."""

from __future__ import annotations

from functools import cache
from types import FunctionType

from torch import nn

#: Types of other libraries that compute what a type of PyTorch's computes, by their qualified names.
SAME: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("timm.layers.linear.Linear",),
    nn.LayerNorm: ("timm.layers.norm.LayerNorm",),
    nn.GroupNorm: ("timm.layers.norm.GroupNorm", "timm.layers.norm.GroupNorm1"),
}

_BESIDE_THE_FUNCTION = {
    *("extra_repr", "reset_parameters", "reset_running_stats", "train", "eval", "half", "float", "double", "to"),
    *("_load_from_state_dict", "_save_to_state_dict", "_apply"),
}


def qualified_name(kind: type) -> str:
    """Where the type is defined, and what it is called there."""
    return f"{kind.__module__}.{kind.__qualname__}"


def computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``module`` is a ``kind``, or of a type that :data:`SAME` says is alike, with no method of its own."""
    return any(
        (base is kind or qualified_name(base) in SAME.get(kind, ())) and keeps_methods(module, base)
        for base in type(module).__mro__
        if issubclass(base, nn.Module)
    )


def keeps_methods(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether every method that makes what a ``kind`` computes is the type's, in the module's type and in itself."""
    own, held = type(module), vars(module)
    return all(name not in held and getattr(own, name) is getattr(kind, name) for name in _methods(kind))  # type: ignore[arg-type]


@cache
def _methods(kind: type[nn.Module]) -> frozenset[str]:
    """Names of the functions that ``kind`` and what it inherits from define, :class:`nn.Module` aside."""
    defined = {
        name
        for base in kind.__mro__
        if issubclass(base, nn.Module) and base is not nn.Module
        for name, value in vars(base).items()
        if isinstance(value, FunctionType) and not name.startswith("__")
    }
    return frozenset((defined | {"__call__", "forward"}) - _BESIDE_THE_FUNCTION)
