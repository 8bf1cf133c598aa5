"""Where the real images and weights are: ``REGRAD_DATA``, else ``../shared/data``; tests skip without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def data_path(name: str) -> Path:
    """The file ``name`` of the data folder; skips the calling test when it is not there."""
    path = Path(os.environ.get("REGRAD_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.exists():
        pytest.skip(f"needs the real data: {path.name} is not in {path.parent} (set REGRAD_DATA)")
    return path
