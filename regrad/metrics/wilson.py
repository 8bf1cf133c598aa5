"""How sure a share is."""

from __future__ import annotations

import math


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """(p + z^2/2n -+ z sqrt(p (1 - p) / n + z^2/4n^2)) / (1 + z^2/n), p = part / whole, z = 1.96: Wilson's 95 %.

    >>> [round(end, 3) for end in share_interval(5, 10)]
    [0.237, 0.763]
    """
    z, p = 1.96, part / whole
    half = z * math.sqrt(p * (1 - p) / whole + (z / whole) ** 2 / 4)
    middle, scale = p + z * z / whole / 2, 1 + z * z / whole
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
