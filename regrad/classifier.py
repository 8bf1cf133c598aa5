"""A pre-trained network together with what its scores depend on: preprocessing, class names and a fingerprint."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.models.loading import import_object, load_network
from regrad.network.head import find_head
from regrad.network.probe import probe_images

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
        temperature: float = 1.0,
    ) -> Classifier:
        """The classifier that ``spec`` names, in eval mode; every other argument overrides what it says of itself.

        Args:
            spec: ``torchvision:NAME[@WEIGHTS]``, ``timm:NAME``, or ``package.module:factory``, where ``factory()``
                returns a module, or a module and a dict of image_size, mean, std, channels, class_names.
            weights: URI of safetensors, or of a state dict that ``torch.load(weights_only=True)`` accepts.
            transform: ``module:function``, see the class.
            temperature: T, which logits are divided by, by way of the last layer's parameters: a network that is less
                sure (T > 1) or surer (T < 1) of the same predictions.

        Raises:
            UsageError: unknown spec, weights that do not fit (the first keys that differ are named), or a temperature
                for a network whose logits come from no Linear layer.
        """
        network, known = load_network(spec, weights)
        given = {"image_size": image_size, "channels": channels, "mean": mean, "std": std}
        known |= {name: value for name, value in given.items() if value is not None}
        if image_size is not None:
            known.pop("resize_size", None)
        if known.get("image_size") is None:
            raise UsageError(f"{spec}: the image size is unknown; give --image-size, or return it from the factory")
        if transform:
            known["transform"] = import_object(transform)
        try:
            classifier = cls(network.eval(), spec="|".join(filter(None, [spec, transform])), **known)
        except TypeError as error:
            raise UsageError(f"{spec}: the factory's dict has a key that Classifier does not know: {error}") from error
        if temperature != 1:
            classifier._divide_logits(temperature)
        return classifier

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

    def _divide_logits(self, temperature: float) -> None:
        if not 0 < temperature < math.inf:
            raise UsageError(f"temperature {temperature}: must be a positive number")
        self.network = copy.deepcopy(self.network)  # a factory may hand out the same one twice
        like = next(self.network.parameters(), torch.zeros(()))
        name = find_head(self.network, self.normalize(probe_images(2, self.channels, self.image_size)).to(like))
        if name is None:
            raise UsageError(
                f"temperature {temperature}: the logits of {self.spec} come from no Linear layer of its own"
            )
        with torch.no_grad():
            for parameter in self.network.get_submodule(name).parameters():
                parameter.div_(temperature)

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
