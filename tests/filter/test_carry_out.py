"""A filter on an output: one rule, two lists, the same again, and what is refused. Shards: test_shards.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from regrad.errors import RegradError, UsageError
from regrad.filter import rules, shards
from regrad.filter.carry_out import carry_out
from regrad.ledger import lease
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.runs import scored
from tests.shards import digits, write_parquet, write_tar

SETTINGS = ["--model", "tests.shards:build", "--scores", "entropy", "--max-quarantined", "9", "--unit-rows", "20"]


@pytest.fixture
def run(tmp_path: Path) -> scored.Run:
    """Two shards, of sixty digits and of thirty, and one image that is none."""
    write_parquet(tmp_path / "in/a.parquet", [*digits(60), ("bad", b"no image", 1)])
    write_tar(tmp_path / "in/b.tar", [(f"b/{name}", image, label) for name, image, label in digits(30)])
    asked = [str(tmp_path / "in"), *SETTINGS, "--output", str(tmp_path / "run")]
    execute(prepare(parse(asked, "score", None)), score_here)
    return scored.load_run("run", str(tmp_path / "run"))


class Workers:
    """In place of Ray: does the work here, up to so many items."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = []
        self.most = 99
        monkeypatch.setattr("regrad.cluster.tasks.each", self.each)

    def each(self, function: Any, items: Any, *_: Any) -> Iterator[Any]:
        for item in items:
            if len(self.done) == self.most:
                raise RegradError("the cluster went away")
            self.done.append(item)
            yield function(item)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(monkeypatch)


def above(run: scored.Run, share: float = 0.5) -> rules.Rule:
    return rules.make_rule(run, None, share, None, "entropy", False)


def told(output: Path) -> dict[str, Any]:
    return json.loads((output / "filter.json").read_text())


def ids(path: Path) -> list[str]:
    return pyarrow.parquet.read_table(path)["id"].to_pylist()


def test_every_row_is_on_one_of_two_lists(run: scored.Run, tmp_path: Path) -> None:
    outcome = carry_out(run, above(run), str(tmp_path / "out"))
    values = pyarrow.parquet.read_table(f"{run.output}/scores")["entropy"].to_numpy()
    kept = int((values <= np.quantile(values, 0.5, method="inverted_cdf")).sum())
    assert (outcome.sorting.kept, outcome.sorting.dropped, outcome.sorting.quarantined) == (kept, 90 - kept, 1)
    held, dropped = ids(tmp_path / "out/keep.parquet"), ids(tmp_path / "out/drop.parquet")
    assert (len(held), len(dropped), "bad" in dropped) == (kept, 91 - kept, True)
    assert len({*held, *dropped}) == 91
    content = told(tmp_path / "out")
    assert (content["status"], content["exit_code"], content["shards"]) == ("done", 0, None)
    assert content["counts"] == {"kept": kept, "dropped": 90 - kept, "quarantined": 1}
    assert sum(content["reasons"].values()) == 90 - kept
    assert not (tmp_path / "out/shards").exists()


def test_shards_hold_the_kept_rows_and_are_written_once(run: scored.Run, tmp_path: Path, workers: Workers) -> None:
    first = carry_out(run, above(run), str(tmp_path / "out"), write_shards=True)
    assert (first.shards, first.written, first.rows) == (2, 2, first.sorting.kept)
    again = carry_out(run, above(run), str(tmp_path / "out"), write_shards=True)
    assert (again.shards, again.written, again.rows) == (2, 0, first.rows)
    assert told(tmp_path / "out")["shards"] == {"shards": 2, "rows": first.rows}


def test_a_filter_that_was_cut_short_goes_on(run: scored.Run, tmp_path: Path, workers: Workers) -> None:
    workers.most = 1
    with pytest.raises(RegradError, match="the cluster went away"):
        carry_out(run, above(run), str(tmp_path / "out"), write_shards=True)
    assert told(tmp_path / "out")["status"] == "running"
    assert not list((tmp_path / "out/lease").iterdir())
    workers.most = 99
    outcome = carry_out(run, above(run), str(tmp_path / "out"), write_shards=True)
    assert (outcome.shards, outcome.written) == (2, 1)
    assert told(tmp_path / "out")["status"] == "done"


def test_a_shard_that_is_not_there_in_the_end_is_a_failure(
    run: scored.Run, tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "write", lambda item: {})  # which says that it did
    with pytest.raises(RegradError, match=r"rows in 0 shards, where \d+ in 2 were kept"):
        carry_out(run, above(run), str(tmp_path / "out"), write_shards=True)
    assert told(tmp_path / "out")["status"] == "running"


def test_another_rule_or_run_on_the_same_output_is_refused_unless_it_replaces(
    run: scored.Run, tmp_path: Path, workers: Workers
) -> None:
    output = str(tmp_path / "out")
    carry_out(run, above(run), output, write_shards=True)
    with pytest.raises(UsageError, match=r"holds another filter: rule above the 0\.5 quantile .*, now above the 0\.9"):
        carry_out(run, above(run, 0.9), output)
    outcome = carry_out(run, above(run, 0.9), output, write_shards=True, replace=True)
    assert len(list((tmp_path / "out/shards").iterdir())) == outcome.shards == 2
    assert len(ids(tmp_path / "out/keep.parquet")) == outcome.rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("run.json", "{}", "holds a run of regrad score"), ("filter.json", "{", r"filter\.json: not valid JSON")],
)
def test_an_output_of_another_kind_is_refused(
    run: scored.Run, tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises(RegradError, match=message):
        carry_out(run, above(run), str(tmp_path / "out"))
    assert not (tmp_path / "out/keep.parquet").exists()


def test_a_filter_that_lost_its_lease_does_not_say_that_it_is_done(
    run: scored.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = rules.sort_out

    def slow(*arguments: Any) -> rules.Sorting:
        sorting = real(*arguments)
        (tmp_path / "out/lease/1.json").rename(tmp_path / "out/lease/2.json")  # as one that took over would
        return sorting

    monkeypatch.setattr(rules, "sort_out", slow)
    with pytest.raises(lease.LeaseLost):
        carry_out(run, above(run), str(tmp_path / "out"))
    assert told(tmp_path / "out")["status"] == "running"
