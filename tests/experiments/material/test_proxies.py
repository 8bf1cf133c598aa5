"""Proxies: what each kind keeps of an image and what it breaks, and that the same image has the same proxy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from regrad.experiments.material import proxies
from regrad.experiments.material.packs import Encoded

RNG = np.random.default_rng(2)


def rows(*shapes: tuple[int, ...]) -> list[Encoded]:
    """Smooth random images."""
    encoded = []
    for number, shape in enumerate(shapes):
        coarse = Image.fromarray(RNG.integers(0, 256, (4, 4, *shape[2:]), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC).save(buffer, "PNG")
        encoded.append((f"image/{number}", buffer.getvalue(), number))
    return encoded


def values(row: Encoded) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(row[1])), np.float64)


COLOUR, GREY = rows((32, 32, 3), (32, 32, 3)), rows((28, 28), (28, 28))


@pytest.mark.parametrize("kind", proxies.KINDS)
@pytest.mark.parametrize("given", [COLOUR, GREY], ids=["colour", "grey"])
def test_a_proxy_has_the_name_label_and_size_of_its_image_and_is_another_one(kind: str, given: list[Encoded]) -> None:
    made = proxies.proxies(kind, given)
    assert [(key, label) for key, _, label in made] == [(key, label) for key, _, label in given]
    for own, original in zip(made, given, strict=True):
        assert values(own).shape == values(original).shape
        assert np.abs(values(own) - values(original)).mean() > 2
    assert made == proxies.proxies(kind, given)
    if kind != "halves":  # the other half is that of the next image
        assert made[1:] == proxies.proxies(kind, given[1:])


def test_patches_are_those_of_the_image_in_another_order() -> None:
    made, original = (values(row).reshape(4, 7, 4, 7) for row in (proxies.proxies("patches", GREY)[0], GREY[0]))
    tiles = [sorted(patch.tobytes() for patch in image.swapaxes(1, 2).reshape(16, 49)) for image in (made, original)]
    assert tiles[0] == tiles[1]


def test_halves_are_the_left_one_and_the_right_one_of_the_next_image() -> None:
    made = [values(row) for row in proxies.proxies("halves", COLOUR)]
    first, second = (values(row) for row in COLOUR)
    assert np.array_equal(made[0], np.concatenate([first[:, :16], second[:, 16:]], axis=1))
    assert np.array_equal(made[1], np.concatenate([second[:, :16], first[:, 16:]], axis=1))


def test_pixels_keep_their_colours() -> None:
    made, original = (values(row).reshape(-1, 3) for row in (proxies.proxies("pixels", COLOUR)[0], COLOUR[0]))
    assert sorted(map(tuple, made)) == sorted(map(tuple, original))


def test_the_spectrum_keeps_mean_and_amplitudes() -> None:
    own = 0.4 + 0.2 * RNG.random((24, 30, 3))  # far from 0 and 1, so that nothing is clipped
    made = proxies.spectrum(own, own, np.random.default_rng(0))
    assert np.allclose(made.mean((0, 1)), own.mean((0, 1)))
    assert np.allclose(np.abs(np.fft.fft2(made, axes=(0, 1))), np.abs(np.fft.fft2(own, axes=(0, 1))))


def test_corruptions_are_heavy_and_all_of_them_are_drawn() -> None:
    own = values(COLOUR[0]) / 255
    noisy, blurred, flat, coarse, negative = (make(own, np.random.default_rng(1)) for make in proxies.CORRUPTIONS)
    assert (noisy - own).std() == pytest.approx(proxies.NOISE, rel=0.1)
    assert np.abs(np.diff(blurred, axis=0)).mean() < 0.7 * np.abs(np.diff(own, axis=0)).mean()
    assert flat.std((0, 1)) == pytest.approx(proxies.CONTRAST * own.std((0, 1)))
    assert len(np.unique(coarse.reshape(-1, 3), axis=0)) <= proxies.CELLS**2
    assert np.allclose(negative, 1 - own)
    drawn = {proxies.corrupted(own, own, np.random.default_rng(seed)).tobytes() for seed in range(40)}
    assert len({*drawn} & {make.tobytes() for make in (blurred, flat, coarse, negative)}) == 4


def test_a_large_image_is_brought_to_its_size_first() -> None:
    (made,) = proxies.proxies("patches", rows((300, 600, 3)))
    assert values(made).shape == (256, 512, 3)


def test_images_of_other_sizes_and_modes_lend_their_halves() -> None:
    made = proxies.proxies("halves", rows((32, 32, 3), (20, 44), (28, 28)))
    assert [values(row).shape for row in made] == [(32, 32, 3), (20, 44), (28, 28)]
