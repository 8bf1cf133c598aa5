"""An output compacted as a whole: what is in it stays, whatever step it is stopped at; and which files count."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regrad import storage, table
from regrad.errors import UsageError
from regrad.ledger import commit, compact, contents, fold, lease, merge
from regrad.ledger.rows import Rows
from tests.data import ROOT
from tests.ledger.test_merge import expected, ids, key_of, merged, written
from tests.outputs import Stopped, stop_after

NUMBERS = range(12)
CONFIG = {"embeddings": True}


def begin(folder: Path, numbers: range = NUMBERS) -> str:
    """An output as a version before would leave it: loose records, parts, and a stray part."""
    for number in numbers:
        written(str(folder), number)
    (folder / "run.json").write_text(json.dumps({"schema_version": 2, "status": "done", "config": CONFIG}))
    (folder / "scores/part-0123.parquet").write_bytes(b"half")
    return str(folder)


def same(output: str, numbers: range = NUMBERS) -> None:
    for kind in contents.KINDS:
        assert sorted(ids(Rows(output, kind).tables())) == sorted(expected(numbers, kind))


def test_all_is_folded_and_merged_and_nothing_else_is_left(tmp_path: Path) -> None:
    output = begin(tmp_path)
    done = compact.compact(output)
    assert done == compact.Compacted(folded=12, moved=24, removed=1, files=3)
    same(output)
    for kind in contents.KINDS:
        assert sorted(table.read(output, kind=kind)["id"].to_pylist()) == sorted(expected(NUMBERS, kind))
    assert table.read_run(output) == {"schema_version": table.SCHEMA_VERSION, "status": "done", "config": CONFIG}
    there = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert there == [".", "embeddings", "ledger", "provenance", "quarantine", "scores"]
    assert compact.compact(output) == compact.Compacted(folded=0, moved=0, removed=0, files=3)


def test_stopped_at_any_step_it_can_be_done_again(
    tmp_path: Path, steps: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "_UNITS", 3)
    count, numbers = 0, range(7)
    while True:
        output = begin(tmp_path / str(count), numbers)
        left = iter(range(count))
        steps.append(lambda left=left: stop_after(left))  # type: ignore[misc]
        ended = False
        with contextlib.suppress(Stopped):
            compact.compact(output)
            ended = True
        steps.clear()
        same(output, numbers)
        if ended:
            break
        compact.compact(output)
        same(output, numbers)
        assert sorted(table.read(output)["id"].to_pylist()) == sorted(expected(numbers))
        assert commit.left_over(output, contents.committed(output)) == []
        count += 1
    assert count > 25


SMALL = """
import sys
from regrad.commands.compact import main
from regrad.ledger import merge
merge._UNITS = 2
sys.exit(main(sys.argv[1:]))
"""


def test_killed_at_random_moments_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    numbers, dice = range(150), random.Random(1)
    output = begin(tmp_path, numbers)
    states = []
    for _ in range(4):
        there = {*merged(output)}
        process = subprocess.Popen([sys.executable, "-c", SMALL, output], env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            while process.poll() is None and {*merged(output)} == there:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.15))
        finally:
            process.kill()
            process.wait()
        states.append(len(merged(output)))
        same(output, numbers)
    assert 0 < states[0] < 56  # 112 units have rows
    compact.compact(output)
    same(output, numbers)
    assert sorted(table.read(output)["id"].to_pylist()) == sorted(expected(numbers))
    assert commit.left_over(output, contents.committed(output)) == []


def test_the_files_that_count_and_of_one_that_does_in_part_which_rows(tmp_path: Path) -> None:
    output = begin(tmp_path)
    own = [part.uri for part in compact.parts(output)]
    assert own == sorted(contents.part_uri(output, "scores", key_of(n)) for n in NUMBERS if expected([n]))
    compact.compact(output)
    (name,) = merged(output)
    assert list(compact.parts(output)) == [compact.CountingFile(storage.join(output, "scores", name))]
    gone = [1, 5, 6]
    commit.retire(output, [key_of(number) for number in gone])
    fold.fold(output, lambda: None)
    (part,) = compact.parts(output)
    assert part.spans is not None
    rows = table.read(output)["id"].to_pylist()  # all there are, also those that do not count
    counting = [row for first, end in part.spans for row in rows[first:end]]
    assert counting == expected(set(NUMBERS) - {*gone})
    assert all(end < first for (_, end), (first, _) in zip(part.spans, part.spans[1:], strict=False))


def test_what_is_no_run_or_has_one_at_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run\.json here"):
        compact.compact(str(tmp_path))
    output = begin(tmp_path)
    with (
        lease.hold(output, seconds=1.5),
        pytest.raises(UsageError, match="another run is at work"),
    ):
        compact.compact(output)
    assert not merged(output)
