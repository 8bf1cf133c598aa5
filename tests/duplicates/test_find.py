"""Duplicates of real runs: what was planted is found, counted in both directions, and stands under the first run."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

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


def brighter(image: bytes) -> bytes:
    """Nearly the same picture, in other bytes."""
    pixels = np.asarray(Image.open(io.BytesIO(image)), np.int64)
    sink = io.BytesIO()
    Image.fromarray(np.minimum(pixels + 1, 255).astype(np.uint8)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Run]:
    """``a`` has 300 images; ``b`` 40 others, 10 of a's as they are and 10 a little brighter, one of its own twice."""
    folder = tmp_path_factory.mktemp("found")
    images = digits(340)
    again = [(f"same-{name}", image, label) for name, image, label in images[:10]]
    alike = [(f"alike-{name}", brighter(image), label) for name, image, label in images[10:20]]
    twice = [("twice", images[320][1], 0)]
    for name, rows in {"a": images[:300], "b": [*images[300:], *again, *alike, *twice]}.items():
        source = write_parquet(folder / f"{name}.parquet", rows)
        assert main(["score", source, *FLAGS, "--embeddings", "--output", str(folder / name)]) == 0
    return [load_run(name, str(folder / name)) for name in ("a", "b")]


def test_what_was_planted_is_found_and_counted(runs: Sequence[Run], tmp_path: Path) -> None:
    found = find_duplicates(runs, 0.97)
    rows = found.rows.to_pylist()
    names = [name for name, *_ in digits(340)]
    by_cluster: dict[int, list[str]] = {}
    for row in rows:
        by_cluster.setdefault(row["cluster"], []).append(row["id"])
    wanted = [{name, f"same-{name}"} for name in names[:10]] + [{name, f"alike-{name}"} for name in names[10:20]]
    assert sorted(map(sorted, by_cluster.values())) == sorted(map(sorted, [*wanted, {names[320], "twice"}]))
    kinds = {row["id"]: row["kind"] for row in rows}
    assert {kinds[name] for name in (*names[:10], names[320], "twice")} == {"exact"}
    assert {kinds[name] for name in names[10:20]} == {"near"}
    assert all(row["similarity"] == 1 if row["kind"] == "exact" else 0.97 <= row["similarity"] < 1 for row in rows)
    first = {row["id"] for row in rows if row["representative"]}
    assert first == {*names[:20], names[320]}
    assert {row["run"] for row in rows if row["id"] in names[:20]} == {runs[0].output}
    numbers = found.numbers
    assert (numbers["images"], numbers["clusters"], numbers["largest"]) == (361, 21, 2)
    assert (numbers["clustered"], numbers["spare"], numbers["exact"]) == (42, 21, 22)
    assert [(run["images"], run["clustered"], run["spare"]) for run in numbers["runs"]] == [(300, 20, 0), (61, 22, 21)]
    across = {(pair["run"], pair["also_in"]): pair["images"] for pair in numbers["across"]}
    a, b = (run.output for run in runs)
    assert across == {(a, b): 20, (b, a): 20}
    write_duplicates(found, str(tmp_path))
    assert table.read_file(str(tmp_path / "duplicates.parquet"), DUPLICATES_SCHEMA).equals(found.rows)
    assert json.loads((tmp_path / "duplicates.json").read_text())["clusters"] == 21


def test_the_run_named_first_is_kept(runs: Sequence[Run]) -> None:
    found = find_duplicates([*reversed(runs)], None)
    rows = found.rows.to_pylist()
    assert {row["id"][:5] for row in rows if row["representative"] and row["id"].startswith("same")} == {"same-"}
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
