"""Networks and weights by name: what ``--model`` and ``--weights`` stand for."""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from typing import Any

from torch import nn

from regrad.errors import UsageError
from regrad.formatting import duration
from regrad.importing.code import users_code
from regrad.importing.folders import shown
from regrad.importing.modules import import_object
from regrad.models import factory, hubs, states
from regrad.models.architecture import without_auxiliary
from regrad.models.checkpoints import Stored, read_weights
from regrad.models.factory import Loaded

_SLOW_SECONDS = 20.0
_FILES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".safetensors.index.json")  # of weights


def load_network(
    spec: str, weights: str | None = None, image_size: int | None = None, channels: int | None = None
) -> Loaded:
    """The network that ``spec`` names with its weights, and what is known of its preprocessing.

    Args:
        spec, weights: as :meth:`regrad.Classifier.load` takes them.
        image_size, channels: the side and the channels that the user asks for, if any.

    Raises:
        UsageError: unknown spec, a factory that fails, weights that do not fit (the first names that differ are told).
    """
    scheme, _, name = spec.partition(":")
    if not name or not scheme or spec.lower().endswith(_FILES):
        raise UsageError(
            f"model {spec!r}: give torchvision:NAME[@WEIGHTS], timm:NAME or package.module:factory{_meant(spec)}"
        )
    stored = read_weights(weights) if weights else None
    if scheme == "torchvision":
        return hubs.load_torchvision(name, stored, image_size)
    if scheme == "timm":
        return hubs.load_timm(name, stored, image_size, channels)
    return _load_own(spec, stored)


def _meant(spec: str) -> str:
    """What may have been meant by ``spec``, which names no model, to follow a message; nothing if that is not clear."""
    if spec.lower().endswith(_FILES):
        return "; a file of weights is for --weights, with the network here that it fills"
    if re.fullmatch(r"[\w-]+/[\w.-]+", spec):
        return "; a network of Hugging Face's hub takes a factory of two lines (docs/models.md)"
    if library := hubs.library_of(spec):
        return f" (did you mean {library}:{spec}?)"
    module, dot, function = spec.rpartition(".")
    return f" (did you mean {module}:{function}?)" if dot and function.isidentifier() else ""


def _load_own(spec: str, stored: Stored | None) -> Loaded:
    """What the user's factory returns, filled with ``stored`` if that is given."""
    started = time.monotonic()
    build = import_object(spec)
    built = build if isinstance(build, nn.Module) else _call(build, spec)
    try:
        loaded = factory.unpack(built)
    except UsageError as error:
        raise UsageError(f"{spec}: {error}") from error
    loaded.notes = [f"{spec}: {note}" for note in loaded.notes]
    seconds = time.monotonic() - started
    if seconds > _SLOW_SECONDS:
        loaded.notes.append(f"{spec}: took {duration(seconds)} to import and to build, in every worker again")
    if stored is not None:
        fitted = states.fit_names(
            stored, states.shapes_of(loaded.network.state_dict()), [name for name, _ in loaded.network.named_modules()]
        )
        without_auxiliary(loaded.network, fitted)
        states.put(loaded.network, fitted, stored, spec)
        loaded.notes += fitted.notes
    return loaded


def _call(build: Any, spec: str) -> Any:
    name = spec.partition(":")[2]
    if not callable(build):
        raise UsageError(f"{spec}: {name} is a {type(build).__name__}, not a function that returns a network")
    needed = _needed(build)
    if needed:
        raise UsageError(f"{spec}: {_defined(build)} needs {', '.join(needed)}; name a function without arguments")
    with users_code(spec):
        return build()


def _needed(build: Callable[..., Any]) -> list[str]:
    """The arguments that have to be given."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):  # of a type without a signature: the call will tell
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [item.name for item in parameters if item.default is item.empty and item.kind not in variadic]


def _defined(build: Callable[..., Any]) -> str:
    """Where a function or class is defined: its file and line, as far as they are known."""
    try:
        return f"{shown(inspect.getsourcefile(build))}, line {inspect.getsourcelines(build)[1]}: it"
    except (TypeError, OSError):
        return "it"
