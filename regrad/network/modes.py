"""Eval mode, and every module's own mode again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn


def set_evaluating(network: nn.Module) -> nn.Module:
    """``network`` in eval mode; an exported program, which has one mode alone, as it is."""
    with suppress(NotImplementedError):
        network.eval()
    return network


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    set_evaluating(network)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
