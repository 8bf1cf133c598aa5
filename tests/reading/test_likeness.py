"""What a picture looks like: the formula, and what is and is not changed by what people do to pictures."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from regrad.reading.likeness import MIRRORED, likeness, perceptual_hash
from tests.data import data_path

Array = np.ndarray[Any, Any]


def differing(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def picture(seed: int = 0, side: int = 32) -> Array:
    """(3, side, side) a smooth picture, and something finer on it."""
    draw = np.random.default_rng(seed)
    coarse = draw.random((6, 6, 3)).astype(np.float32)
    fine = np.stack(
        [
            np.asarray(Image.fromarray(coarse[..., channel]).resize((side, side), Image.Resampling.BICUBIC))
            for channel in range(3)
        ]
    )
    return np.clip(fine, 0, 1)


def test_the_bits_are_signs_of_a_cosine_transform() -> None:
    image = picture()
    signs = scipy.fft.dctn(image.mean(0))[:8, :8] > 0
    signs[0, 0] = False
    assert f"{perceptual_hash(image):064b}" == "".join("01"[int(bit)] for bit in signs.ravel())


def test_a_mirrored_picture_has_other_signs_at_odd_frequencies() -> None:
    image = picture()
    assert differing(perceptual_hash(image[:, :, ::-1]), perceptual_hash(image) ^ MIRRORED) <= 1  # a sign of nothing
    assert f"{MIRRORED:064b}" == "01010101" * 8


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (224, 224), (31, 57)])
def test_size_changes_little(size: tuple[int, int]) -> None:
    large = picture(side=224)
    shown = [Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC) for channel in large]
    assert differing(perceptual_hash(np.stack([*map(np.asarray, shown)])), perceptual_hash(large)) <= 6


def test_real_pictures_stay_alike_under_jpeg_and_apart_from_others() -> None:
    import pyarrow.parquet

    rows = pyarrow.parquet.ParquetFile(data_path("cifar10-test.parquet")).read_row_group(0, ["image"]).slice(0, 40)
    opened = [Image.open(io.BytesIO(image)).convert("RGB") for image in rows["image"].to_pylist()]

    def again(image: Image.Image) -> Image.Image:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=75)
        return Image.open(sink).convert("RGB")

    before, after = (
        [likeness(np.asarray(image, np.float32).transpose(2, 0, 1) / 255) for image in images]
        for images in (opened, map(again, opened))
    )
    own = [differing(a.perceptual_hash, b.perceptual_hash) for a, b in zip(before, after, strict=True)]
    other = [differing(a.perceptual_hash, b.perceptual_hash) for a in before for b in after if a is not b]
    assert max(own) <= 8
    assert np.quantile([bits for bits in other if bits > max(own)], 0.01) > 12
    assert not {look.pixels for look in before} & {look.pixels for look in after}


def test_pixels_are_the_same_or_not() -> None:
    image = picture()
    other = image.copy()
    other[1, 3, 4] += 2 / 255 if other[1, 3, 4] < 0.5 else -2 / 255
    assert likeness(image).pixels == likeness(image.copy()).pixels != likeness(other).pixels
    flat = np.zeros((1, 2, 8))
    assert likeness(flat).pixels != likeness(flat.reshape(1, 4, 4)).pixels  # the same numbers in another shape
