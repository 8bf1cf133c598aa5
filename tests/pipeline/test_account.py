"""The rows of one unit: each in exactly one of two lists, and counted."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import s3fs

from regrad import table
from regrad.pipeline import account as accounts
from regrad.pipeline.account import OTHER, Account, Readers, samples_of
from regrad.pipeline.plan import Unit, make_plan
from regrad.reading.inputs import list_sources
from regrad.reading.parquet import ParquetReader
from regrad.reading.samples import DEFAULT_COLUMNS, Sample
from tests.faults.proxy import Proxy, Request
from tests.services import Bucket, S3Server
from tests.shards import digits, write_parquet

UNIT = Unit("s3://b/a.parquet", "parquet", 10, 20, "e1", "f" * 32, 10, 1000)


def account(rows_in: int = 0) -> Account:
    return Account(UNIT, table.score_schema(["regrad", "entropy"]), num_classes=3, rows_in=rows_in)


def test_what_is_scored_becomes_a_row_in_order() -> None:
    held = account()
    assert held.add(Sample(12, "b", None, 1, digest="d1"), 1, 0.5, 0.7, [2.0, 1.0])
    assert held.add(Sample(11, "a", None, None), 2, 0.25, math.nan, [3.0, 0.5])
    scores, quarantine = held.tables()
    assert scores.schema.equals(table.score_schema(["regrad", "entropy"]))
    assert [tuple(row.values()) for row in scores.to_pylist()] == [
        ("a", UNIT.source, 11, None, 2, 0.25, None, None, 3.0, 0.5),
        ("b", UNIT.source, 12, 1, 1, 0.5, 0.7, "d1", 2.0, 1.0),
    ]
    assert (quarantine.num_rows, quarantine.schema) == (0, table.QUARANTINE_SCHEMA)


def test_logits_become_a_vector_of_their_row() -> None:
    schema = table.score_schema(["entropy"], {"logits": True}, classes=3)
    held = Account(UNIT, schema, num_classes=3)
    assert held.tables()[0].schema == schema  # also without a row
    for row in (12, 11):
        assert held.add(Sample(row, f"{row}", None), 1, 0.5, 0.7, [1.0], [np.arange(3, dtype=np.float32) + row])
    scores, _ = held.tables()
    assert scores.schema == schema
    assert scores["logits"].type == pa.list_(pa.float32(), 3)
    assert scores["logits"].to_pylist() == [[11.0, 12.0, 13.0], [12.0, 13.0, 14.0]]


@pytest.mark.parametrize(
    ("confidence", "values", "named"),
    [
        (math.nan, [1.0, 1.0], "confidence is nan"),
        (0.5, [math.inf, 1.0], "regrad is inf"),
        (0.5, [-math.inf, math.nan], "regrad is -inf, entropy is nan"),
    ],
)
def test_what_is_no_number_is_quarantined(confidence: float, values: list[float], named: str) -> None:
    held = account()
    assert not held.add(Sample(3, "x", None, 1), 1, confidence, 0.1, values)
    scores, quarantine = held.tables()
    assert scores.num_rows == 0
    (row,) = quarantine.to_pylist()
    assert (row["id"], row["row"], row["stage"]) == ("x", 3, "score")
    assert row["reason"] == f"{named}: the network's outputs are not finite for this image"


def test_it_is_finished_when_every_row_has_its_place() -> None:
    held = account(rows_in=2)
    held.add(Sample(10, "a", None), 0, 0.5, 0.1, [1.0, 1.0])
    held.complete = True
    assert not held.finished  # one row is still on its way
    held.reject(Sample(None, None), "read", "truncated")
    assert held.finished
    held.complete = False
    assert not held.finished  # there may be more
    held.changed = True
    assert held.finished  # given up: it is to be planned again


def test_the_record_counts_labels_and_reasons() -> None:
    held = account(rows_in=4 + 21)
    for row, (label, prediction) in enumerate([(1, 1), (2, 1), (7, 1), (None, 1)]):
        held.add(Sample(row, f"{row}", None, label), prediction, 0.5, 0.1, [1.0, 1.0])
    for kind in range(6):
        for row in range(kind + 1):
            held.reject(Sample(row, "x"), "decode", f"reason {kind} {'x' * 200}")
    record = held.record()
    assert (record["rows_in"], record["rows_scored"], record["rows_quarantined"]) == (25, 4, 21)
    assert (record["labelled"], record["correct"], record["labels_outside"]) == (2, 1, 1)
    assert (record["unit"], record["source"], record["start"], record["stop"]) == (UNIT.key, UNIT.source, 10, 20)
    assert record["identity"] == "e1"
    assert sum(record["reasons"].values()) == 21
    assert list(record["reasons"].values()) == [6, 5, 4, 3, 2, 1]  # the rarest of six is not named
    assert record["reasons"][OTHER] == 1
    assert max(map(len, record["reasons"])) == 100


def test_reasons_that_utf8_cannot_hold_are_escaped() -> None:
    held = account()
    held.reject(Sample(1, "x"), "read", "name \udcff")
    assert held.tables()[1]["reason"].to_pylist() == ["name \\udcff"]


def of_sources(*inputs: str, unit_rows: int = 1000) -> list[Account]:
    units = make_plan(list_sources(inputs), unit_rows, "").pending
    return [Account(unit, table.score_schema([]), num_classes=10) for unit in units]


def read(given: list[Account]) -> list[tuple[str, list[str | None]]]:
    return [
        (own.unit.source, [each.id for each in samples]) for own, samples in samples_of(given, Readers(DEFAULT_COLUMNS))
    ]


def test_small_shards_of_a_store_are_read_side_by_side_and_come_in_order(
    tmp_path: Path, bucket: Bucket, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = [write_parquet(tmp_path / f"{place:02}.parquet", [row]) for place, row in enumerate(digits(40))]
    far = [bucket.put(path, f"in/{Path(path).name}") for path in local]
    given = of_sources(f"{bucket.uri}/in")
    together, lock, waiting = threading.Barrier(8), threading.Lock(), set[str]()

    def wait_for_others(request: Request) -> None:
        name = request.path.partition("?")[0]
        with lock:
            if request.method != "GET" or name in waiting or len(waiting) == together.parties:
                return
            waiting.add(name)
        together.wait(20)  # broken where one is read after the other

    with Proxy(s3_server.port).listening() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.hook = wait_for_others
        got = read(given)
    assert not together.broken
    assert got == [(uri, [row[0]]) for uri, row in zip(far, digits(40), strict=True)]
    assert [own.reader.identity() for own in given if own.reader] == [own.unit.identity for own in given]


def test_what_turns_out_large_is_read_when_it_is_wanted() -> None:
    read_so_far: list[int] = []

    def samples() -> Iterator[Sample]:
        for row in range(9):
            read_so_far.append(row)
            yield Sample(row, str(row), bytes(400_000))

    begun = accounts._begun(samples())
    assert len(read_so_far) == 3
    assert [sample.row for sample in begun] == [*range(9)]


def test_shards_of_this_machine_are_read_one_after_the_other(tmp_path: Path) -> None:
    paths = [write_parquet(tmp_path / f"{place}.parquet", digits(4)) for place in range(3)]
    given = of_sources(*paths, unit_rows=2)
    opened = samples_of(given, Readers(DEFAULT_COLUMNS))
    for own, samples in itertools.islice(opened, 2):
        assert [sample.row for sample in samples] == [own.unit.start, own.unit.start + 1]
    assert given[0].reader is given[1].reader
    assert given[2].reader is None


def test_whoever_stops_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_far_and_small", lambda own: True)
    paths = [write_parquet(tmp_path / f"{place}.parquet", digits(1)) for place in range(40)]
    given = of_sources(*paths)
    opened = samples_of(given, Readers(DEFAULT_COLUMNS))
    next(opened)
    opened.close()  # which waits for what was begun
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("regrad-shards")]
    assert sum(own.reader is not None for own in given) == 1 + accounts._AT_ONCE


def test_a_shard_of_many_tasks_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each worker, whichever of the tasks it has; and again where reading ended early or the content is another."""
    looked: list[str] = []
    find = ParquetReader._find_shared

    def counted(self: ParquetReader, *arguments: Any) -> frozenset[str]:
        looked.append(self.uri)
        return find(self, *arguments)

    monkeypatch.setattr(ParquetReader, "_find_shared", counted)
    rows = [(f"{number % 11}", image, label) for number, (_, image, label) in enumerate(digits(12))]
    path = Path(write_parquet(tmp_path / "in.parquet", rows, group=7))
    readers = Readers(DEFAULT_COLUMNS)

    def ids(*tasks: int) -> list[str | None]:
        units = of_sources(str(path), unit_rows=2)
        return [each.id for task in tasks for _, samples in samples_of([units[task]], readers) for each in samples]

    assert ids(0, 3, 5) == ["0 (row 0)", "1", "6", "7", "10", "0 (row 11)"]
    assert len(looked) == 1
    assert ids(1) == ["2", "3"]  # which lies before
    assert len(looked) == 1
    with contextlib.closing(samples_of(of_sources(str(path), unit_rows=2), readers)) as begun:
        _, samples = next(begun)
        assert next(iter(samples)).id == "0 (row 0)"
        del samples
    assert ids(2) == ["4", "5"]
    assert len(looked) == 2
    write_parquet(path, [(f"{number % 9}", image, label) for number, (_, image, label) in enumerate(digits(12))])
    os.utime(path, ns=(1, 1))
    assert ids(4, 5) == ["8", "0 (row 9)", "1 (row 10)", "2 (row 11)"]
    assert len(looked) == 3
