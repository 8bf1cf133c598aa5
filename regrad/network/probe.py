"""Seeded pictures that stand for images where a network is looked at before any image is read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from regrad import perturb


def probe_images(count: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Seeded pictures of smooth blobs with some grain, in [0, 1]: float32 (count, channels, H, W).

    White noise alone excites a network unlike any picture; blobs of two scales have the falling spectrum of pictures.
    """
    height, width = size
    key = perturb.keys(0, [f"probe-{i}" for i in range(count)], purpose="probe")
    total = torch.zeros(count, channels, height, width)
    place = 0
    grids = ((4, 0.8), (8, 0.6), (16, 0.4), (max(height, width), 0.15))
    noise = perturb.normal(key, 1, channels * sum(side * side for side, _ in grids))[:, 0]
    for side, scale in grids:
        grid = noise[:, place : place + channels * side * side].reshape(count, channels, side, side)
        place += channels * side * side
        total += scale * F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
    return torch.sigmoid(1.5 * total)
