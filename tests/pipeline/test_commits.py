"""Which finished units are committed together, and what becomes of them when one has changed or the storage fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import bundles, contents
from regrad.ledger.commit import NewUnit
from regrad.pipeline.account import Account
from regrad.pipeline.commits import Commits
from regrad.pipeline.plan import Unit
from regrad.pipeline.results import Committed, SourceChanged
from regrad.pipeline.worker import UnitScorer
from regrad.reading.samples import Sample
from tests.pipeline.test_worker import SCORES, rows, score, task, units
from tests.shards import digits, records_of, write_parquet

SCHEMA = table.score_schema([])


def account(number: int, count: int, replaces: Sequence[str] = ()) -> Account:
    """A finished unit of so many rows."""
    key = f"{number:032x}"
    unit = Unit(f"{number}.parquet", "parquet", 0, count, "e", key, count, 1, replaces=tuple(replaces))
    made = Account(unit, SCHEMA, 10, complete=True, rows_in=count)
    for row in range(count):
        made.add(Sample(row, id=f"{number}/{row}", image=None, label=1), 1, 0.5, 0.7, ())
    return made


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of the units that were handed over at once."""
    seen: list[list[int]] = []

    def write(output: str, some: Sequence[NewUnit], allowed: Any) -> None:
        seen.append([int(unit.key, 16) for unit in some])

    monkeypatch.setattr(bundles, "write_units", write)
    return seen


def committed(accounts: Sequence[Account], unit_rows: int = 100) -> list[Committed | SourceChanged]:
    with Commits("out", {}, unit_rows, None) as commits:
        for each in accounts:
            commits.add(each)
        return [*commits.rest()]


def test_neighbours_of_as_many_rows_as_a_usual_unit(together: list[list[int]]) -> None:
    results = committed([account(number, 10) for number in range(24)])
    assert together == [[*range(10)], [*range(10, 20)], [*range(20, 24)]]
    assert [result.record["unit"] for result in results if isinstance(result, Committed)] == [
        f"{number:032x}" for number in range(24)
    ]


def test_no_more_than_so_many(together: list[list[int]]) -> None:
    committed([account(number, 0) for number in range(bundles.MOST + 9)])
    assert [len(some) for some in together] == [bundles.MOST, 9]


def test_what_is_large_or_replaces_another_goes_at_once(together: list[list[int]]) -> None:
    small = [account(number, 5) for number in range(10)]
    committed([*small[:4], account(10, 51), account(11, 1, replaces=["f" * 32]), *small[4:]])
    assert together == [[10], [11], [*range(10)]]


def test_tiny_shards_end_in_one_file_of_each_kind(tmp_path: Path) -> None:
    sources = [write_parquet(tmp_path / f"{number:02}.parquet", [row]) for number, row in enumerate(digits(20))]
    records = score(tmp_path / "together", *sources)
    assert [record["source"] for record in records] == sources
    assert len([*(tmp_path / "together").rglob("*.parquet")]) == 2
    assert contents.read_records(str(tmp_path / "together"), [record["unit"] for record in records]) == records
    alone = [record for source in sources for record in score(tmp_path / "alone", source)]
    own = ("finished", "seconds")
    assert [{**record, **dict.fromkeys(own)} for record in records] == [
        {**record, **dict.fromkeys(own)} for record in alone
    ]
    together, one_by_one = rows(tmp_path / "together"), rows(tmp_path / "alone")
    assert together.keys() == one_by_one.keys()
    for name, row in one_by_one.items():
        assert {**together[name], "regrad": 0, "entropy": 0} == {**row, "regrad": 0, "entropy": 0} | {
            column: pytest.approx(row[column], rel=1e-6) for column in ("confidence", "nll")
        }
        assert [together[name][column] for column in SCORES] == pytest.approx([row[column] for column in SCORES], 1e-6)


def test_a_source_that_changed_meanwhile_is_left_out_of_them(tmp_path: Path) -> None:
    sources = [write_parquet(tmp_path / f"{number:02}.parquet", [row]) for number, row in enumerate(digits(20))]
    scorer, planned = UnitScorer(task(tmp_path / "out")), units(*sources)
    write_parquet(Path(sources[7]), digits(3))
    results = [*scorer.score(planned)]
    assert [result.source for result in results if isinstance(result, SourceChanged)] == [sources[7]]
    assert [record["source"] for record in records_of(results)] == [*sources[:7], *sources[8:]]
    assert contents.committed(str(tmp_path / "out")) == {unit.key for unit in planned if unit.source != sources[7]}


def test_after_a_write_that_failed_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def write(output: str, some: Sequence[NewUnit], allowed: Any) -> None:
        tried.append(len(some))
        raise RegradError("the store is gone")

    monkeypatch.setattr(bundles, "write_units", write)
    with Commits("out", {}, 100, None) as commits:
        for number in range(40):
            commits.add(account(number, 10))
        with pytest.raises(RegradError, match="the store is gone"):
            [*commits.rest()]
    assert tried == [10]


def test_what_was_not_read_as_planned_is_not_committed(tmp_path: Path) -> None:
    wrong = account(3, 2)
    wrong.rows_in = 1
    wrong.scored.pop()
    with Commits(str(tmp_path), {}, 100, None) as commits:
        for each in (*(account(number, 1) for number in range(10, 20)), wrong):
            commits.add(each)
        with pytest.raises(RegradError, match="1 rows read where 2 were planned"):
            [*commits.rest()]
    assert contents.committed(str(tmp_path)) == set()


def test_they_are_written_while_the_next_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def write(output: str, some: Sequence[NewUnit], allowed: Any) -> None:
        entered.set()
        assert go_on.wait(20)

    monkeypatch.setattr(bundles, "write_units", write)
    with Commits("out", {}, 10, None) as commits:
        commits.add(account(1, 10))
        assert entered.wait(20)
        assert [*commits.ended()] == []
        commits.add(account(2, 10))
        go_on.set()
        assert len([*commits.rest()]) == 2


def test_leaving_ends_what_is_being_written_and_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, done = threading.Event(), []

    def write(output: str, some: Sequence[NewUnit], allowed: Any) -> None:
        entered.set()
        threading.Event().wait(0.2)
        done.append(len(some))

    monkeypatch.setattr(bundles, "write_units", write)
    with Commits("out", {}, 10, None) as commits:
        for number in range(3):
            commits.add(account(number, 10))
        assert entered.wait(20)
    assert done == [1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("regrad-commit")]
    assert not storage.list_files("out")
