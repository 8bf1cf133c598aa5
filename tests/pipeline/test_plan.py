import itertools
import time
from pathlib import Path
from typing import Any

import pytest

from regrad.pipeline.plan import Plan, Unit, make_plan, make_unit
from regrad.reading.inputs import Source, list_sources
from tests.shards import digits, write_folder, write_tar


class Ledger(dict[str, dict[str, Any]]):
    """Committed units, and how many of their records were read."""

    reads = 0

    def commit(self, plan: Plan) -> None:
        for unit in plan.pending:
            for key in unit.replaces:
                del self[key]
            self[unit.key] = {"unit": unit.key, "source": unit.source, "start": unit.start, "stop": unit.stop}
        for key in plan.obsolete:
            del self[key]

    def read(self, keys: list[str]) -> list[dict[str, Any]]:
        self.reads += len(keys)
        return [self[key] for key in keys]

    def plan(self, *sources: Source, limit: int | None = None, salt: str = "salt") -> Plan:
        return make_plan(sources, 10, salt, set(self), self.read, limit)

    def rows(self) -> list[int]:
        return sorted(itertools.chain(*(range(unit["start"], unit["stop"]) for unit in self.values())))


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
    for unit in Ledger().plan(source).pending:
        assert Unit.from_json(unit.to_json()) == unit


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
    plan = make_plan(sources, 10, "", set(), lambda keys: [], limit=8)
    assert [(Path(unit.source).name, unit.stop) for unit in plan.pending] == [("a.tar", None), ("b.tar", 2)]
    ledger = Ledger()
    ledger.commit(plan)
    full = make_plan(sources, 10, "", set(ledger), ledger.read)
    assert [(Path(unit.source).name, unit.stop) for unit in full.pending] == [("b.tar", None), ("c.tar", None)]
    assert full.pending[0].replaces == (plan.pending[1].key,)
    assert full.done == {plan.pending[0].key}


def test_planning_ten_thousand_committed_units_is_quick() -> None:
    sources = [shard(50_000), *(shard(10, uri=f"{number}.parquet") for number in range(5_000))]
    ledger = Ledger()
    ledger.commit(ledger.plan(*sources))
    started = time.perf_counter()
    plan = ledger.plan(*sources)
    assert time.perf_counter() - started < 2.0  # a third of that on an idle machine
    assert len(plan.done) == 10_000
    assert ledger.reads == 0
