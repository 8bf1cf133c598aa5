"""Pairs of hashes against all of them compared one by one."""

from __future__ import annotations

import numpy as np
import pytest

from regrad.duplicates import hashes
from regrad.duplicates.hashes import hash_pairs
from regrad.errors import UsageError
from regrad.reading.likeness import MIRRORED


def planted(rows: int = 300, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Hashes, half of which have few bits other than one before, or than its mirror image."""
    draw = np.random.default_rng(seed)
    bits = draw.random((rows, 64)) < 0.5
    for row in range(rows // 2, rows):
        bits[row] = bits[draw.integers(0, rows // 2)]
        bits[row, draw.choice(64, draw.integers(0, 11), replace=False)] ^= True
    numbers = np.packbits(bits, axis=1).view(">u8").astype(np.uint64).ravel()
    return np.where(draw.random(rows) < 0.3, numbers ^ np.uint64(MIRRORED), numbers)


@pytest.mark.parametrize("task_rows", [40, 2**18])
@pytest.mark.parametrize("distance", [0, 4, 9])
def test_none_is_missed_and_none_is_too_much(distance: int, task_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_BLOCK", 7)
    monkeypatch.setattr(hashes, "_OTHERS", 11)
    monkeypatch.setattr(hashes, "_TASK_ROWS", task_rows)
    numbers = planted()
    differing = {
        (a, b): min(int(x).bit_count(), (int(x) ^ MIRRORED).bit_count())
        for a in range(300)
        for b, x in enumerate(numbers[a] ^ numbers)
        if a < b
    }
    found = [*zip(*hash_pairs(numbers, distance).tolist(), strict=True)]
    assert len(found) == len({*found}) > 10
    assert {*found} == {pair for pair, bits in differing.items() if bits <= distance}


def test_of_no_rows_there_are_no_pairs() -> None:
    assert hash_pairs(np.empty(0, np.uint64), 4).shape == (2, 0)


@pytest.mark.parametrize("most", [100, 1000])  # of 435 pairs in each of three bands: of a task, and of all
def test_too_many_are_refused(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "MOST_PAIRS", most)
    with pytest.raises(UsageError, match=r"pairs of images look alike in all but 2 bits; lower --distance"):
        hash_pairs(np.zeros(30, np.uint64), 2)
