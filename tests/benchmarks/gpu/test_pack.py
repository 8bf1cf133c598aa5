"""Images in one file, and out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from regrad.benchmarks.gpu import pack
from tests.shards import png, write_parquet


def test_what_is_packed_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "TEST_IMAGES", 5)
    smooth = np.linspace(0, 255, 32 * 32 * 3).reshape(32, 32, 3)
    pictures = [np.roll(smooth, 100 * number, axis=0).astype(np.uint8) for number in range(8)]
    rows = [(f"{number}", png(picture), number % 3) for number, picture in enumerate(pictures)]
    train, test = (write_parquet(tmp_path / f"{name}.parquet", rows) for name in ("train", "test"))
    pack.write_pictures(train, test, str(tmp_path / "pack"))
    held = pack.read_pictures(str(tmp_path / "pack"), "train")
    assert held.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert float(np.abs(held.pixels.astype(float) - pictures).mean()) < 5  # lossy
    exact = pack.read_pictures(str(tmp_path / "pack"), "test")
    assert exact.labels.tolist() == [0, 1, 2, 0, 1]
    assert np.array_equal(exact.pixels, pictures[:5])
