"""Duplicates of real runs: what was planted is found, counted in both directions, and stands under the first run."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regrad import table
from regrad.__main__ import main
from regrad.duplicates.find import DUPLICATES_SCHEMA, find_duplicates, why_not_near, write_duplicates
from regrad.errors import UsageError
from regrad.runs.scored import Run, load_run
from tests.shards import digits, write_parquet

FLAGS = ("--model", "tests.shards:build", "--scores", "entropy", "--ray-address", "none", "--unit-rows", "50")


def again(image: bytes, change: Callable[[Any], Any] = lambda pixels: pixels) -> bytes:
    """The picture with its pixels changed, in other bytes."""
    pixels = np.asarray(Image.open(io.BytesIO(image)), np.int64)
    sink = io.BytesIO()
    Image.fromarray(change(pixels).astype(np.uint8)).save(sink, "PNG", compress_level=0)
    return sink.getvalue()


#: What is done to ten images of ``a`` each, and the kind of duplicate that they are.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "exact": lambda pixels: pixels,
    "pixels": lambda pixels: pixels,
    "hash": lambda pixels: pixels[:, ::-1],
    "near": lambda pixels: np.clip(pixels + NOISE, 0, 255),
}
NOISE = np.random.default_rng(0).integers(-9, 10, (8, 8))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Run]:
    """``a`` has 300 images; ``b`` 40 others, 40 of a's, changed or not, and one of its own twice."""
    folder = tmp_path_factory.mktemp("found")
    images = digits(340)
    planted = [
        (f"{kind}-{name}", image if kind == "exact" else again(image, change), label)
        for place, (kind, change) in enumerate(CHANGES.items())
        for name, image, label in images[10 * place : 10 * place + 10]
    ]
    twice = [("twice", images[320][1], 0)]
    for name, rows in {"a": images[:300], "b": [*images[300:], *planted, *twice]}.items():
        source = write_parquet(folder / f"{name}.parquet", rows)
        assert main(["score", source, *FLAGS, "--embeddings", "--output", str(folder / name)]) == 0
    return [load_run(name, str(folder / name)) for name in ("a", "b")]


def test_what_was_planted_is_found_and_counted(runs: Sequence[Run], tmp_path: Path) -> None:
    found = find_duplicates(runs, 0.97, 1)
    rows = found.rows.to_pylist()
    names = [name for name, *_ in digits(340)]
    by_cluster: dict[int, list[str]] = {}
    for row in rows:
        by_cluster.setdefault(row["cluster"], []).append(row["id"])
    wanted = [[name, f"{kind}-{name}"] for place, kind in enumerate(CHANGES) for name in names[10 * place :][:10]]
    assert sorted(by_cluster.values()) == sorted([*wanted, [names[320], "twice"]])
    kinds = {row["id"]: row["kind"] for row in rows}
    for place, kind in enumerate(CHANGES):  # noise may leave a picture that looks the same
        of_kind = {kinds[name] for name in names[10 * place :][:10]}
        assert of_kind == {kind} or (kind == "near" and of_kind == {"near", "hash"})
    assert all(row["similarity"] == 1 for row in rows if row["kind"] in ("exact", "pixels"))
    assert all(0.97 <= row["similarity"] < 1 for row in rows if row["kind"] == "near")
    assert {row["id"] for row in rows if row["representative"]} == {*names[:40], names[320]}
    assert {row["run"] for row in rows if row["id"] in names[:40]} == {runs[0].output}
    numbers = found.numbers
    assert (numbers["images"], numbers["clusters"], numbers["largest"]) == (381, 41, 2)
    assert (numbers["clustered"], numbers["spare"]) == (82, 41)
    assert numbers["kinds"] == {kind: sum(row["kind"] == kind for row in rows) for kind in CHANGES}
    assert [(run["images"], run["clustered"], run["spare"]) for run in numbers["runs"]] == [(300, 40, 0), (81, 42, 41)]
    across = {(pair["run"], pair["also_in"]): pair["images"] for pair in numbers["across"]}
    a, b = (run.output for run in runs)
    assert across == {(a, b): 40, (b, a): 40}
    write_duplicates(found, str(tmp_path))
    assert table.read_file(str(tmp_path / "duplicates.parquet"), DUPLICATES_SCHEMA).equals(found.rows)
    assert json.loads((tmp_path / "duplicates.json").read_text())["clusters"] == 41


def test_looser_limits_find_more(runs: Sequence[Run]) -> None:
    def kinds(*limits: Any) -> dict[str, int]:
        counts: dict[str, int] = find_duplicates(runs, *limits).numbers["kinds"]
        return counts

    strict = kinds(0.97, 0)
    assert kinds(0.97, 3)["hash"] > strict["hash"]
    assert kinds(0.6, 0)["near"] > strict["near"]
    assert kinds(0.97, 0, "plain")["near"] > 2 * strict["near"]
    assert [find_duplicates(runs, 0.97, 0, asked).numbers["cosine"] for asked in (None, "plain")] == [
        "whitened",
        "plain",
    ]


def test_the_run_named_first_is_kept(runs: Sequence[Run]) -> None:
    found = find_duplicates([*reversed(runs)], None)
    rows = found.rows.to_pylist()
    first = {row["id"] for row in rows if row["representative"]}
    assert first == {*(f"exact-{name}" for name, *_ in digits(10)), digits(340)[320][0]}
    assert found.numbers["clusters"] == found.numbers["spare"] == 11
    assert {row["kind"] for row in rows} == {"exact"}


def test_a_run_alone_has_its_own(runs: Sequence[Run]) -> None:
    assert find_duplicates(runs[:1], 0.97).numbers["clusters"] == 0
    found = find_duplicates(runs[1:], 0.97)
    assert [row["id"] for row in found.rows.to_pylist()] == [digits(340)[320][0], "twice"]
    assert found.numbers["across"] == []


def test_runs_that_do_not_compare_say_why(runs: Sequence[Run]) -> None:
    assert why_not_near(runs) is None
    a, b = runs
    plain = {**b.model, "embedding_width": None}
    other = {**b.model, "network": "0" * 64}
    assert f"{b.output} kept no embeddings" in (why_not_near([a, replace(b, info={"model": plain})]) or "")
    assert "are of different networks" in (why_not_near([a, replace(b, info={"model": other})]) or "")
    with pytest.raises(UsageError, match="named twice, and all of its images would be duplicates"):
        find_duplicates([a, b, a], None)
