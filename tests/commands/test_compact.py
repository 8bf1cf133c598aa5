"""`regrad compact` on an output that `regrad score` left, and the runs that go on with it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.commands import check
from regrad.commands.compact import main
from regrad.ledger import commit, compact, contents, fold, merge
from regrad.ledger.contents import part_uri, record_uri
from regrad.ledger.rows import Rows
from regrad.pipeline import options, run
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.results import Committed, UnitResult
from regrad.pipeline.run import RunOutcome, execute, score_here
from tests.ledger.test_merge import merged
from tests.shards import digits, write_parquet


def prepared(folder: Path, *more: str) -> Job:
    arguments = [str(folder / "in"), "--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "6", *more]
    return prepare(options.parse([*arguments, "--output", str(folder / "out")], "score", None))


def score(folder: Path, *more: str) -> RunOutcome:
    return execute(prepared(folder, *more), score_here)


def rows(folder: Path) -> list[tuple[str, int]]:
    held = table.read(str(folder / "out")).to_pylist()
    return sorted((Path(row["source"]).name, row["row"]) for row in held)


def expected(**shards: int) -> list[tuple[str, int]]:
    return [(f"{name}.parquet", row) for name, count in shards.items() for row in range(count)]


def test_an_output_is_merged_and_scored_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    write_parquet(tmp_path / "in/a.parquet", digits(30))
    write_parquet(tmp_path / "in/b.parquet", digits(12))
    score(tmp_path, "--limit", "40")
    capsys.readouterr()
    assert main([str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 7 ledger records folded, 7 parts merged; its rows are in 1 file\n"
    assert main([str(output), "--list"]) == 0
    assert capsys.readouterr().out == f"{next((output / 'scores').iterdir())}\n"
    assert main([str(output), "--list", "--quarantine"]) == 0
    assert capsys.readouterr().out == ""
    assert rows(tmp_path) == expected(a=30, b=10)
    before = merged(str(output))
    outcome = score(tmp_path)  # the last unit, which was cut short by the limit, is replaced
    assert outcome.this_run["rows_in"] == 6
    assert rows(tmp_path) == expected(a=30, b=12)
    assert merged(str(output)) != before
    write_parquet(tmp_path / "in/a.parquet", digits(36))  # a shard that changed is scored anew as a whole
    outcome = score(tmp_path)
    assert outcome.this_run["rows_in"] == 36
    assert rows(tmp_path) == expected(a=36, b=12)
    assert check.main([str(output)]) == 0
    score(tmp_path, "--sigma", "0.5", "--replace")
    assert rows(tmp_path) == expected(a=36, b=12)
    assert not merged(str(output))
    assert check.main([str(output)]) == 0


def test_files_with_rows_that_do_not_count_are_listed_with_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    write_parquet(tmp_path / "in/a.parquet", digits(30))
    score(tmp_path)
    main([str(output)])
    records = contents.read_records(str(output), sorted(contents.committed(str(output))))
    ordered = [record["unit"] for record in records]
    commit.retire(str(output), [ordered[0], ordered[2]])
    capsys.readouterr()
    assert main([str(output), "--list"]) == 0
    assert capsys.readouterr().out.split()[1:] == ["6-11", "18-29"]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact after every four units."""
    monkeypatch.setattr(fold, "AT_LEAST", 2)
    monkeypatch.setattr(run, "_COMPACTED_AFTER", 4)
    monkeypatch.setattr(merge, "AT_LEAST", 2)


@pytest.mark.usefixtures("often")
def test_rows_that_are_out_of_date_are_gone_before_anything_is_scored(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in/a.parquet", digits(30))
    write_parquet(tmp_path / "in/b.parquet", digits(30))
    score(tmp_path)
    assert merged(str(tmp_path / "out"))
    write_parquet(tmp_path / "in/a.parquet", digits(24))
    seen = []

    def scoring(job: Job) -> Iterator[UnitResult]:
        seen.append(rows(tmp_path))
        yield from score_here(job)

    execute(prepared(tmp_path), scoring)
    assert seen == [expected(b=30)]
    assert rows(tmp_path) == expected(a=24, b=30)


@pytest.mark.usefixtures("often")
def test_what_a_worker_commits_once_more_is_not_there_twice(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in/a.parquet", digits(60))
    written: dict[str, bytes] = {}

    def scoring(job: Job) -> Iterator[UnitResult]:
        for result in score_here(job):
            if not written and isinstance(result, Committed):
                unit = result.record["unit"]
                for uri in (part_uri(job.task.output, "scores", unit), record_uri(job.task.output, unit)):
                    written[uri] = storage.read_bytes(uri)
            yield result
        for uri, content in written.items():
            assert not Path(uri).exists()  # merged, and folded
            storage.write_atomically(uri, content)

    execute(prepared(tmp_path), scoring)
    assert len(written) == 2
    assert rows(tmp_path) == expected(a=60)
    assert check.main([str(tmp_path / "out")]) == 0


@pytest.mark.usefixtures("often")
def test_a_run_merges_what_it_has_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    real = merge.merge
    monkeypatch.setattr(merge, "merge", lambda *given: moved.append(real(*given)))
    write_parquet(tmp_path / "in/a.parquet", [*digits(35), ("bad", b"no image", 1)])
    score(tmp_path)
    assert moved == [0, 4, 2]  # at the beginning, after four units, and at the end
    assert len(merged(str(tmp_path / "out"))) == len(list((tmp_path / "out/scores").iterdir()))
    assert rows(tmp_path) == expected(a=35)
    assert check.main([str(tmp_path / "out")]) == 0


def by_ledger(output: str) -> list[str]:
    return [name for some in Rows(output).tables(["id"]) for name in some["id"].to_pylist()]


def by_list(output: str) -> list[str]:
    """With what `regrad compact --list` tells, and a plain reader of Parquet."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            names = []
            for part in compact.parts(output):
                own = pyarrow.parquet.read_table(part.uri, columns=["id"])["id"].to_pylist()
                names += [name for first, end in part.spans or [(0, len(own))] for name in own[first:end]]
            return names


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("read", [by_ledger, by_list])
def test_readers_beside_a_run_find_every_committed_row_once(tmp_path: Path, read: Callable[[str], list[str]]) -> None:
    output = str(tmp_path / "out")
    source = write_parquet(tmp_path / "in/a.parquet", digits(900))
    names = pyarrow.parquet.read_table(source)["id"].to_pylist()
    ended = threading.Event()
    sizes: list[int] = []

    def reading() -> None:
        while not ended.is_set():
            committed = contents.read_records(output, sorted(contents.committed(output)))
            before = {name for record in committed for name in names[record["start"] : record["stop"]]}
            found = read(output)
            assert len({*found}) == len(found)
            assert before <= {*found} <= {*names}
            sizes.append(len(found))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(reading)
        try:
            score(tmp_path)
        finally:
            ended.set()
        reader.result()
    assert len({*sizes}) > 5
    assert len(merged(output)) < 10
