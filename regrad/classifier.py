"""A pre-trained network together with what its scores depend on: preprocessing, class names and a fingerprint."""

from __future__ import annotations

import hashlib
import importlib
import io
import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regrad import storage
from regrad.errors import UsageError
from regrad.storage import cache

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Classifier:
    """f(normalise(image)) = logits, with the preprocessing that brings a picture to the network's input.

    Args:
        network: takes normalised images (B, channels, H, W), returns logits (B, C). It is never changed.
        image_size: (H, W), or one number for both. Pictures are resized, shorter side first (antialiased
            bilinear), and centre-cropped to it.
        mean, std: one number for all channels or one per channel, on the [0, 1] scale.
        class_names: C names, or None.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        resize_size: the shorter side before the crop; None means "just large enough".
        transform: applied to every [0, 1] image after the crop (to invert drawings, say); same shape out.
        spec: where the network came from; part of the fingerprint.

    Raises:
        UsageError: the network does not take such images, or does not return logits (B, C).
    """

    def __init__(
        self,
        network: nn.Module,
        image_size: int | Sequence[int],
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        class_names: Sequence[str] | None = None,
        channels: int = 3,
        resize_size: int | None = None,
        transform: Callable[[Tensor], Tensor] | None = None,
        spec: str = "",
    ) -> None:
        if channels not in _MODES:
            raise UsageError(f"channels {channels}: images have 1, 3 or 4; use --transform for anything else")
        self.network = network
        self.channels = channels
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        self.image_size = (int(height), int(width))
        if min(self.image_size) < 1:
            raise UsageError(f"image size {self.image_size}: both sides must be at least 1")
        self.mean = _per_channel("mean", mean, channels)
        self.std = _per_channel("std", std, channels)
        if min(self.std) <= 0:
            raise UsageError(f"std {self.std}: every channel's deviation must be positive")
        self.resize_size = resize_size
        self.transform = transform
        self.spec = spec
        self.num_classes = self._probe()
        if class_names is not None and len(class_names) != self.num_classes:
            raise UsageError(f"{len(class_names)} class names for a network with {self.num_classes} classes")
        self.class_names = tuple(class_names) if class_names is not None else None

    @classmethod
    def load(
        cls,
        spec: str,
        weights: str | None = None,
        image_size: int | Sequence[int] | None = None,
        channels: int | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        transform: str | None = None,
    ) -> Classifier:
        """The classifier that ``spec`` names, in eval mode; every other argument overrides what it says of itself.

        Args:
            spec: ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME``, or ``package.module:factory``, where ``factory()``
                returns a module, or a module and a dict of image_size, mean, std, channels, class_names.
            weights: URI of safetensors, or of a state dict that ``torch.load(weights_only=True)`` accepts.
            transform: ``module:function``, see the class.

        Raises:
            UsageError: unknown spec, weights that do not fit (the first keys that differ are named).
        """
        state = read_weights(weights) if weights else None
        network, known = _build(spec, state)
        if state is not None:
            _load_state(network, state, f"{weights} into {spec}")
        given = {"image_size": image_size, "channels": channels, "mean": mean, "std": std}
        known |= {name: value for name, value in given.items() if value is not None}
        if image_size is not None:
            known.pop("resize_size", None)
        if known.get("image_size") is None:
            raise UsageError(f"{spec}: the image size is unknown; give --image-size, or return it from the factory")
        if transform:
            known["transform"] = import_object(transform)
        try:
            return cls(network.eval(), spec="|".join(filter(None, [spec, transform])), **known)
        except TypeError as error:
            raise UsageError(f"{spec}: the factory's dict has a key that Classifier does not know: {error}") from error

    def preprocess(self, image: Image.Image) -> Tensor:
        """A decoded picture as the [0, 1] image the scorer takes: float32 (channels, H, W).

        Resize the shorter side (antialiased bilinear), centre crop, scale to [0, 1], then ``transform``.

        Raises:
            ValueError: the picture cannot be brought to this shape.
        """
        image = _to_mode(image, _MODES[self.channels])
        height, width = self.image_size
        scale = max(height / image.height, width / image.width, (self.resize_size or 0) / min(image.size))
        # Truncated and rounded as torchvision does, so that published accuracies are met.
        size = (max(width, int(image.width * scale + 1e-6)), max(height, int(image.height * scale + 1e-6)))
        if size != image.size:
            # Only the part that the crop keeps is resampled: a 20,000-pixel-wide strip costs no more than a square.
            left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
            box = (
                left * image.width / size[0],
                top * image.height / size[1],
                (left + width) * image.width / size[0],
                (top + height) * image.height / size[1],
            )
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        pixels = torch.from_numpy(np.array(image, dtype=np.float32) / np.float32(255))
        tensor = pixels.reshape(height, width, self.channels).permute(2, 0, 1).contiguous()
        if self.transform is not None:
            tensor = self.transform(tensor)
            if tuple(tensor.shape) != (self.channels, height, width):
                raise ValueError(
                    f"the transform returned shape {tuple(tensor.shape)} instead of {(self.channels, height, width)}"
                )
        return tensor

    def normalize(self, images: Tensor) -> Tensor:
        """(images - mean) / std on (..., channels, H, W): what the network receives."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (images - mean) / std

    @cached_property
    def network_fingerprint(self) -> str:
        """SHA-256 over weights and ``repr(network)``: tells whether two runs used the same network."""
        digest = hashlib.sha256(repr(self.network).encode())
        for name, tensor in self.network.state_dict().items():
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, spec, ``repr(network)`` and preprocessing: equal fingerprints, equal scores."""
        preprocessing = (self.image_size, self.resize_size, self.channels, self.mean, self.std)
        return hashlib.sha256(repr((self.network_fingerprint, self.spec, preprocessing)).encode()).hexdigest()

    def _probe(self) -> int:
        shape = (2, self.channels, *self.image_size)
        with evaluating(self.network), torch.no_grad():
            like = next(self.network.parameters(), torch.zeros(()))
            try:
                logits = self.network(torch.zeros(shape, dtype=like.dtype, device=like.device))
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                raise UsageError(
                    f"{self.spec or 'the network'} does not take (channels, height, width) = {shape[1:]} images: "
                    f"set --channels and --image-size: {lines[0]}"
                ) from error
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 2:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UsageError(f"{self.spec or 'the network'} returns {got} for 2 images, not logits of shape (2, C)")
        return logits.shape[1]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def import_object(spec: str) -> Any:
    """What ``package.module:name`` names; the working directory is importable, as with ``python -m``.

    Raises:
        UsageError: no such module or attribute.
    """
    module_name, _, attribute = spec.partition(":")
    if working_directory() not in sys.path:
        sys.path.insert(0, working_directory())
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{spec}: no module {error.name}; it must be importable from the working directory or PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise UsageError(f"{spec}: module {module_name} has no {attribute!r}") from error


def working_directory() -> str:
    """The folder that this process was started in, also when another has been put in its place since.

    Ray does so: nodes that share a disk unpack a submitted job's folder over each other's.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.environ.get("PWD", os.curdir)


def read_weights(uri: str) -> dict[str, Tensor]:
    """The state dict in ``uri``, downloaded once a machine; nothing in the file is executed.

    Raises:
        UsageError: no such file, or neither safetensors nor a plain state dict.
    """
    try:
        content = cache.read(uri)
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


def _per_channel(name: str, value: float | Sequence[float], channels: int) -> tuple[float, ...]:
    values = (float(value),) if isinstance(value, (int, float)) else tuple(float(v) for v in value)
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise UsageError(f"{name} has {len(values)} numbers for {channels} channels; give one, or one per channel")
    return values


def _to_mode(image: Image.Image, mode: str) -> Image.Image:
    """``image`` in ``mode``; wider grey is scaled to 8 bits, which Pillow's own conversion would clip to white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.array(image, dtype=np.float32)
        full_scale = 1 if image.mode == "F" else 65535  # Pillow scales the greys of PGM files to 16 bits too
        if not (values.min() >= 0 and values.max() <= full_scale):
            raise ValueError(
                f"grey values from {values.min():g} to {values.max():g} have no known scale: store 8 or 16 bits, or "
                "floats from 0 to 1"
            )
        values *= np.float32(255 / full_scale)
        values += np.float32(0.5)  # in place: a picture may have millions of pixels
        image = Image.fromarray(values.astype(np.uint8), "L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)
