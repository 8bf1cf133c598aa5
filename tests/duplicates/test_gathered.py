"""Rows of two runs under numbers of their own, with embeddings and without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from regrad import table
from regrad.__main__ import main
from regrad.duplicates import gathered
from regrad.duplicates.gathered import NO_DIGEST, Gathered
from regrad.duplicates.spread import draw_sample
from regrad.runs.embeddings import EmbeddingRows, embedding_rows
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


@pytest.mark.parametrize("embedded", [False, True])
def test_rows_are_numbered_over_all_runs(runs: Sequence[Run], embedded: bool) -> None:
    with Gathered(runs, embedded) as rows:
        assert rows.bounds.tolist() == [0, 12, 23]
        assert rows.run_of(np.array([0, 11, 12, 22])).tolist() == [0, 0, 1, 1]
        known = rows.known_by(np.arange(23)).to_pylist()
        names = [*known[0]]
        for run, some in zip(runs, (known[:12], known[12:]), strict=True):
            wanted = table.read(run.output, names, "embeddings" if embedded else "scores").to_pylist()
            assert sorted(map(str, some)) == sorted(map(str, wanted))
        for name, keys in rows.keys.items():
            assert [int(row[name][:16], 16) for row in known] == keys.tolist()
        assert rows.hashes.tolist() == [row["perceptual_hash"] for row in known if embedded]
        assert [*rows.keys] == ["digest", "pixels"][: 1 + embedded]
        assert rows.known_by(np.array([22, 3])).to_pylist() == [known[22], known[3]]
        assert [(piece.run, piece.start, piece.rows) for piece in rows.pieces] == (
            [(runs[0], 0, 12), (runs[1], 12, 11)] if embedded else []
        )
        folder = Path(rows._folder.name)
        assert folder.exists()
    assert not folder.exists()


def test_a_piece_is_as_many_units_as_a_task_reads(runs: Sequence[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathered, "_PIECE_BYTES", 2 * 128)
    wanted = np.array([2, 9, 10, 11, 21])
    with Gathered(runs, True) as rows:
        sizes = [(piece.start, piece.rows, len(piece.places)) for piece in rows.pieces]
        assert [start for start, *_ in sizes] == [*np.cumsum([0, *(count for _, count, _ in sizes)])][:-1]
        assert sum(count for *_, count in sizes) == 3 + 3  # units of five rows at most
        assert len(sizes) == 6
        tasks = [piece.task(wanted) for piece in rows.pieces]
        assert np.concatenate([task["rows"] for task in tasks]).tolist() == wanted.tolist()
        ids = rows.known_by(wanted)["id"].to_pylist()
        vectors = np.concatenate([draw_sample(task)["vectors"] for task in tasks])
    seen = {name: some.vectors[row] for run in runs for some in embedding_rows(run) for row, name in _ids(some)}
    assert all(np.array_equal(vector, seen[name]) for vector, name in zip(vectors, ids, strict=True))


def _ids(some: EmbeddingRows) -> Iterable[tuple[int, str]]:
    return enumerate(some.known_by["id"].to_pylist())


def test_their_order_is_that_of_runs_sources_and_rows(runs: Sequence[Run]) -> None:
    with Gathered([*reversed(runs)]) as rows:  # of which the first has the later source
        numbers = np.arange(23)[::-1]
        ordered = rows.known_by(numbers[np.argsort(rows.ranks(numbers))])["row"].to_pylist()
        assert ordered == [*range(11), *range(12)]


def test_a_row_without_a_digest_has_a_key_of_its_own(runs: Sequence[Run]) -> None:
    with Gathered(runs) as rows:
        assert (rows.keys["digest"] != NO_DIGEST).all()
