"""Functions for ``--transform module:function``: a [0, 1] image (channels, H, W) in, one of the same shape out."""

from __future__ import annotations

from torch import Tensor


def invert(image: Tensor) -> Tensor:
    """1 - image: black strokes on white become white on black, as in MNIST.

    >>> import torch
    >>> invert(torch.tensor([0.0, 0.25]))
    tensor([1.0000, 0.7500])
    """
    return 1 - image


def reverse_channels(image: Tensor) -> Tensor:
    """The last channel first: for networks that were trained on blue, green, red.

    >>> import torch
    >>> reverse_channels(torch.tensor([[[0.1]], [[0.2]], [[0.3]]])).flatten()
    tensor([0.3000, 0.2000, 0.1000])
    """
    return image.flip(0)
