"""Rows of two runs under numbers of their own, with embeddings and without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from regrad import table
from regrad.__main__ import main
from regrad.duplicates.gathered import NO_DIGEST, Gathered
from regrad.runs.embeddings import embedding_rows
from regrad.runs.scored import Run, load_run
from tests.shards import digits, write_parquet

FLAGS = ("--model", "tests.shards:build", "--scores", "entropy", "--ray-address", "none", "--embeddings")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Run]:
    folder = tmp_path_factory.mktemp("gathered")
    for name, images in {"a": digits(12), "b": digits(20)[9:]}.items():
        source = write_parquet(folder / f"{name}.parquet", images)
        assert main(["score", source, *FLAGS, "--unit-rows", "5", "--output", str(folder / name)]) == 0
    return [load_run(name, str(folder / name)) for name in ("a", "b")]


@pytest.mark.parametrize("width", [0, 128])
def test_rows_are_numbered_over_all_runs(runs: Sequence[Run], width: int) -> None:
    with Gathered(runs, width) as rows:
        assert rows.bounds.tolist() == [0, 12, 23]
        assert rows.run_of(np.array([0, 11, 12, 22])).tolist() == [0, 0, 1, 1]
        known = rows.known_by(np.arange(23)).to_pylist()
        names = [*known[0]]
        for run, some in zip(runs, (known[:12], known[12:]), strict=True):
            wanted = table.read(run.output, names, "embeddings" if width else "scores").to_pylist()
            assert sorted(map(str, some)) == sorted(map(str, wanted))
        for name, keys in rows.keys.items():
            assert [int(row[name][:16], 16) for row in known] == keys.tolist()
        assert rows.hashes.tolist() == [row["perceptual_hash"] for row in known if width]
        assert [*rows.keys] == ["digest", "pixels"][: 1 + bool(width)]
        assert rows.known_by(np.array([22, 3])).to_pylist() == [known[22], known[3]]
        if width:
            wanted_vectors = np.concatenate([some.vectors for run in runs for some in embedding_rows(run)])
            assert np.array_equal(rows.vectors, wanted_vectors)
            assert isinstance(rows.vectors, np.memmap)
        folder = Path(rows._folder.name)
        assert folder.exists()
    assert not folder.exists()


def test_their_order_is_that_of_runs_sources_and_rows(runs: Sequence[Run]) -> None:
    with Gathered([*reversed(runs)]) as rows:  # of which the first has the later source
        numbers = np.arange(23)[::-1]
        ordered = rows.known_by(numbers[np.argsort(rows.ranks(numbers))])["row"].to_pylist()
        assert ordered == [*range(11), *range(12)]


def test_a_row_without_a_digest_has_a_key_of_its_own(runs: Sequence[Run]) -> None:
    with Gathered(runs) as rows:
        assert (rows.keys["digest"] != NO_DIGEST).all()
