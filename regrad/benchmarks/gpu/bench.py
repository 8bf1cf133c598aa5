"""What every part is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bench:
    """Where and how large.

    Attributes:
        tiny: for a machine without a GPU, and for tests: other networks, few images.
        folder: for files beside the results.
        images: the file that :func:`regrad.benchmarks.gpu.pack.write_pictures` wrote; None: seeded blobs.
        seconds: what the part may take.
        weights: that an earlier part has trained, if it has.
    """

    device: str
    tiny: bool
    folder: str
    images: str | None = None
    seconds: float = 60.0
    weights: str | None = None
