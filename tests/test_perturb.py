"""The noise of an image: published test vectors, moments, and what it may depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from regrad import perturb


def _words(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    return [int(w) for w in perturb.philox(torch.tensor(key), [torch.tensor(word) for word in counter])]


def test_philox_gives_the_published_test_vectors() -> None:
    """The known answers that come with the generator's own publication (Random123, philox4x32 with 10 rounds)."""
    ones = 0xFFFFFFFF
    assert _words((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert _words((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert _words(pi, (0xA4093822, 0x299F31D0)) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_normals_have_the_moments_of_a_normal() -> None:
    z = perturb.normal(perturb.keys(3, [str(i) for i in range(40)]), 5, 1000).double().flatten()
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        spread = math.sqrt(float(z.pow(2 * power).mean()) / len(z))
        assert abs(float(z.pow(power).mean()) - moment) < 5 * spread
    outside = float((z.abs() > 1.959964).double().mean())
    assert abs(outside - 0.05) < 5 * math.sqrt(0.05 * 0.95 / len(z))


def test_streams_of_images_copies_seeds_and_purposes_are_uncorrelated() -> None:
    streams = torch.cat(
        [
            perturb.normal(perturb.keys(0, ["a", "b"]), 2, 4000).flatten(0, 1),
            perturb.normal(perturb.keys(1, ["a"]), 1, 4000)[0],
            perturb.normal(perturb.keys(0, ["a"], purpose="dropout"), 1, 4000)[0],
        ]
    )
    correlation = torch.corrcoef(streams) - torch.eye(len(streams))
    assert float(correlation.abs().max()) < 5 / math.sqrt(4000)


def test_an_image_has_the_same_noise_in_any_batch() -> None:
    images = torch.rand(5, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    ids = ["a", "b", "a/b", "ü", ""]
    together = perturb.noisy_copies(images, ids, 3, 0.1, seed=7)
    for i in (4, 2, 0):
        alone = perturb.noisy_copies(images[i : i + 1], ids[i : i + 1], 3, 0.1, seed=7)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=0)
    fewer = perturb.noisy_copies(images, ids, 2, 0.1, seed=7)
    torch.testing.assert_close(fewer, together[:, :3], rtol=0, atol=0)


@pytest.mark.parametrize(("images", "copies", "count"), [(1, 1, 1003), (3, 4, 41), (7, 2, 4), (2, 0, 5), (2, 3, 0)])
def test_numbers_do_not_depend_on_the_pieces_they_are_drawn_in(
    images: int, copies: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = perturb.keys(0, [str(image) for image in range(images)])
    words = perturb._uniform_words
    u = perturb.uniform(key, copies, 4 * math.ceil(count / 4)).unflatten(-1, (4, -1))
    radius, angle = (-2 * u[..., :2, :].log()).sqrt(), 2 * math.pi * u[..., 2:, :]
    wanted = torch.cat([radius * angle.cos(), radius * angle.sin()], -2).flatten(-2)[..., :count].float()
    for most in (1, 3, 16, 1 << 15):
        sizes = [0]

        def watched(key: Tensor, some: range, blocks: range, sizes: list[int] = sizes) -> Tensor:
            sizes.append(len(key) * len(some) * len(blocks))
            return words(key, some, blocks)

        monkeypatch.setattr(perturb, "_CACHE_BLOCKS", most)
        monkeypatch.setattr(perturb, "_uniform_words", watched)
        torch.testing.assert_close(perturb.normal(key, copies, count), wanted, rtol=1e-6, atol=1e-9)
        assert max(sizes) <= most


def test_the_clean_image_comes_first_and_sigma_scales_the_noise() -> None:
    images = torch.rand(2, 1, 28, 28)
    small, large = (perturb.noisy_copies(images, ["x", "y"], 4, sigma, seed=0) for sigma in (0.01, 0.02))
    assert small.shape == (2, 5, 1, 28, 28)
    torch.testing.assert_close(small[:, 0], images, rtol=0, atol=0)
    torch.testing.assert_close(2 * (small - images[:, None]), large - images[:, None], rtol=0, atol=1e-6)


def test_ids_that_look_alike_have_different_keys() -> None:
    keys = perturb.keys(1, ["1:a", "a", "1", "11", "a "])
    assert len({tuple(key) for key in keys.tolist()}) == 5
    assert perturb.keys(11, ["a"]).tolist() != perturb.keys(1, ["1a"]).tolist()
