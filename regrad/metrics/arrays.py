"""What every metric asks of the arrays it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def vector(values: npt.ArrayLike, name: str) -> FloatArray:
    """``values`` as float64 (n,), infinities replaced by the largest finite numbers.

    Raises:
        ValueError: ``values`` (called ``name``) is empty, not one-dimensional, or holds a NaN.
    """
    array: npt.NDArray[Any] = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be one-dimensional with at least one value, not of shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError(f"{name} holds {int(np.isnan(array).sum())} NaN; leave those images out and say how many")
    # Only the order matters here, and scikit-learn refuses infinities.
    return np.clip(array, -np.finfo(np.float64).max, np.finfo(np.float64).max)
