"""A GPU that is none: its tensors are the CPU's, with a mark, and meet the rules of a GPU.

Code that mixes devices, makes the host wait, or leaves to PyTorch whether products are rounded to TensorFloat-32, shows
on a machine without a GPU. An operation refuses tensors of both kinds as CUDA does; products round their factors where
CUDA's would; what makes the host wait for the device (a number read, a copy to the CPU, an index from there) is listed
in ``waits``. Tensors that PyTorch makes inside itself have no place until they meet one that has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from regrad.benchmarks import tf32
from regrad.network import hooks

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
COPIES = ("aten::copy_", "aten::_to_copy")
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::is_nonzero")


class _Places:
    """Where tensors are, by their storage. A weak reference keeps its address from being used again."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[StorageWeakRef, torch.device]] = {}

    def of(self, tensor: Tensor) -> torch.device | None:
        try:
            held = self._held.get(StorageWeakRef(tensor.untyped_storage()).cdata)
        except NotImplementedError:  # a wrapper of torch.func
            return None
        return held[1] if held else None

    def put(self, tensor: Tensor, device: torch.device) -> None:
        with contextlib.suppress(NotImplementedError):
            reference = StorageWeakRef(tensor.untyped_storage())
            self._held[reference.cdata] = (reference, GPU if device.type == "cuda" else CPU)


def _tensors(values: Any) -> list[Tensor]:
    """Those in nested arguments or results, in order."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in _tensors(value)]


def _rounds(name: str) -> bool:
    """Whether a GPU would round the factors of this product, as its settings are now: of convolutions by default."""
    backends = torch.backends
    return backends.cudnn.allow_tf32 if "convolution" in name else backends.cuda.matmul.allow_tf32


class _Operations(TorchDispatchMode):
    """Refuses to mix devices, and puts results where their inputs are."""

    def __init__(self, places: _Places, waits: list[str]) -> None:
        super().__init__()
        self._places, self._waits = places, waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = _tensors((args, kwargs))
        places = [self._places.of(tensor) for tensor in inputs]
        name = func._schema.name
        if GPU in places and name not in COPIES:
            shapes = [tuple(t.shape) for t, place in zip(inputs, places, strict=True) if place == CPU and t.dim()]
            if shapes and "index" not in name:
                raise RuntimeError(f"{func}: tensors {shapes} are on the CPU, others on the GPU")
            if shapes or name in WAITS:
                self._waits.append(name)
        if GPU in places and _rounds(name):
            args = tuple(tf32.rounded_factors(func, args))
        result = func(*args, **(kwargs or {}))
        place = GPU if GPU in places else CPU if CPU in places else None
        if place and name != "aten::copy_":
            for tensor in _tensors(result):
                self._places.put(tensor, place)
        return result


class _Calls(TorchFunctionMode):
    """Answers what device a tensor is on, moves tensors, and notes where new ones are made."""

    def __init__(self, places: _Places, waits: list[str]) -> None:
        super().__init__()
        self._places, self._waits = places, waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return self._places.of(args[0]) or CPU
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(args[0], [CPU] if func is Tensor.cpu else list(args[1:]), kwargs)
        device = kwargs.get("device")
        if device is not None:
            kwargs["device"] = CPU
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            place = torch.device(device) if device is not None else self._made(func, result, args, kwargs)
            if place is not None:
                self._places.put(result, place)
        return result

    def _made(self, func: Any, result: Tensor, args: Any, kwargs: Any) -> torch.device | None:
        if func is Tensor.new_tensor:
            return self._places.of(args[0])
        new = self._places.of(result) is None and not _tensors((args, kwargs))
        return CPU if new else None

    def _moved(self, tensor: Tensor, rest: list[Any], kwargs: dict[str, Any]) -> Tensor:
        target = torch.device(kwargs.pop("device")) if kwargs.get("device") is not None else None
        for i, value in enumerate(rest):
            if isinstance(value, Tensor):
                target, rest[i] = self._places.of(value), value.dtype
            elif isinstance(value, str | torch.device):
                target, rest[i] = torch.device(value), CPU
        kwargs.pop("non_blocking", None)
        moved = Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor
        before = self._places.of(tensor)
        if target is None or (before or CPU).type == target.type:
            if before and moved is not tensor:
                self._places.put(moved, before)
            return moved
        if target.type == "cpu":
            self._waits.append("copy to the CPU")
        if moved.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            moved = moved.clone()
        self._places.put(moved, target)
        return moved


class _NoStream:
    def wait_stream(self, other: Any) -> None:
        """All happens at once."""


def _inside(function: Callable[..., Any], *args: Any, **rest: Any) -> Any:
    """What ``function`` of PyTorch's gives: what it makes on its way has no place of its own."""
    with torch._C.DisableTorchFunction():
        return function(*args, **rest)


@contextlib.contextmanager
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """While it is open, ``device="cuda"`` can be used; gives the list of what made the host wait."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: _NoStream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: _NoStream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 32, 1 << 32))
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    run = hooks._engine_run_backward
    monkeypatch.setattr(hooks, "_engine_run_backward", lambda *args, **rest: _inside(run, *args, **rest))
    waits: list[str] = []
    places = _Places()
    with _Operations(places, waits), _Calls(places, waits):
        yield waits
