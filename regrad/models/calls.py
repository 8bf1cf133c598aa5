"""How a network is called: with images alone, copies of them where it needs some, and no memory of earlier calls.

Each is a hook on a shallow copy, as in :mod:`.outputs`: the caller's network, its parameters and their names stay as
they are.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from regrad.errors import UsageError
from regrad.network.hooks import requiring_grad, with_own_hooks

_PIXELS = "pixel_values"  # transformers' name of a picture's place among a network's inputs
_OWN = ("_parameters", "_buffers", "_modules")


def taking_images(network: nn.Module) -> nn.Module:
    """``network``, or a shallow copy that hands its first argument on as ``pixel_values`` where forward has no place.

    Raises:
        UsageError: its forward needs more than images.
    """
    try:
        parameters = list(inspect.signature(network.forward).parameters.values())
    except (TypeError, ValueError):  # a program without a signature
        return network
    places = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
    variadic = [item for item in parameters if item.kind in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]
    first = places[0].name if places else None
    by_name = first != _PIXELS and any(item.name == _PIXELS for item in parameters)
    by_name = by_name or (first is None and not any(item.kind is item.VAR_POSITIONAL for item in variadic))
    taken = _PIXELS if by_name else first
    needed = [
        item.name for item in parameters if item.default is item.empty and item.name != taken and item not in variadic
    ]
    if needed:
        raise UsageError(f"wants {', '.join(needed)} besides the images: wrap it in a module that takes images alone")
    if not by_name:
        return network
    shallow = with_own_hooks(network)
    shallow.register_forward_pre_hook(_by_keyword, with_kwargs=True)
    return shallow


def _by_keyword(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return ((), {_PIXELS: args[0], **kwargs}) if args else (args, kwargs)


def depending_on_images_alone(network: nn.Module, images: Tensor) -> nn.Module:
    """``network``, or a shallow copy whose calls leave no trace: neither in the images, nor in the network.

    Where forward writes into its images (``x.sub_(mean)``), it is given copies. What it makes of its parameters and
    keeps for the next call, as timm's LeViT does with the biases of its attention, is made anew in every call: kept, it
    would stand for other parameters, and have a gradient once at most.

    Args:
        images: one or more, to try it with.
    """
    if isinstance(network, torch.jit.ScriptModule):
        return network
    kept = _kept_between_calls(network, images)  # first: what a call without gradients leaves could not be told
    given = images.clone()
    network(given)
    writes = not torch.equal(given, images)
    if not kept and not writes:
        return network
    shallow = with_own_hooks(network)
    if writes:
        shallow.register_forward_pre_hook(_copied, with_kwargs=True)
    if kept:
        forget = _Forgetting(kept)
        forget(shallow)
        shallow.register_forward_pre_hook(forget)
        shallow.register_forward_hook(forget)  # a network with a graph in it could not be copied
    return shallow


def _copied(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return tuple(_copy(value) for value in args), {name: _copy(value) for name, value in kwargs.items()}


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


# -- what is kept between calls --------------------------------------------------------------------------------------

_Place = tuple[str, str]  # a module and its attribute


class _Absent:
    """The value of an attribute that is not there."""


@dataclass(frozen=True)
class _Forgetting:
    """A hook that sets attributes of a network's modules to what they were before any call."""

    kept: tuple[tuple[str, str, Any], ...]  # module, attribute, its value

    def __call__(self, network: nn.Module, *_: Any) -> None:
        for name, attribute, value in self.kept:
            module = network.get_submodule(name)
            if value is not _Absent:
                setattr(module, attribute, copy.copy(value))
            elif hasattr(module, attribute):
                delattr(module, attribute)


def _kept_between_calls(network: nn.Module, images: Tensor) -> tuple[tuple[str, str, Any], ...]:
    """Module, attribute and first value of what the second of two calls, with gradients, still has of the first."""
    before = {place: _without_graph(value) for place, value in _attributes(network)}
    try:
        differentiable = [value for value in network.parameters() if value.is_floating_point()]
        with torch.enable_grad(), requiring_grad(differentiable):
            network(images.clone())
            first = _made_of_parameters(network)
            network(images.clone())
    except Exception:  # it can be called without gradients alone, which is told where they are asked for
        return ()
    return tuple(
        (*place, before.get(place, _Absent))
        for place, made in _made_of_parameters(network).items()
        if any(tensor is earlier for tensor in made for earlier in first.get(place, ()))
    )


def _attributes(network: nn.Module) -> Iterator[tuple[_Place, Any]]:
    for name, module in network.named_modules():
        for attribute, value in vars(module).items():
            if attribute not in _OWN:
                yield (name, attribute), value


def _made_of_parameters(network: nn.Module) -> dict[_Place, list[Tensor]]:
    """Where there are tensors with a graph behind them, and which."""
    made = {place: list(filter(_has_graph, tree_leaves(value))) for place, value in _attributes(network)}
    return {place: tensors for place, tensors in made.items() if tensors}


def _has_graph(value: Any) -> bool:
    return isinstance(value, Tensor) and value.grad_fn is not None


def _without_graph(value: Any) -> Any:
    """``value`` as before any call: a tensor with a graph behind it is from one; an entry of a dict goes with it."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if not any(map(_has_graph, tree_leaves(item)))}
    return tree_map(lambda leaf: None if _has_graph(leaf) else leaf, value)
