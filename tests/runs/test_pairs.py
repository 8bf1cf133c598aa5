"""Two runs joined by source and id, against a join in Python dictionaries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrad import table
from regrad.errors import RegradError, UsageError
from regrad.runs import pairs, scored
from regrad.runs.pairs import Pairs
from tests.conftest import run_json
from tests.outputs import commit_rows

NAMES = ["plain", "<script>", "שלום 🙂", "", "x" * 10_000, "a:b", "a", "b:a"]


def write(folder: Path, name: str, rows: list[tuple[str, str, float, int | None]], parts: int = 3) -> scored.Run:
    """A run of rows (source, id, score, label), in this order."""
    schema = table.score_schema(["regrad"])
    (folder / name / "scores").mkdir(parents=True)
    (folder / name / "run.json").write_text(json.dumps(run_json()))
    for number, places in enumerate(np.array_split(np.arange(len(rows)), parts)):
        columns = {
            "id": [rows[place][1] for place in places],
            "source": [rows[place][0] for place in places],
            "row": places,
            "label": [rows[place][3] for place in places],
            "prediction": places % 10,
            "confidence": [0.5] * len(places),
            "nll": [None if rows[place][3] is None else 1.0 for place in places],
            "digest": [f"{place:032x}" for place in places],
            "regrad": [rows[place][2] for place in places],
        }
        part = pa.table(columns, schema=schema)
        commit_rows(str(folder / name), str(number), part)
    return scored.load_run(name, str(folder / name))


def both(folder: Path, count: int = 900) -> tuple[scored.Run, scored.Run, dict[str, Any]]:
    """Two runs that share two thirds of their images, in different orders, and what the join must give."""
    rng = np.random.default_rng(0)
    images = [(f"s3://b/{number % 3}.tar", f"{NAMES[number % len(NAMES)]}{number // 24}") for number in range(count)]
    assert len(set(images)) == count
    sides = []
    for keep in (images[: 2 * count // 3], images[count // 3 :]):
        values = {image: float(rng.normal()) for image in keep}
        order = rng.permutation(len(keep))
        sides.append((values, [(*keep[place], values[keep[place]], int(place) % 10) for place in order]))
    (ours, rows_a), (theirs, rows_b) = sides
    expected = {image: (ours[image], theirs[image]) for image in images if image in ours and image in theirs}
    return write(folder, "A", rows_a), write(folder, "B", rows_b), expected


@pytest.mark.parametrize("rows_a_file", [10**6, 50])
def test_rows_are_paired_by_source_and_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_a_file: int) -> None:
    monkeypatch.setattr(pairs, "ROWS_A_FILE", rows_a_file)
    a, b, expected = both(tmp_path)
    with Pairs(a, b, ["regrad"]) as joined:
        rows = pa.concat_tables(joined.tables(["source", "id", "a.regrad", "b.regrad"])).to_pylist()
        assert len(list(joined.tables(["key"]))) == (1 if rows_a_file > 1000 else 13)
    assert {(row["source"], row["id"]): (row["a.regrad"], row["b.regrad"]) for row in rows} == expected
    assert len(rows) == len(expected) == joined.paired == 300
    assert (joined.only, joined.repeated) == ([300, 300], [0, 0])


def test_keys_spread_over_the_files_and_depend_on_both_texts() -> None:
    source = pa.chunked_array([[f"s{number % 2}" for number in range(20_000)]])
    name = pa.chunked_array([[f"{number // 2:08}" for number in range(20_000)]])
    keys = pairs.hashes(source, name)
    assert len(set(keys.tolist())) == 20_000
    counts = np.bincount((keys % np.uint64(50)).astype(int), minlength=50)
    assert counts.min() > 300  # of 400 expected
    assert pairs.hashes(source.slice(7, 100), name.slice(7, 100)).tolist() == keys[7:107].tolist()


def test_ids_that_are_not_unique_are_paired_with_nothing(tmp_path: Path) -> None:
    a = write(tmp_path, "A", [("s", "1", 0.1, 1), ("s", "2", 0.2, 2), ("s", "2", 0.3, 2), ("t", "2", 0.4, 3)])
    b = write(tmp_path, "B", [("s", "1", 0.5, 1), ("s", "2", 0.6, 2), ("t", "2", 0.7, 4)])
    with Pairs(a, b, ["regrad"]) as joined:
        rows = pa.concat_tables(joined.tables(["source", "id", "a.regrad", "b.regrad"])).to_pylist()
    assert sorted((row["source"], row["id"], row["a.regrad"], row["b.regrad"]) for row in rows) == [
        ("s", "1", 0.1, 0.5),
        ("t", "2", 0.4, 0.7),
    ]
    assert (joined.paired, joined.only, joined.repeated, joined.labels_differ) == (2, [0, 1], [2, 0], 1)


def test_labels_are_judged_where_both_runs_can(tmp_path: Path) -> None:
    a = write(tmp_path, "A", [("s", str(row), 0.0, label) for row, label in enumerate([0, 5, None, 10, 4])])
    b = write(tmp_path, "B", [("s", str(row), 0.0, label) for row, label in enumerate([0, 1, 2, 3, None])])
    with Pairs(a, b, ["regrad"]) as joined:
        rows = pa.concat_tables(joined.tables(["id", "label", "judged", "a.right", "b.right"])).to_pylist()
    found = {row.pop("id"): tuple(row.values()) for row in rows}
    # The prediction of a row is its number.
    assert found["0"] == (0, True, True, True)
    assert found["1"] == (5, True, False, True)
    assert [found[row][:2] for row in "234"] == [(2, False), (10, False), (4, False)]


def test_a_sample_is_the_same_however_the_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, _ = both(tmp_path)
    found = []
    for size in (10**6, 50):
        monkeypatch.setattr(pairs, "ROWS_A_FILE", size)
        with Pairs(a, b, ["regrad"]) as joined:
            found.append({row["id"] for row in joined.sample(["id", "source"], 40).to_pylist()})
            assert joined.sample(["id"], 10**6).num_rows == 300
    assert found[0] == found[1]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    a, b, _ = both(tmp_path)
    with Pairs(a, b, ["regrad"]):
        assert os.listdir(tmp_path / "temporary")
    assert not os.listdir(tmp_path / "temporary")
    part = Path(b.output, "scores/part-1.parquet")
    part.write_bytes(part.read_bytes()[:-200] + b"0" * 200)
    with pytest.raises(RegradError, match="B/scores: cannot read"), Pairs(a, b, ["regrad"]):
        pass
    assert not os.listdir(tmp_path / "temporary")


def test_runs_without_a_common_image_or_any_row_are_refused(tmp_path: Path) -> None:
    a = write(tmp_path, "A", [("s", "1", 0.1, 1)])
    with (
        pytest.raises(UsageError, match="no image is in both"),
        Pairs(a, write(tmp_path, "B", [("t", "1", 0.1, 1)]), []),
    ):
        pass
    with pytest.raises(UsageError, match="empty: the run scored no image"), Pairs(a, write(tmp_path, "empty", []), []):
        pass


COMPARE = """
import json, resource, sys
from regrad.compare import comparison, resampled
from regrad.runs import pairs, scored, tally
tally.Tally.__init__.__defaults__ = (2**14,)  # the defaults are for a hundred times the rows
pairs.ROWS_A_FILE, scored.ROWS_AT_ONCE = 2**15, 2**15
a, b = (scored.load_run(name, output) for name, output in zip("AB", sys.argv[1:]))
resampled.PairSample.of.__func__.__defaults__ = (1000,)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = comparison.compare(a, b, [], "quantile=0.95", 20)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) / 1024, report["paired"], report["scores"]["regrad"]["rank_correlation"]["value"]]))
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rng, part, parts = np.random.default_rng(0), 40_000, 16
    schema = table.score_schema(["regrad"])
    for name in "ab":
        (tmp_path / name / "scores").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps(run_json()))
        for number in rng.permutation(parts):
            columns = {
                "id": [f"shard-{number:05}/image-{row:09}" for row in range(part)],
                "source": [f"s3://bucket/shard-{number:05}.tar"] * part,
                "row": np.arange(part),
                "label": np.arange(part) % 10,
                "prediction": rng.integers(0, 10, part),
                "confidence": rng.random(part).astype(np.float32),
                "nll": rng.exponential(1, part),
                "digest": [f"{row:032x}" for row in range(part)],
                "regrad": np.arange(part) + part * number,
            }
            rows = pa.table(columns, schema=schema)
            commit_rows(str(tmp_path / name), f"{number:05}", rows)
    command = [sys.executable, "-c", COMPARE, str(tmp_path / "a"), str(tmp_path / "b")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, images, correlation = json.loads(result.stdout)
    assert images == part * parts
    assert correlation == pytest.approx(1.0, abs=1e-6)  # only if every row found its own
    # As Arrow tables the two runs and their pairs take 230 MB, and the texts to join them by 90 MB more.
    assert megabytes < 230, f"{megabytes:.0f} MB"
