"""From a decoded picture to what a network is given; resizing and cropping are tests/test_classifier.py's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from regrad.network.pictures import MODES, Preprocessing

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize("channels", MODES)
def test_compact_images_are_the_levels_of_the_same_ones(channels: int) -> None:
    preprocessing = Preprocessing((8, 9), channels)
    compact = preprocessing.compact(PICTURE)
    assert (compact.dtype, compact.shape) == (torch.uint8, (channels, 8, 9))
    assert torch.equal(compact / 255, preprocessing(PICTURE))


def test_a_transform_works_on_floats() -> None:
    inverting = Preprocessing((8, 8), 3, transform=lambda image: 1 - image)
    assert torch.equal(inverting.compact(PICTURE), inverting(PICTURE))
    assert torch.equal(inverting(PICTURE), 1 - Preprocessing((8, 8), 3)(PICTURE))


@pytest.mark.parametrize(
    ("change", "returned"),
    [(lambda image: image[:2], r"float32 of shape \(2, 8, 8\)"), (lambda image: image.byte(), "uint8 of shape")],
)
def test_a_transform_must_return_floats_of_the_same_shape(change: Callable[[Tensor], Tensor], returned: str) -> None:
    with pytest.raises(ValueError, match=f"the transform returned torch.{returned}"):
        Preprocessing((8, 8), 3, transform=change)(PICTURE)
