"""A library's network as a checkpoint of one's own needs it: other classes, other channels, another image size.

What the checkpoint needs is found by trying, on networks without weights: which entries of the state dict grow with the
number of classes, and which with that of channels; the file says how far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from regrad.errors import UsageError
from regrad.models import states
from regrad.models.checkpoints import Stored
from regrad.models.states import Fitted, Shapes, some

Build = Callable[..., nn.Module]  # takes num_classes, channels and image_size
Options = dict[str, int]

_POSITIONS = ("pos_embed", "pos_embedding", "positional_embedding", "position_embeddings")
_MOST_TOKENS = 8  # that stand before those of the patches: class, distillation, registers


def needs(build: Build, stored: Stored, spec: str, image_size: int | None, side: int) -> tuple[Options, list[str]]:
    """What ``build`` has to be given for ``stored``, and what was assumed, a line each.

    Args:
        image_size: the side that the user asks for, if any.
        side: the side that ``build`` takes by itself.

    Raises:
        UsageError: the file's heads have different numbers of classes.
    """
    base = _shapes(build, num_classes=2)
    fitted = states.fit_names(stored, base)
    tried = {
        "num_classes": _grown(fitted, base, _shapes(build, num_classes=3), 2, 3),
        "channels": _grown(fitted, _shapes(build, num_classes=2, channels=1), base, 1, 3),
    }
    options: Options = {}
    for option, values in tried.items():
        if len(set(values.values())) > 1:
            told = ", ".join(f"{key} {value}" for key, value in values.items())
            raise UsageError(f"{stored.what} into {spec}: its parts have different {option}: {told}")
        options |= dict.fromkeys((option,) if values else (), next(iter(values.values()), 0))
    trained = _trained_size(fitted, _shapes(build, **options), side)
    if image_size or trained:
        options["image_size"] = image_size or trained or side
    if trained and image_size and trained != image_size:
        return options, [f"{spec}: the position embeddings of {trained} pixels in the file are resized to {image_size}"]
    return options, []


def _shapes(build: Build, **options: int) -> Shapes:
    """The entries of the state dict and their shapes, without memory for them where the network allows that."""
    try:
        with torch.device("meta"):
            network = build(**options)
    except Exception:  # its constructor looks at values
        network = build(**options)
    return states.shapes_of(network.state_dict())


def _grown(fitted: Fitted, small: Shapes, large: Shapes, a: int, b: int) -> dict[str, int]:
    """How far the file's entries have grown that are ``small`` with ``a`` and ``large`` with ``b``."""
    grown = {}
    shapes = fitted.shapes
    for name, few in small.items():
        many, there = large.get(name), shapes.get(name)
        if not few or not many or not there or len(few) != len(many) or len(there) != len(few):
            continue
        axes = [axis for axis in range(len(few)) if few[axis] != many[axis]]
        if len(axes) == 1:
            unit = (many[axes[0]] - few[axes[0]]) // (b - a)
            value, rest = divmod(there[axes[0]] - few[axes[0]], unit)
            if not rest and value + a >= 1:
                grown[name] = value + a
    return grown


def _trained_size(fitted: Fitted, own: Shapes, side: int) -> int | None:
    """The side of the images that position embeddings in the file are of, where they differ from the network's."""
    shapes = fitted.shapes
    for name, here in own.items():
        there = shapes.get(name)
        if name.rpartition(".")[2] not in _POSITIONS or not here or not there or len(here) != len(there):
            continue
        axes = [axis for axis in range(len(here)) if here[axis] != there[axis]]
        if len(axes) == 2 and here[axes[0]] == here[axes[1]] and there[axes[0]] == there[axes[1]]:
            return side * there[axes[0]] // here[axes[0]]
        for tokens in range(_MOST_TOKENS) if len(axes) == 1 else ():
            patches = [shape[axes[0]] - tokens for shape in (here, there)]
            grids = [math.isqrt(max(0, number)) for number in patches]
            if all(grid and grid**2 == number for grid, number in zip(grids, patches, strict=True)):
                return side * grids[1] // grids[0]
    return None


def filled(
    build: Build,
    options: Options,
    stored: Stored,
    spec: str,
    rest: Callable[[], Mapping[str, Any]] | None = None,
    version: str = "",
) -> tuple[nn.Module, list[str]]:
    """The network with ``stored`` in it, and what was assumed, a line each.

    Args:
        rest: gives published weights for what the file does not have; None: it has to have all.
        version: what they are called.

    Raises:
        UsageError: it does not fit.
    """
    network = build(**options)
    own = states.shapes_of(network.state_dict())
    fitted = states.fit_names(stored, own, [name for name, _ in network.named_modules()])
    without_auxiliary(network, fitted)
    fitted.state = interpolated(network, fitted.state)
    missing = states.put(network, fitted, stored, spec, partly=rest is not None)
    if not missing or rest is None:
        return network, fitted.notes
    have = network.state_dict()
    published = {
        name: value
        for name, value in interpolated(network, rest()).items()
        if name in missing and have[name].shape == value.shape
    }
    lacking = [name for name in missing if name not in published]
    if lacking:
        raise UsageError(
            f"weights do not fit: {stored.what} into {spec}: missing {some(lacking)}, and {version} has none"
        )
    network.load_state_dict(published, strict=False)
    note = f"{spec}: {stored.what} has {some(list(fitted.state))}; {version}'s are the other {len(missing)}"
    return network, [*fitted.notes, note]


def without_auxiliary(network: nn.Module, fitted: Fitted) -> None:
    """Leave out torchvision's auxiliary heads that the file does not have; in eval mode nothing depends on them."""
    if not isinstance(getattr(network, "aux_logits", None), bool):
        return
    for name in ("aux1", "aux2", "AuxLogits"):
        if getattr(network, name, None) is not None and not any(key.startswith(f"{name}.") for key in fitted.state):
            setattr(network, name, None)
            network.aux_logits = False  # type: ignore[assignment]


def interpolated(network: nn.Module, state: Mapping[str, Any]) -> Any:
    """``state`` with its position embeddings as torchvision resizes them to the size of a transformer of its own."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    position = state.get("encoder.pos_embedding")
    if not isinstance(network, VisionTransformer) or position is None:
        return state
    if position.shape == network.encoder.pos_embedding.shape:
        return state
    try:
        return interpolate_embeddings(network.image_size, network.patch_size, state)
    except ValueError:  # no square: put() says what does not fit
        return state


def restemmed(network: nn.Module, channels: int) -> nn.Module:
    """``network`` with a first convolution for so many channels."""
    if channels == 3:
        return network
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            parent, _, own = name.rpartition(".")
            stem = type(module)(
                channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                module.padding,  # type: ignore[arg-type]
                module.dilation,  # type: ignore[arg-type]
                module.groups,
                module.bias is not None,
                module.padding_mode,
            )
            setattr(network.get_submodule(parent), own, stem)
            break
    return network
