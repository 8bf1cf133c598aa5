"""Private copies of a network: nothing done to one can be seen on the network of the caller."""

from __future__ import annotations

import copy
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.network.alike import qualified_name
from regrad.network.modes import evaluating, set_evaluating

#: Wrappers that compute what they hold, and by which name they hold it.
WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
)
_ROUNDING = 10  # of a type: as far as two ways to the same logits may lie apart
_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")
#: What cannot be copied, has nothing to do with a network's function, and may be held by two.
_SHARED = (ModuleType, io.IOBase, type(threading.Lock()), type(threading.RLock()))

#: Of these are most attributes, and none holds another.
_PLAIN = frozenset({type(None), bool, int, float, str, Tensor, nn.Parameter})


def private_copy(network: nn.Module, copied: dict[int, Any] | None = None) -> nn.Module:
    """``network`` in eval mode with parameters that share memory but need no gradient, and in-place layers off.

    Hooks, modes and buffers of the copy are its own, so nothing done to it can be seen on the caller's network. Its
    forward hooks come along, since they may be part of the function; backward hooks do not, since no function has them.
    What is only wrapped, to run on several devices or to be compiled, is taken out of its wrapper.

    Args:
        network: whose copy is made.
        copied: gets what stands for what in the copy, for ``copy.deepcopy`` of something that holds the network.

    Raises:
        UsageError: it cannot be copied.
    """
    try:
        memo = {} if copied is None else copied
        memo |= {id(value): _private(value) for value in network.parameters()}
        held = [value for module in network.modules() for value in _values(vars(module))]
        memo |= _attributes(held)
        functions = _rebound(network, held, memo)
        _unwrap(network, memo)
        _fill(functions, memo)
        clone = copy.deepcopy(network, memo)
    except Exception as error:
        raise UsageError(
            f"{type(network).__name__} cannot be copied (copy.deepcopy), which scoring needs so that your network "
            f"stays as it is: {error}"
        ) from error
    for module in clone.modules():
        for name in _BACKWARD_HOOKS:
            getattr(module, name, {}).clear()
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    set_evaluating(clone)
    return clone


def check_copy(network: nn.Module, clone: nn.Module, probe: Tensor) -> None:
    """Refuse a network whose private copy is another function: what is scored has to be what was given.

    A module that a function finds by a global name, say, is not in the copy, and has the mode it was left in.
    """
    like = next((value for value in network.parameters() if value.is_floating_point()), probe)
    with torch.no_grad(), plain_attention(), evaluating(network):
        wanted = network(probe.to(like)).double().cpu()
        difference = (clone(probe).double().cpu() - wanted).abs().max()
    tolerance = max(1e-3, _ROUNDING * torch.finfo(probe.dtype).eps)
    if not difference <= tolerance * wanted.abs().max().clamp_min(1e-6):
        raise UsageError(
            f"{type(network).__name__}: a copy of it (copy.deepcopy) gives other logits, so that it cannot be scored: "
            "does its forward use modules or tensors that are no part of it, such as global ones?"
        )


def floating_type(network: nn.Module) -> torch.dtype:
    """What ``network`` computes in: the type of its first parameter that is no whole number."""
    types = (value.dtype for value in network.parameters() if value.is_floating_point())
    return next(types, torch.float32)


def computes_in(dtype: torch.dtype, network: nn.Module, probe: Tensor) -> bool:
    """Whether ``network``, a private copy, takes ``probe`` in another type: it may make numbers of one type itself."""
    try:
        with torch.no_grad(), plain_attention():
            private_copy(network).to(dtype)(probe[:1].to(dtype))
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    return True


@contextmanager
def plain_attention() -> Iterator[None]:
    """Run attention through its modules: the fused fast path skips the sub-modules that are to be watched."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _private(value: nn.Parameter) -> nn.Parameter:
    # What was made in inference mode can never be differentiated; its copy can.
    return nn.Parameter(value.clone() if value.is_inference() else value.detach(), requires_grad=False)


def _attributes(held: list[Any]) -> dict[int, Any]:
    """For ``copy.deepcopy``: attributes of modules that it does not take, and what stands for them in the copy."""
    shared = {id(value): value for value in held if isinstance(value, _SHARED)}
    tensors = [value for value in held if isinstance(value, Tensor) and not isinstance(value, nn.Parameter)]
    return shared | {
        id(value): value.detach().clone() for value in tensors if value.grad_fn is not None or value.is_inference()
    }


def _values(value: Any, inside: frozenset[int] = frozenset()) -> Iterator[Any]:
    """What containers hold, to any depth, without modules."""
    if type(value) in _PLAIN:
        yield value
    elif isinstance(value, Mapping | list | tuple | set):
        if id(value) not in inside:
            for item in value.values() if isinstance(value, Mapping) else value:
                yield from _values(item, inside | {id(value)})
    elif not isinstance(value, nn.Module):
        yield value


# -- functions that hold modules ---------------------------------------------------------------------------------------


def _rebound(network: nn.Module, held: list[Any], memo: dict[int, Any]) -> list[FunctionType]:
    """For ``copy.deepcopy``: functions that hold modules of ``network``, and in their place others, still empty.

    A ``forward`` or a hook that was put on a module as a function would go on calling the modules of the caller.
    """
    own = {id(module) for module in network.modules()}
    functions: dict[int, FunctionType] = {}
    for value in held:
        if isinstance(value, FunctionType | MethodType | partial):
            _collect(value, own, functions)
    cells = {id(cell): CellType() for function in functions.values() for cell in function.__closure__ or ()}
    for function in functions.values():
        closure = tuple(cells[id(cell)] for cell in function.__closure__ or ())
        rebound = FunctionType(function.__code__, function.__globals__, function.__name__, closure=closure or None)
        rebound.__dict__.update(vars(function))
        memo[id(function)] = rebound
    return list(functions.values())


def _fill(functions: list[FunctionType], memo: dict[int, Any]) -> None:
    """What the functions that stand for ``functions`` hold, modules of the copy among it."""
    for function in functions:
        rebound = memo[id(function)]
        rebound.__defaults__ = copy.deepcopy(function.__defaults__, memo)
        rebound.__kwdefaults__ = copy.deepcopy(function.__kwdefaults__, memo)
        for cell, own in zip(function.__closure__ or (), rebound.__closure__ or (), strict=True):
            with suppress(ValueError):  # an empty one
                own.cell_contents = copy.deepcopy(cell.cell_contents, memo)


def _collect(value: Any, own: set[int], functions: dict[int, FunctionType], seen: frozenset[int] = frozenset()) -> bool:
    """Whether ``value`` holds a module of ``own``; functions on the way to one are put into ``functions``."""
    if isinstance(value, nn.Module):
        return id(value) in own
    if id(value) in functions:
        return True
    if id(value) in seen:
        return False
    seen |= {id(value)}
    holds = [_collect(item, own, functions, seen) for item in _held(value)]
    if isinstance(value, FunctionType) and any(holds):
        functions[id(value)] = value
    return any(holds)


def _held(value: Any) -> list[Any]:
    """What a function, method or container was made with."""
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_full(cell)]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple | set) else []


def _is_full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


# -- wrappers ----------------------------------------------------------------------------------------------------------


def _unwrap(network: nn.Module, memo: dict[int, Any]) -> None:
    """For ``copy.deepcopy``: instead of :data:`WRAPPERS` what they hold, with their hooks around its own."""
    for module in reversed(list(network.modules())):  # those inside others first
        held = WRAPPERS.get(qualified_name(type(module)))
        if held is None:
            continue
        inner = copy.deepcopy(getattr(module, held), memo)
        for name in _HOOKS:
            outer = copy.deepcopy(getattr(module, name), memo)
            if outer:
                before, after = (outer, getattr(inner, name)) if "_pre_" in name else (getattr(inner, name), outer)
                setattr(inner, name, OrderedDict([*before.items(), *after.items()]))
        memo[id(module)] = inner
