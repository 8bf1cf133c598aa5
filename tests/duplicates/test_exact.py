"""Exact links against a dictionary of digests."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrad.duplicates import exact
from regrad.duplicates.gathered import keys_of


class Held:
    """Rows with these digests, as gathered ones are."""

    def __init__(self, digests: list[str | None]):
        self.table = pa.table({"digest": pa.array(digests, pa.string())})
        self.keys = {"digest": keys_of(self.table["digest"])}

    def known_by(self, rows: Any) -> pa.Table:
        return self.table.take(pa.array(rows))


def linked(digests: list[str | None]) -> set[tuple[int, int]]:
    links = exact.exact_links(Held(digests), "digest")  # type: ignore[arg-type]
    assert (links.similarity == 1).all()
    return {*zip(links.first.tolist(), links.second.tolist(), strict=True)}


def digest(number: int) -> str:
    return hashlib.blake2b(b"%d" % number, digest_size=16).hexdigest()


def test_each_is_linked_with_the_first_that_has_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_AT_ONCE", 7)
    draw = np.random.default_rng(0)
    digests = [digest(int(number)) for number in draw.integers(0, 300, 500)]
    first: dict[str, int] = {}
    wanted = {(first[text], row) for row, text in enumerate(digests) if first.setdefault(text, row) != row}
    assert len(wanted) > 200
    assert linked([*digests]) == wanted


def test_half_a_digest_is_not_enough_and_none_is_like_no_other() -> None:
    half, other = "ab" * 8 + "cd" * 8, "ab" * 8 + "ef" * 8
    assert linked([half, other, None, half, None]) == {(0, 3)}
    assert linked([]) == set()
