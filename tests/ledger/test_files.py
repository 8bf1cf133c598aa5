"""Files of rows: their names."""

from __future__ import annotations

import pytest

from regrad.ledger import files


def test_a_name_has_rows_bytes_and_the_digest_of_the_content() -> None:
    assert files.size_of(files.name_for(12, b"content")) == (12, 7)
    assert files.name_for(12, b"content") != files.name_for(12, b"another")


@pytest.mark.parametrize("name", ["part-0.parquet", "merged-1-2-3.parquet", "_tmp-merged-0.parquet"])
def test_other_names_have_no_size(name: str) -> None:
    assert files.size_of(name) is None
