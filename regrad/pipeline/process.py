"""What a process that decodes and scores sets for all of itself: by whoever starts it, not by what is built in it."""

from __future__ import annotations

import warnings

import torch

from regrad.reading import images


def set_up(threads: int) -> None:
    """Before a process scores its first image, as a worker or for a command.

    torch gets ``threads`` threads; what is wrong with an image is told in its row, and not by warnings of Pillow's; and
    the limit of an image's pixels is the one that the user set, not Pillow's.
    """
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    images.lift_limit()
