"""What is put on a network for a while, and gone afterwards whatever happens meanwhile; or on a copy of it for good."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward

from regrad.errors import UsageError

Key = TypeVar("Key")

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")


@dataclass(frozen=True)
class Call:
    """One call of a module: its arguments and, once it has returned, its output."""

    args: tuple[Any, ...]
    keywords: dict[str, Any]
    output: Any = None

    @property
    def input(self) -> Any:
        """The first argument, by position or by keyword; None if there is none."""
        return next(iter((*self.args, *self.keywords.values())), None)

    def with_input(self, value: Any) -> Call:
        """The same call with another first argument."""
        if self.args:
            return replace(self, args=(value, *self.args[1:]))
        name = next(iter(self.keywords))
        return replace(self, keywords=self.keywords | {name: value})


@contextmanager
def hooked(
    modules: Mapping[Key, nn.Module],
    enter: Callable[[Key, Call], Call | None] | None = None,
    leave: Callable[[Key, Call], Any] | None = None,
) -> Iterator[None]:
    """Call ``enter(key, call)`` before and ``leave(key, call)`` after every call of each of ``modules``.

    What ``enter`` returns takes the place of the arguments, what ``leave`` returns that of the output, None of neither.
    """
    with ExitStack() as handles:
        for key, module in modules.items():
            if enter is not None:
                pre = module.register_forward_pre_hook(_before(key, enter), with_kwargs=True)
                handles.callback(pre.remove)
            if leave is not None:
                post = module.register_forward_hook(_after(key, leave), with_kwargs=True)
                handles.callback(post.remove)
        yield


def _before(key: Key, enter: Callable[[Key, Call], Call | None]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        changed = enter(key, Call(args, keywords))
        return None if changed is None else (changed.args, changed.keywords)

    return hook


def _after(key: Key, leave: Callable[[Key, Call], Any]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> Any:
        return leave(key, Call(args, keywords, output))

    return hook


@contextmanager
def requiring_grad(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Let ``parameters`` ask for gradients inside, and as before afterwards."""
    before = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


def with_own_hooks(network: nn.Module) -> nn.Module:
    """A shallow copy of ``network``: the same children and parameters, and hooks that the caller's does not get."""
    if isinstance(network, torch.jit.ScriptModule):
        raise UsageError("is a TorchScript program, which takes no hook: give the network that it was made of")
    shallow = copy.copy(network)
    for name in _HOOKS:
        setattr(shallow, name, copy.copy(getattr(network, name)))
    return shallow


def pulled_back(
    cotangent: Tensor, outputs: Tensor, inputs: Sequence[Any], retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """J^T v, v = ``cotangent`` of the shape of ``outputs``, for each of ``inputs``: tensors, or edges of the graph.

    None for an input that the outputs do not depend on. As ``torch.autograd.grad`` gives it, which imports a library of
    symbolic shapes to compare two shapes: half a second of processor time of every process that scores.
    """
    gradients: tuple[Tensor | None, ...] = _engine_run_backward(
        (outputs,), (cotangent,), retain_graph, False, tuple(inputs), True, accumulate_grad=False
    )
    return gradients


def in_graph(output: Tensor) -> Tensor:
    """``output`` as part of a graph, which begins here if there is none yet.

    Then a copy goes on: the network may change it in place, which a leaf does not allow.
    """
    return output if output.requires_grad else output.detach().requires_grad_(True).clone()
