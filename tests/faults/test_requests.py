"""What a store is asked for: requests a run, a shard and a unit, counted on their way to a real S3 server.

From three runs whose shards and units differ, what each of them adds is what the differences say.
"""

from __future__ import annotations

import math
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import s3fs

from regrad.ledger import lease
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.faults.proxy import Proxy, Request
from tests.services import Bucket, S3Server
from tests.shards import digits, write_parquet

ROWS = 24  # of a shard
Counts = Counter[tuple[str, str]]

#: Of a unit, beside the bytes of its rows: a part and a record are written, a part of an earlier attempt is removed,
#: its shard is asked whether it is still what was planned, and the lease, twice, whether it is still held.
UNIT = {
    ("PUT", "scores"): 1,
    ("PUT", "ledger"): 1,
    ("DELETE", "quarantine"): 1,
    ("HEAD", "in"): 1,
    ("LIST", "lease"): 2,
    ("GET", "lease"): 2,
}
#: Of a small shard that is new: its footer for the plan; its footer and rows for the worker.
SHARD = {("GET", "in"): 3, ("HEAD", "in"): 3}
#: Of a run at most, whatever there is to do or done; a listing of a thousand names is one.
RUN = {"LIST": 43, "GET": 9, "HEAD": 5, "PUT": 6, "DELETE": 1}


def kind(request: Request) -> tuple[str, str]:
    """The method, LIST for a listing, and the folder that is asked about."""
    path, _, query = request.path.partition("?")
    fields = urllib.parse.parse_qs(query)
    if "prefix" in fields:
        return "LIST", _folder(fields["prefix"][0])
    return request.method, _folder(path.strip("/").partition("/")[2])


def _folder(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[0] if parts[0] == "in" else parts[1] if len(parts) > 1 else "out"


@pytest.fixture
def proxy(s3_server: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3_server.port).listening() as listening:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.port}")
        monkeypatch.setattr(
            lease, "hold", partial(lease.hold, seconds=6000.0)
        )  # renewals come by the clock, not by work
        s3fs.S3FileSystem.clear_instance_cache()
        yield listening


def counted(
    proxy: Proxy, bucket: Bucket, folder: Path, name: str, shards: int, unit_rows: int, rows: int = ROWS
) -> Counts:
    """The requests of a run on so many new shards."""
    for number in range(shards):
        bucket.put(write_parquet(folder / f"{number}.parquet", digits(rows), group=rows), f"in/{name}/{number}.parquet")
    return again(proxy, bucket, name, unit_rows, shards * math.ceil(rows / unit_rows))


def again(proxy: Proxy, bucket: Bucket, name: str, unit_rows: int, units: int) -> Counts:
    """The requests of a run that has so many units to score."""
    proxy.requests.clear()
    model = ["--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", str(unit_rows)]
    command = [f"{bucket.uri}/in/{name}", *model, "--output", f"{bucket.uri}/{name}"]
    assert execute(prepare(parse(command, "score", None)), score_here).this_run["units"] == units
    return Counter(map(kind, proxy.requests))


def test_a_unit_and_a_shard_cost_so_many_requests(proxy: Proxy, bucket: Bucket, tmp_path: Path) -> None:
    few = counted(proxy, bucket, tmp_path, "few", shards=2, unit_rows=4)  # two tasks a shard
    finer = counted(proxy, bucket, tmp_path, "finer", shards=2, unit_rows=2)
    more = counted(proxy, bucket, tmp_path, "more", shards=6, unit_rows=4)
    everything = {*few, *finer, *more}
    unit = {what: (finer[what] - few[what]) / 12 for what in everything}
    shard = {what: (more[what] - few[what]) / 4 - 6 * unit[what] for what in everything}
    assert {what: number for what, number in unit.items() if number} == UNIT
    assert {what: number for what, number in shard.items() if number} == SHARD
    run = {what: few[what] - 12 * unit[what] - 2 * shard[what] for what in everything}
    assert by_method(run) <= Counter(RUN), run
    done = again(proxy, bucket, "more", 4, units=0)
    assert by_method(done) <= Counter(RUN), done
    assert (done["HEAD", "in"], done["GET", "in"]) == (1, 0)  # of the folder


def test_a_tiny_shard_costs_its_reading_alone(proxy: Proxy, bucket: Bucket, tmp_path: Path) -> None:
    few = counted(proxy, bucket, tmp_path, "few", shards=40, unit_rows=1000, rows=1)  # in tasks of ten, each one commit
    more = counted(proxy, bucket, tmp_path, "more", shards=80, unit_rows=1000, rows=1)
    shard = {what: (more[what] - few[what]) / 40 for what in {*few, *more}}
    known = {("GET", "in"): SHARD["GET", "in"], ("HEAD", "in"): SHARD["HEAD", "in"] + UNIT["HEAD", "in"]}
    assert {what: number for what, number in shard.items() if number} == known


def by_method(counts: Mapping[tuple[str, str], float]) -> Counter[str]:
    """The sums over what was asked about."""
    totals: Counter[str] = Counter()
    for (method, _), number in counts.items():
        totals[method] += round(number)
    return totals
