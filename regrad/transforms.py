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
