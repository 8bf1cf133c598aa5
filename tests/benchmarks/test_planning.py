"""What a plan is measured on: as many shards, rows and committed units as it says, of which none is pending."""

from __future__ import annotations

from pathlib import Path

from regrad.benchmarks import planning
from regrad.ledger import commit
from regrad.pipeline.plan import make_plan
from regrad.reading.inputs import list_sources


def test_every_row_of_the_shards_is_a_committed_unit(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    planning.write_shards(tmp_path / "in", 7)
    sources = list_sources([str(tmp_path / "in")])
    assert [source.rows for source in sources] == [planning.UNITS_PER_SHARD] * 7
    planning.write_ledger(output, sources)
    ledger = commit.Ledger.read(output)
    assert len(ledger.keys) == 70
    plan = make_plan(sources, 1, planning._SALT, ledger)
    assert (plan.pending, len(plan.done)) == ((), 70)
    assert len(make_plan(sources, 1, "another configuration", ledger).pending) == 70
    ranges = [(record["source"], record["start"], record["stop"]) for record in ledger.records(sorted(ledger.keys))]
    assert sorted(ranges) == [(source.uri, row, row + 1) for source in sources for row in range(10)]


def test_a_fresh_process_tells_its_own_peak() -> None:
    ballast = b"x" * 300_000_000
    told = planning.measure_plan(20, lambda line: None)
    assert told["peak_mb"] < 300 < planning._peak_mb()
    assert ballast
