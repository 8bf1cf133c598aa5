"""From a decoded picture to the image that a network's scores are of, in floats or in as few bytes as hold it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regrad.network.upload import unit_interval

SPARE = 4  # a picture that is decoded at less than its size has at least so many times the sides it is resized to
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by channels, as Pillow names them


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side (antialiased), centre crop, scale to [0, 1], then ``transform``.

    Attributes:
        image_size: (H, W).
        resize_size, interpolation, crop_mode, transform, scaled_jpeg: see :class:`regrad.classifier.Classifier`.
    """

    image_size: tuple[int, int]
    channels: int
    resize_size: int | None = None
    interpolation: str = "bilinear"
    crop_mode: str = "center"
    transform: Callable[[Tensor], Tensor] | None = None
    scaled_jpeg: bool = False

    @property
    def least_side(self) -> int | None:
        """The shorter side that a picture may be decoded at instead of its own; None: as it is."""
        return SPARE * max(*self.image_size, self.resize_size or 0) if self.scaled_jpeg else None

    def __call__(self, picture: Image.Image) -> Tensor:
        """The [0, 1] image: float32 (channels, H, W).

        Raises:
            ValueError: the picture cannot be brought to this shape, or the transform returns another.
        """
        pixels = unit_interval(self._levels(picture))
        if self.transform is None:
            return pixels
        transformed = self.transform(pixels)
        if transformed.shape != pixels.shape or not transformed.is_floating_point():
            returned = f"{transformed.dtype} of shape {tuple(transformed.shape)}"
            raise ValueError(f"the transform returned {returned} instead of floats of shape {tuple(pixels.shape)}")
        return transformed

    def compact(self, picture: Image.Image) -> Tensor:
        """The same as uint8 levels, 255 x, in a quarter of the bytes; with a transform, what it makes of floats."""
        return self._levels(picture) if self.transform is None else self(picture)

    def _levels(self, picture: Image.Image) -> Tensor:
        picture = _to_mode(picture, MODES[self.channels])
        height, width = self.image_size
        resampling = Image.Resampling[self.interpolation.upper()]
        scale = max(height / picture.height, width / picture.width, (self.resize_size or 0) / min(picture.size))
        # Truncated and rounded as torchvision does, so that published accuracies are met.
        size = (max(width, int(picture.width * scale + 1e-6)), max(height, int(picture.height * scale + 1e-6)))
        if self.crop_mode == "squash":
            size = (max(width, self.resize_size or 0), max(height, self.resize_size or 0))
        if not picture.size == size == (width, height):
            # Only the part that the crop keeps is resampled: a 20,000-pixel-wide strip costs no more than a square.
            left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
            box = (
                left * picture.width / size[0],
                top * picture.height / size[1],
                (left + width) * picture.width / size[0],
                (top + height) * picture.height / size[1],
            )
            picture = picture.resize((width, height), resampling, box=box)
        return torch.from_numpy(np.array(picture)).reshape(height, width, self.channels).permute(2, 0, 1)


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
