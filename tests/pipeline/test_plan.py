from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad.pipeline.plan import UNIT_BYTES, Plan, Unit, group_units, make_plan, make_unit
from regrad.reading.formats import Extent, Mark
from regrad.reading.inputs import Source, list_sources
from tests.shards import digits, write_folder, write_tar


class Ledger(dict[str, dict[str, Any]]):
    """Committed units, and how many of their records were read."""

    reads = parts_read = 0

    def commit(self, plan: Plan) -> None:
        for unit in plan.pending:
            for key in unit.replaces:
                del self[key]
            known = ("source", "start", "stop", "identity", "files")
            self[unit.key] = {"unit": unit.key} | {name: getattr(unit, name) for name in known}
        for key in plan.obsolete:
            del self[key]

    @property
    def held(self) -> LedgerOf:
        return LedgerOf(self)

    def plan(
        self, *sources: Source, limit: int | None = None, salt: str = "salt", elsewhere: Ledger | None = None
    ) -> Plan:
        return make_plan(sources, 10, salt, self.held, limit, elsewhere and elsewhere.held)

    def rows(self) -> list[int]:
        return sorted(itertools.chain(*(range(unit["start"], unit["stop"]) for unit in self.values())))


class LedgerOf:
    """What a plan asks a ledger."""

    def __init__(self, units: Ledger):
        self.units, self.keys = units, set(units)

    def records(self, keys: list[str]) -> list[dict[str, Any]]:
        self.units.reads += len(keys)
        return [self.units[key] for key in keys]

    def ids(self, records: Sequence[Mapping[str, Any]]) -> list[Sequence[str] | None]:
        self.units.parts_read += len(records)
        return [record["files"] for record in records]


def shard(rows: int = 35, identity: str = "1", uri: str = "a.parquet") -> Source:
    return Source(uri, "parquet", identity, 1000, rows)


def ranges(plan: Plan) -> list[tuple[int, int | None]]:
    return [(unit.start, unit.stop) for unit in plan.pending]


def test_units_are_cut_and_named_by_content() -> None:
    plan = Ledger().plan(shard(), Source("b.tar", "tar", "1", 500))
    assert ranges(plan) == [(0, 10), (10, 20), (20, 30), (30, 35), (0, None)]
    assert len({unit.key for unit in plan.pending}) == 5
    assert sum(unit.size for unit in plan.pending[:4]) == pytest.approx(1000, abs=4)
    assert plan.pending == Ledger().plan(shard(), Source("b.tar", "tar", "1", 500)).pending
    for other in (shard(identity="2"), shard(uri="c.parquet")):
        assert not {unit.key for unit in Ledger().plan(other).pending} & {unit.key for unit in plan.pending}
    assert Ledger().plan(shard(), salt="other").pending[0].key != plan.pending[0].key


def test_units_travel_as_json(tmp_path: Path) -> None:
    (source,) = list_sources([write_folder(tmp_path, digits(25))])
    for unit in Ledger().plan(source, marked()).pending:
        assert Unit.from_json(unit.to_json()) == unit


def marked(rows: int = 45, apart: int = 4, row_bytes: int = 10) -> Source:
    """A tar with a mark every so many rows."""
    marks = tuple(Mark(row, row * row_bytes) for row in range(0, rows, apart))
    return Source("a.tar", "tar", "1", rows * row_bytes + 1024, rows, marks=marks)


def test_a_source_with_marks_is_cut_there(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Ledger().plan(marked())
    assert ranges(plan) == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 40), (40, 45)]
    assert [unit.extent for unit in plan.pending[1::4]] == [Extent(8, 80, 160), Extent(40, 400, None)]
    assert ranges(Ledger().plan(marked(apart=20))) == [(0, 20), (20, 40), (40, 45)]  # longer, where marks lie so
    assert ranges(Ledger().plan(marked(apart=5))) == [(start, min(start + 10, 45)) for start in range(0, 45, 10)]
    (limited,) = Ledger().plan(marked(), limit=5).pending
    assert (limited.start, limited.stop, limited.extent) == (0, 5, Extent(0, 0, 80))
    monkeypatch.setattr("regrad.pipeline.plan.UNIT_BYTES", 60)
    assert ranges(Ledger().plan(marked(20))) == [(start, start + 4) for start in range(0, 20, 4)]


def test_a_source_with_marks_that_was_one_unit_stays_one() -> None:
    ledger = Ledger()
    ledger.commit(ledger.plan(Source("a.tar", "tar", "1", 1474)))
    assert ranges(ledger.plan(marked())) == []


def test_what_is_committed_is_not_planned_again() -> None:
    ledger = Ledger()
    ledger.commit(ledger.plan(shard()))
    plan = ledger.plan(shard())
    assert (plan.pending, plan.done, plan.obsolete) == ((), frozenset(ledger), ())
    assert ledger.reads == 0
    del ledger[make_unit(shard(), 10, 20, "salt").key]
    assert ranges(ledger.plan(shard())) == [(10, 20)]


def test_a_changed_shard_is_planned_again_and_its_old_units_go() -> None:
    ledger = Ledger()
    ledger.commit(ledger.plan(shard(), shard(uri="other.parquet")))
    plan = ledger.plan(shard(12, identity="2"), shard(uri="other.parquet"))
    assert ranges(plan) == [(0, 10), (10, 12)]
    assert sorted(plan.obsolete) == sorted(key for key, unit in ledger.items() if unit["source"] == "a.parquet")
    assert ledger.reads == 4  # the other source's records were not needed


def test_inputs_that_are_not_named_keep_their_units() -> None:
    ledger = Ledger()
    ledger.commit(ledger.plan(shard(), shard(uri="other.parquet")))
    plan = ledger.plan(shard(identity="2"))
    assert {ledger[key]["source"] for key in plan.obsolete} == {"a.parquet"}


def test_a_changed_image_costs_its_own_range_only(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, digits(35))
    ledger = Ledger()
    ledger.commit(ledger.plan(*list_sources([folder])))
    (tmp_path / sorted(digits(35))[14][0]).write_bytes(b"new")
    plan = ledger.plan(*list_sources([folder]))
    assert ranges(plan) == [(10, 20)]
    assert [ledger[key]["start"] for key in plan.obsolete] == [10]


@pytest.mark.parametrize("limits", [(4, None), (14, 3, None), (5, 17, 30, None), (30, 12, 33), (None, 7, None), (40,)])
def test_limits_in_any_order_never_leave_a_row_twice(limits: tuple[int | None, ...]) -> None:
    ledger = Ledger()
    most = 0
    for limit in limits:
        plan = ledger.plan(shard(), limit=limit)
        ledger.commit(plan)
        most = max(most, min(35, limit or 35))
        assert ledger.rows() == list(range(most))
        assert not ledger.plan(shard(), limit=limit).pending


def test_a_limit_goes_across_sources_and_cuts_tars(tmp_path: Path) -> None:
    sources = list_sources([write_tar(tmp_path / f"{name}.tar", digits(6)) for name in "abc"])
    plan = make_plan(sources, 10, "", limit=8)
    assert [(Path(unit.source).name, unit.stop) for unit in plan.pending] == [("a.tar", None), ("b.tar", 2)]
    ledger = Ledger()
    ledger.commit(plan)
    full = make_plan(sources, 10, "", ledger.held)
    assert [(Path(unit.source).name, unit.stop) for unit in full.pending] == [("b.tar", None), ("c.tar", None)]
    assert full.pending[0].replaces == (plan.pending[1].key,)
    assert full.done == {plan.pending[0].key}


def calls_to_plan(shards: int) -> int:
    """How many functions are called to plan so many committed shards of one unit, and one of as many units."""
    sources = [shard(10 * shards), *(shard(10, uri=f"{number}.parquet") for number in range(shards))]
    ledger, called = Ledger(), Counter[str]()
    ledger.commit(ledger.plan(*sources))
    sys.setprofile(lambda frame, event, argument: called.update([event]))
    try:
        plan = ledger.plan(*sources)
    finally:
        sys.setprofile(None)
    assert (len(plan.done), len(plan.pending), ledger.reads) == (2 * shards, 0, 0)
    return called.total()


def test_planning_committed_units_costs_the_same_for_each_of_them() -> None:
    few, many = calls_to_plan(100), calls_to_plan(1000)
    assert many < 10.5 * few
    assert many < 150 * 2000


def listing(files: Mapping[str, int]) -> Source:
    """A folder of these files, each with a version of its content."""
    names = tuple(sorted(files))
    versions = tuple(str(files[name]) for name in names)
    return Source("folder", "folder", "", 10 * len(names), len(names), names, (None,) * len(names), versions)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_to_a_folder_every_file_is_in_one_unit(seed: int) -> None:
    """Files come, go and change, runs are limited and cut short; nothing is scored that a unit has as it is."""
    random, ledger, files = np.random.default_rng(seed), Ledger(), dict[str, int]()
    for _ in range(12):
        files = {name: version + (random.random() < 0.02) for name, version in files.items() if random.random() > 0.03}
        files |= {f"{random.random()}": 0 for _ in range(random.integers(1, 30))}
        source = listing(files)
        before = {key: dict(unit["versions"]) for key, unit in ledger.items()}
        limit = int(random.integers(1, len(files) + 5)) if random.random() < 0.3 else None
        plan = ledger.plan(source, limit=limit)
        assert not any(unit.replaces for unit in plan.pending)
        current = {key for key, content in before.items() if content.items() <= files.items()}
        assert plan.done == current
        assert set(plan.obsolete) == before.keys() - current
        held = {name for key in current for name in before[key]}
        wanted = sorted(files)[:limit]
        assert sorted(name for unit in plan.pending for name in unit.files) == sorted(set(wanted) - held)
        if random.random() < 0.3:  # killed: some of the units are there, and what is obsolete is gone
            plan = replace(plan, pending=tuple(unit for unit in plan.pending if random.random() < 0.5))
            limit = 0
        ledger.commit(plan)
        for unit in plan.pending:
            ledger[unit.key]["versions"] = [(name, files[name]) for name in unit.files]
            assert len(unit.files) == unit.rows == unit.stop - unit.start <= 10  # type: ignore[operator]
        rows = ledger.rows()
        assert len(rows) == len(set(rows))
        names = [name for unit in ledger.values() for name in unit["files"]]
        assert len(names) == len(set(names)) == len(rows)
        if limit is None:
            assert sorted(names) == sorted(files)
            assert not ledger.plan(source).pending


def test_what_is_new_is_cut_by_itself() -> None:
    ledger = Ledger()
    ledger.commit(ledger.plan(listing(dict.fromkeys("acegikmoqsuw", 0))))
    files = dict.fromkeys("abcdefhiklmnopqrstuwxyz", 0)  # without g
    plan = ledger.plan(listing(files))
    assert [(unit.start, "".join(unit.files)) for unit in plan.pending] == [
        (12, "aceikmoqs"),  # what is left of the first
        (21, "bdfhlnprtx"),
        (31, "yz"),
    ]
    assert len(plan.done) == 1
    # A file that changed costs its unit, which keeps its rows.
    ledger.commit(plan)
    plan = ledger.plan(listing(files | {"d": 1}))
    assert [(unit.start, "".join(unit.files)) for unit in plan.pending] == [(21, "bdfhlnprtx")]


def test_a_folder_as_it_was_first_cut_costs_no_look() -> None:
    ledger, files = Ledger(), dict.fromkeys("acegikmoqsuwy", 0)
    ledger.commit(ledger.plan(listing(files)))
    assert not ledger.plan(listing(files)).pending
    assert (ledger.reads, ledger.parts_read) == (0, 0)
    plan = ledger.plan(listing(files | {"z": 0}))  # behind all others
    assert [unit.files for unit in plan.pending] == [("z",)]
    assert (ledger.reads, ledger.parts_read) == (1, 0)
    assert [unit.files for unit in ledger.plan(listing(files | {"b": 0})).pending] == [("b",)]
    assert ledger.parts_read == 2


def test_two_units_that_share_a_file_are_made_one() -> None:
    ledger, files = Ledger(), dict.fromkeys("abcdef", 0)
    source = listing(files)
    for start, places in ((0, range(4)), (4, range(2, 6))):
        unit = make_unit(source, start, start + 4, "salt", places)
        ledger.commit(Plan((unit,), frozenset(), ()))
    plan = ledger.plan(source)
    assert len(plan.obsolete) == 1
    ledger.commit(plan)
    assert sorted(name for unit in ledger.values() for name in unit["files"]) == sorted(files)


def test_what_another_output_holds_is_left_to_it() -> None:
    other, ledger = Ledger(), Ledger()
    files = dict.fromkeys("acegikmoqsuw", 0)
    other.commit(other.plan(listing(files), shard(25), salt="of other scores"))
    plan = ledger.plan(listing(files | {"b": 0}), shard(25), elsewhere=other)
    assert [unit.files for unit in plan.pending] == [("b",)]
    assert len(plan.held_elsewhere) == 2
    ledger.commit(plan)
    plan = ledger.plan(listing(files | {"b": 0, "d": 0}), shard(25), elsewhere=other)
    assert [(unit.start, unit.files) for unit in plan.pending] == [(1, ("d",))]
    # A unit of the other in which a file has changed holds nothing any more.
    plan = ledger.plan(listing(files | {"b": 0, "w": 1}), shard(25, identity="2"), elsewhere=other)
    assert [unit.files or (unit.start, unit.stop) for unit in plan.pending] == [("u", "w"), (0, 10), (10, 20), (20, 25)]
    assert len(plan.held_elsewhere) == 1
    # A part of a shard is held by its rows, whatever it was cut into.
    short = Ledger()
    short.commit(short.plan(shard(25), limit=13))
    assert ranges(Ledger().plan(shard(25), elsewhere=short, salt="another")) == [(10, 20), (20, 25)]


def test_units_are_shared_out_evenly() -> None:
    units = Ledger().plan(shard(600)).pending
    for workers, size in ((1, 8), (2, 7), (100, 1)):
        tasks = group_units(units, workers, unit_rows=10)
        assert [unit for task in tasks for unit in task] == [*units]
        assert max(map(len, tasks)) == size
    assert [len(task) for task in group_units(units[:3], 2, unit_rows=10)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("rows", "bytes_each", "workers", "sizes"),
    [
        ([1] * 80, 1, 1, [20] * 4),
        ([1] * 80, 1, 2, [10] * 8),
        ([1] * 80, 1, 80, [1] * 80),
        ([1] * 3000, 1, 1, [750] * 4),
        ([1] * 12_000, 1, 1, [800] * 15),  # as many rows as eight units of a hundred
        ([1] * 4100, 1, 1, [1024, 1024, 1024, 1024, 4]),  # however few rows they are
        ([100] * 4 + [1] * 40, 1, 1, [1, 1, 1, 11, 30]),
        ([1] * 80, UNIT_BYTES, 1, [8] * 10),  # there is much to read
        ([None] * 80, 1, 1, [8] * 10),
    ],
)
def test_small_units_are_shared_out_by_their_rows_and_bytes(
    rows: list[int | None], bytes_each: int, workers: int, sizes: list[int]
) -> None:
    sources = [Source(f"{place}.parquet", "parquet", "1", bytes_each, count) for place, count in enumerate(rows)]
    unit_rows = 1000 if len(rows) == 4100 else 100
    units = make_plan(sources, unit_rows, "").pending
    tasks = group_units(units, workers, unit_rows)
    assert sorted(map(len, tasks)) == sorted(sizes)
    assert {unit.key for task in tasks for unit in task} == {unit.key for unit in units}


def test_what_takes_longest_comes_first() -> None:
    sources = [Source(f"{size}.tar", "tar", "1", size) for size in (100, 120, 5000, 90, 2**40)]
    units = Ledger().plan(*sources).pending
    assert [unit.size for (unit,) in group_units(units, 8)] == [2**40, 5000, 100, 120, 90]
