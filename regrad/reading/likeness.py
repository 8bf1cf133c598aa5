"""What a picture looks like, in 24 bytes: for telling the same one in other bytes, whatever a network sees in it."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

_SIDE, _FREQUENCIES = 32, 8
_COSINES = np.cos(np.pi * np.outer(np.arange(_FREQUENCIES), np.arange(_SIDE) + 0.5) / _SIDE)


class Likeness(NamedTuple):
    """Of one picture.

    Attributes:
        pixels: the 128-bit BLAKE2b, in hexadecimal, of its size and its pixels in 256 steps.
        perceptual_hash: see :func:`perceptual_hash`.
    """

    pixels: str
    perceptual_hash: int


def likeness(image: npt.NDArray[Any]) -> Likeness:
    """Of (channels, H, W) numbers in [0, 1], what the network gets of a picture before it is normalised."""
    steps = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    content = repr(steps.shape).encode() + steps.tobytes()
    return Likeness(hashlib.blake2b(content, digest_size=16).hexdigest(), perceptual_hash(image))


def perceptual_hash(image: npt.NDArray[Any]) -> int:
    """The signs of the 8x8 lowest frequencies of the grey picture's cosine transform at 32x32, row by row, 64 bits.

    The first, the mean, counts as not positive. The mirrored picture has the other signs at odd horizontal frequencies:
    hash XOR :data:`MIRRORED`.

    Args:
        image: (channels, H, W).

    Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, with the sign in place of
    the median, for the mirrored picture's sake.
    """
    grey = np.ascontiguousarray(image.mean(0), np.float32)
    small = np.asarray(Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.float64)
    positive = (_COSINES @ small @ _COSINES.T > 0).ravel()
    positive[0] = False
    return _packed(positive)


def _packed(bits: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


#: What of a hash a mirrored picture has otherwise.
MIRRORED = _packed(np.tile(np.arange(_FREQUENCIES) % 2 == 1, _FREQUENCIES))
