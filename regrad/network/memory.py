"""What a forward pass holds in memory, and batches cut so that it fits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regrad.network.copies import plain_attention
from regrad.network.hooks import Call, hooked

FEWEST = 2  # images that go together, if there are as many

KEPT_BYTES = 32 * 2**20  # of one tensor, that the C library keeps when it is freed: see pipeline/process.py
LIVE = 4  # layer outputs that exist at once: input, output, a residual, and one in the making


def forward_bytes(network: nn.Module, probe: Tensor) -> int:
    """Memory that one input takes in a forward pass without a graph, about: a few of the largest outputs at once."""
    return LIVE * largest_outputs(network, probe)[0]


def largest_outputs(network: nn.Module, probe: Tensor, counted: Collection[str] = ()) -> tuple[int, int]:
    """Bytes of the largest output an input has before the first of the modules ``counted``, and from there on."""
    before, behind = [probe.numel() * probe.element_size()], [0]
    modules = {
        name: module
        for name, module in network.named_modules(remove_duplicate=False)
        if not isinstance(module, torch.jit.ScriptModule)  # which takes no hook
    }
    first = {modules[name] for name in counted}

    def note(module: nn.Module, call: Call) -> None:
        if isinstance(call.output, Tensor):
            side = behind if len(behind) > 1 or module in first else before
            side.append(call.output.numel() * call.output.element_size())

    with torch.no_grad(), plain_attention(), hooked({module: module for module in modules.values()}, leave=note):
        network(probe)
    return max(before) // len(probe), max(behind) // len(probe)


def inputs_kept(network: nn.Module, probe: Tensor) -> int | None:
    """How many inputs a forward pass on a CPU takes so that its outputs lie in memory that was used before; None: any.

    Larger ones the system gives anew in every layer, page by page and cleared: a fifth of a ResNet-50's time.
    """
    if probe.device.type != "cpu":
        return None
    return max(FEWEST, KEPT_BYTES // largest_outputs(network, probe)[0])


def in_pieces(call: Callable[..., Tensor], most: int | None, *of_images: Any) -> Tensor:
    """``call(*of_images)``, each of which begins with the images, at most so many images at once."""
    return torch.cat([call(*(each[part] for each in of_images)) for part in even_slices(len(of_images[0]), most)])


def even_slices(images: int, step: int | None, together: int = 1) -> list[slice]:
    """``images`` in pieces of about equal size: at most ``step`` (None: all), but two if there are two.

    >>> even_slices(7, 3)
    [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]

    Where so many pieces go ``together`` there are as many, or a multiple, if there are images enough:

    >>> even_slices(5, 5, together=2)
    [slice(0, 3, None), slice(3, 5, None)]

    A matrix of one row takes another kernel, whose rounding a confident image's small probabilities show (2e-5 in
    ExGrad); from two rows on, results do not depend on the batch.
    """
    number = -(-images // (step or images))
    return slices(images, max(1, min(-(-number // together) * together, images // FEWEST)))


def slices(total: int, number: int) -> list[slice]:
    """``total`` in ``number`` pieces of about equal size."""
    size, longer = divmod(total, number)
    starts = [k * size + min(k, longer) for k in range(number + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is PyTorch's way of saying that memory does not suffice, on a GPU or not."""
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("out of memory", "can't allocate memory")
    )


@contextmanager
def saved_for_backward(network: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each tensor that graphs built meanwhile keep, parameters aside."""
    own = {parameter.data_ptr() for parameter in network.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield saved
