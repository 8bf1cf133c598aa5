"""Networks and weights by name: what ``--model``, ``--weights`` and ``--transform`` stand for."""

from __future__ import annotations

import importlib
import io
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regrad import storage
from regrad.errors import UsageError
from regrad.storage import cache

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_network(spec: str, weights: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """The network that ``spec`` names with its weights, and what it says of its preprocessing.

    Args:
        spec, weights: as :meth:`regrad.Classifier.load` takes them.

    Raises:
        UsageError: unknown spec, weights that do not fit (the first keys that differ are named).
    """
    state = read_weights(weights) if weights else None
    network, known = _build(spec, state)
    if state is not None:
        _load_state(network, state, f"{weights} into {spec}")
    return network, known


def import_object(spec: str) -> Any:
    """What ``package.module:name`` names; the working directory is importable, as with ``python -m``.

    Raises:
        UsageError: no such module or attribute.
    """
    module_name, _, attribute = spec.partition(":")
    if storage.working_directory() not in sys.path:
        sys.path.insert(0, storage.working_directory())
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{spec}: no module {error.name}; it must be importable from the working directory or PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise UsageError(f"{spec}: module {module_name} has no {attribute!r}") from error


def read_weights(uri: str) -> dict[str, Tensor]:
    """The state dict in ``uri``, downloaded once a machine; nothing in the file is executed.

    Raises:
        UsageError: no such file, or neither safetensors nor a plain state dict.
    """
    try:
        content = cache.read_cached(uri)
    except FileNotFoundError as error:
        raise UsageError(f"weights {error}") from error
    try:
        if uri.endswith(".safetensors"):
            import safetensors.torch

            return safetensors.torch.load(content)
        with warnings.catch_warnings(action="ignore"):  # about the protocol of what is refused anyway
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            f"weights {storage.mask(uri)}: not readable without executing code "
            f"(safetensors, or a state dict of tensors only): {_why(error)[:200]}"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"weights {storage.mask(uri)}: not a state dict (a mapping of names to tensors)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _why(error: Exception) -> str:
    """What was found; of torch's message the line that tells, without its advice to load the file all the same."""
    telling = re.search(r".*\b(?:GLOBAL|Unsupported)\b.*", str(error))
    return telling[0] if telling else storage.reason(error)


def _build(spec: str, state: dict[str, Tensor] | None) -> tuple[nn.Module, dict[str, Any]]:
    scheme, _, name = spec.partition(":")
    if not name:
        raise UsageError(f"model {spec!r}: give torchvision:NAME[@WEIGHTS], timm:NAME or package.module:factory")
    build = {"torchvision": _torchvision, "timm": _timm}.get(scheme)
    if build is not None:
        return build(name, state)
    built = import_object(spec)()
    network, known = built if isinstance(built, tuple) else (built, {})
    if not isinstance(network, nn.Module):
        raise UsageError(f"{spec}: the factory returned {type(network).__name__}, not a torch.nn.Module")
    return network, dict(known)


def _torchvision(name: str, state: dict[str, Tensor] | None) -> tuple[nn.Module, dict[str, Any]]:
    import torchvision.models

    name, _, version = name.partition("@")
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise UsageError(f"torchvision:{name}: no such classification model in torchvision.models")
    if not version:
        if state is None:
            raise UsageError(
                f"torchvision:{name}: no weights; add @DEFAULT (or another published name) or --weights URI"
            )
        known = {"image_size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
        return torchvision.models.get_model(name, weights=None, **_classes(state)), known
    try:
        weights = torchvision.models.get_model_weights(name)[version]
    except KeyError as error:
        names = ", ".join(item.name for item in torchvision.models.get_model_weights(name))
        raise UsageError(f"torchvision:{name}@{version}: no such weights; there are {names}") from error
    try:
        with _weights_only(), cache.once(str(weights.url)):
            network = torchvision.models.get_model(name, weights=None if state else weights)
    except Exception as error:  # a download: whatever the network raises
        raise UsageError(f"torchvision:{name}@{version}: cannot fetch the weights: {storage.reason(error)}") from error
    preset = weights.transforms()
    return network, {
        "image_size": preset.crop_size[0],
        "resize_size": preset.resize_size[0],
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "class_names": weights.meta.get("categories"),
    }


def _timm(name: str, state: dict[str, Tensor] | None) -> tuple[nn.Module, dict[str, Any]]:
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"timm:{name}: timm is not installed; pip install 'regrad[timm]'") from error
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"timm:{name}: timm knows no such model")
    try:
        with _weights_only():
            network = timm.create_model(name, pretrained=state is None, **(_classes(state) if state else {}))
    except Exception as error:  # a download: whatever the hub raises
        raise UsageError(f"timm:{name}: cannot fetch the weights: {storage.reason(error)}") from error
    config = timm.data.resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    return network, {
        "image_size": (height, width),
        "resize_size": math.floor(min(height, width) / config.get("crop_pct", 1.0)),
        "channels": channels,
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
    }


@contextmanager
def _weights_only() -> Iterator[None]:
    """Whatever calls ``torch.load`` meanwhile gets no code executed: torchvision asks for whole pickles."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _classes(state: dict[str, Tensor]) -> dict[str, int]:
    """The class count of a fine-tuned checkpoint: the rows of its last matrix."""
    rows = [tensor.shape[0] for tensor in state.values() if tensor.dim() == 2]
    return {"num_classes": rows[-1]} if rows else {}


def _load_state(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing = [name for name in own if name not in there and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in there if name not in own]
    shapes = [f"{name} {there[name]} instead of {own[name]}" for name in own if there.get(name, own[name]) != own[name]]
    problems = [
        f"{label} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for label, names in (("missing", missing), ("unexpected", unexpected), ("shape", shapes))
        if names
    ]
    if problems:
        raise UsageError(f"weights do not fit: {storage.mask(what)}: {'; '.join(problems)}")
    try:
        network.load_state_dict(state, strict=False)
    except Exception as error:  # a module with a loader of its own
        raise UsageError(f"weights do not fit: {storage.mask(what)}: {storage.reason(error)}") from error
