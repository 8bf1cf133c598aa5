"""The pictures a network is looked at with before any image is read."""

from __future__ import annotations

import torch

from regrad.network.probe import probe_images


def test_probe_images_are_pictures_and_always_the_same() -> None:
    images = probe_images(4, 3, (32, 24))
    assert images.shape == (4, 3, 32, 24)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    torch.testing.assert_close(images, probe_images(4, 3, (32, 24)), rtol=0, atol=0)
    neighbours = torch.corrcoef(torch.stack([images[..., 1:].flatten(), images[..., :-1].flatten()]))[0, 1]
    assert neighbours > 0.8  # smooth like a picture: white noise has 0
