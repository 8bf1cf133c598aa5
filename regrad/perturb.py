"""The random numbers an image gets: a function of (seed, id, copy) alone, the same on every device and batch.

A counter-based generator has no state to advance: number k of copy i of an image is a hash of (seed, id, i, k).
So neither the batch an image arrives in, nor the worker, nor a retry can change its noise.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32-10); Box and Muller 1958.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_CACHE_BLOCKS = 1 << 15


def keys(seed: int, ids: Sequence[str], purpose: str = "noise") -> Tensor:
    """Philox keys, blake2b(purpose, seed, id): int64 (len(ids), 2), two 32-bit words each.

    ``purpose`` separates independent streams of one image (input noise, dropout masks).
    """
    words = []
    for name in ids:
        # Lengths are written out so that no two (purpose, seed, id) give the same text.
        text = f"{len(purpose)}:{purpose}:{seed}:{name}"
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        words.append((int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")))
    return torch.tensor(words, dtype=torch.int64).reshape(len(words), 2)


def philox(key: Tensor, counter: Sequence[Tensor]) -> list[Tensor]:
    """Philox4x32 with ten rounds: four 32-bit words for each key and counter.

    Args:
        key: int64 (..., 2) with words below 2**32.
        counter: four int64 tensors with words below 2**32 that broadcast with ``key[..., 0]``.

    Returns:
        Four int64 tensors with words below 2**32.
    """
    low, high = key[..., 0], key[..., 1]
    a, b, c, d = counter
    for i in range(_ROUNDS):
        # The 64-bit product wraps to the same bits as an unsigned one; the mask undoes the sign of the shift.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, c = ((second >> 32).bitwise_and_(_WORD) ^ b) ^ low, ((first >> 32).bitwise_and_(_WORD) ^ d) ^ high
        b, d = second.bitwise_and_(_WORD), first.bitwise_and_(_WORD)
        if i + 1 < _ROUNDS:
            low, high = (low + _WEYL[0]) & _WORD, (high + _WEYL[1]) & _WORD
    return [a, b, c, d]


def uniform(key: Tensor, copies: int, count: int) -> Tensor:
    """Independent uniforms (word + 1/2) / 2**32 in (0, 1): float64 (B, copies, count) on the device of ``key``.

    Args:
        key: int64 (B, 2) from :func:`keys`.
        copies: how many independent copies each image gets.
        count: numbers per copy.
    """
    blocks = math.ceil(count / 4)
    return _uniform_words(key, range(copies), range(blocks)).flatten(-2)[..., :count]


def normal(key: Tensor, copies: int, count: int) -> Tensor:
    """Independent standard normals by Box and Muller: float32 (B, copies, count) on the device of ``key``.

    sqrt(-2 ln u) (cos, sin)(2 pi v) in float64, rounded once: devices differ by one float32 rounding at most.
    Shapes as :func:`uniform`.
    """
    blocks = math.ceil(count / 4)
    found = torch.empty(len(key), copies, 4, blocks, device=key.device)
    for images, some, counters in _pieces(len(key), copies, blocks, found.numel() if key.is_cuda else _CACHE_BLOCKS):
        words = _uniform_words(key[images], range(copies)[some], range(blocks)[counters])
        found[images, some, :, counters] = _box_muller(words)
    return found.flatten(-2)[..., :count]


def _pieces(images: int, copies: int, blocks: int, most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut to at most so many blocks: on a CPU, what stays in the cache takes about half the time."""
    wide = max(1, min(blocks, most))
    high = max(1, min(copies, most // wide))
    deep = max(1, most // (wide * high))
    for image in range(0, images, deep):
        for copy in range(0, copies, high):
            for block in range(0, blocks, wide):
                yield slice(image, image + deep), slice(copy, copy + high), slice(block, block + wide)


def _box_muller(u: Tensor) -> Tensor:
    """Normals, float64, from uniforms of the same shape (B, copies, 4, blocks), which are overwritten."""
    radius, angle = u[..., :2, :].log_().mul_(-2).sqrt_(), u[..., 2:, :].mul_(2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-2)


def noisy_copies(images: Tensor, ids: Sequence[str], samples: int, sigma: float, seed: int) -> Tensor:
    """The image and its perturbed copies: x_0 = x, x_i = x + sigma e_i with e_i ~ N(0, I), i = 1..samples (Eq. 13).

    Args:
        images: (B, channels, H, W).
        ids: B strings; the noise of an image depends on (seed, id, i) only.

    Returns:
        (B, samples + 1, channels, H, W), the clean image first, in the dtype of ``images``.
    """
    copies = images.unsqueeze(1).repeat(1, samples + 1, *[1] * (images.dim() - 1))
    if samples and sigma:
        key = keys(seed, ids).to(images.device)
        noise = normal(key, samples, images[0].numel()).reshape(copies[:, 1:].shape)
        copies[:, 1:].add_(noise, alpha=sigma)
    return copies


def _uniform_words(key: Tensor, copies: range, blocks: range) -> Tensor:
    """Uniforms as float64 (B, copies, 4, blocks): one row for each of the four words of a Philox block."""
    block = torch.arange(blocks.start, blocks.stop, dtype=torch.int64, device=key.device)
    copy = torch.arange(copies.start, copies.stop, dtype=torch.int64, device=key.device)[:, None]
    zero = torch.zeros((), dtype=torch.int64, device=key.device)
    words = philox(key[:, None, None, :], (block, copy, zero, zero))
    return torch.stack(words, dim=-2).to(torch.float64).add_(0.5).mul_(2.0**-32)
