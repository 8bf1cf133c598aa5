"""A storage that fails for a moment costs a retry, one that refuses a clear line, one that changes a new plan."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from regrad import storage, table
from regrad.cluster import score_on_ray
from regrad.commands.score import main, summary
from regrad.errors import RegradError
from regrad.ledger import contents
from regrad.pipeline import manifest
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.run import RunOutcome, execute, score_here
from regrad.reading.samples import Shard
from regrad.storage import retry
from tests.data import ROOT
from tests.faults.proxy import TRANSIENT, Proxy, Request, in_turn, seeded
from tests.services import Bucket
from tests.shards import Row, build, digits, write_folder, write_parquet, write_tar

ARGUMENTS = ("--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "10")
PERMANENT = {
    "expired": "ExpiredToken: .*; renew the credentials",
    "denied": "AccessDenied: .*; check AWS_ACCESS_KEY_ID",
}


def job(output: Any, *inputs: Any) -> Job:
    return prepare(parse([*map(str, inputs), "--output", str(output), *ARGUMENTS], "score", None))


def score(output: Any, *inputs: Any) -> RunOutcome:
    return execute(job(output, *inputs), score_here)


def rows(output: Any) -> dict[tuple[str, int], tuple[str, float]]:
    """The scored rows, each once: by source (without its place) and row."""
    found = [((os.path.basename(row["source"]), row["row"]), (row["id"], row["entropy"])) for row in scored(output)]
    assert len(dict(found)) == len(found)
    return dict(found)


def scored(output: Any) -> list[dict[str, Any]]:
    return table.read(str(output)).to_pylist()


def assert_sound(output: str, inputs: dict[tuple[str, int], tuple[str, float]]) -> None:
    """The output holds ``inputs`` exactly once each with equal scores, and says so of itself."""
    held = rows(output)
    assert held.keys() == inputs.keys()
    assert [held[key][0] for key in inputs] == [inputs[key][0] for key in inputs]
    np.testing.assert_allclose([held[key][1] for key in inputs], [inputs[key][1] for key in inputs], rtol=1e-6)
    content = table.read_run(output)
    counts = manifest.totals(contents.read_records(output, contents.committed(output)))
    assert {name: content["counts"][name] for name in counts} == counts
    assert counts["rows_scored"] == counts["rows_in"] == len(inputs)
    assert storage.list_files(f"{output}/quarantine", ".parquet") == []


def heavy(count: int) -> list[Row]:
    """Digits of 50 kB each: what follows the end of a PNG counts for nothing but the time to read it."""
    return [
        (name, image + np.random.default_rng(row).bytes(50_000), label)
        for row, (name, image, label) in enumerate(digits(count))
    ]


def answered_with_errors(proxy: Proxy) -> int:
    """The requests that were, but for run.json's: when it is written, the retries have been counted."""
    harmed = [fault for request, fault in proxy.harmed if not request.path.endswith("run.json")]
    return sum(fault in ("500", "503", "429") for fault in harmed)


def upload(bucket: Bucket, folder: Path, tars: int = 1, images: int = 20) -> list[str]:
    """Tars, a Parquet file and a folder of images in the bucket."""
    shards = [bucket.put(write_tar(folder / f"{n}.tar", heavy(images)), f"in/{n}.tar") for n in range(tars)]
    shards.append(bucket.put(write_parquet(folder / "p.parquet", heavy(3 * images), group=20), "in/p.parquet"))
    return [*shards, bucket.put(write_folder(folder / "images", digits(images)), "images")]


@pytest.fixture
def small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are read in many ranges, as large ones are."""
    monkeypatch.setattr(storage, "READ_AHEAD_BYTES", 2**16)
    monkeypatch.setattr("regrad.storage.s3._CHUNK_BYTES", 256)


@pytest.mark.usefixtures("small_reads")
def test_every_kind_of_passing_trouble_is_lived_through(tmp_path: Path, bucket: Bucket, proxy: Proxy) -> None:
    inputs = upload(bucket, tmp_path)
    score(tmp_path / "undisturbed", *inputs)
    proxy.latency = 0.05
    retry.take_counts()
    proxy.schedule = in_turn(TRANSIENT, every=5)
    outcome = score(f"{bucket.uri}/out", *inputs)
    proxy.rest()
    assert set(proxy.done) == set(TRANSIENT)
    assert outcome.exit_code == 0
    assert_sound(f"{bucket.uri}/out", rows(tmp_path / "undisturbed"))
    retries = table.read_run(f"{bucket.uri}/out")["this_run"]["storage_retries"]
    assert {name.split()[0] for name in retries} <= {"500", "503", "429", "connection", "truncated"}
    told = [line for line in summary(outcome).splitlines() if "retries" in line]
    assert told == [f"warning: {retry.summary(retries)}"]
    assert sum(retries.values()) >= answered_with_errors(proxy) > 5


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "lost answer", "truncated"])
def test_every_operation_is_tried_again(bucket: Bucket, proxy: Proxy, fault: str) -> None:
    uri, content = f"{bucket.uri}/a/x.bin", bytes(range(256)) * 100
    storage.write_atomically(uri, content)
    identity = storage.identity(uri)
    retry.take_counts()

    def harmed(act: Callable[[], Any]) -> Any:
        """What ``act`` gives when the first of its requests has the fault."""
        faults = iter([fault])
        proxy.schedule = lambda request: next(faults, None)
        result = act()
        assert next(faults, None) is None
        proxy.rest()
        return result

    assert harmed(lambda: storage.list_files(f"{bucket.uri}/a")) == ["x.bin"]
    assert harmed(lambda: storage.identity(uri)) == identity
    assert harmed(lambda: storage.read_bytes(uri)) == content
    with contextlib.closing(storage.open_file(uri)) as file:
        assert file.seek(1000) == 1000
        assert harmed(lambda: file.read(256)) == content[1000:1256]
    assert harmed(lambda: storage.write_atomically(uri, content[:7])) is None
    assert storage.read_bytes(uri) == content[:7]
    assert harmed(lambda: storage.remove(uri)) is None
    assert storage.list_files(f"{bucket.uri}/a") == []
    # The HTTP client itself sends again what it sent on a connection that had been closed; the rest is ours.
    assert sum(retry.take_counts().values()) == 6 or fault in ("reset", "lost answer", "truncated")


@pytest.mark.parametrize("size", [25_000, 9_000], ids=["as long", "shorter than what had come"])
def test_a_file_that_is_replaced_while_it_is_read_is_read_anew(bucket: Bucket, proxy: Proxy, size: int) -> None:
    """As a lease may be: its holder writes it again and again, and a worker's answer breaks off."""
    uri, before, after = f"{bucket.uri}/lease.json", b"a" * 25_000, b"b" * size
    storage.write_atomically(uri, before)

    def replace(request: Request) -> None:
        if request.method == "GET" and request.range:
            proxy.hook = lambda request: None
            storage.write_atomically(uri, after)

    proxy.hook = replace
    faults = iter(["truncated"])
    proxy.schedule = lambda request: next(faults, None) if request.method == "GET" else None
    content, identity = storage.read_identified(uri)
    assert [request.range for request in proxy.requests if request.method == "GET"] == ["", "bytes=12500-", ""]
    assert content == after
    assert identity == storage.identity(uri)


@pytest.mark.usefixtures("small_reads")
def test_a_tar_is_read_on_where_it_broke_off(tmp_path: Path, bucket: Bucket, proxy: Proxy) -> None:
    from regrad.reading.tar import TarReader

    source = bucket.put(write_tar(tmp_path / "a.tar", heavy(60)), "a.tar")
    proxy.schedule = lambda request: "truncated" if request.range and request.count == 0 else None
    assert [sample.image for sample in TarReader(source).rows()] == [image for _, image, _ in heavy(60)]
    asked = [request.range for request in proxy.requests if request.range]
    assert len(asked) >= 6
    assert asked[::2] == asked[1::2]  # each range failed once, and none was asked for after it had come


@pytest.mark.parametrize("fault", PERMANENT)
def test_a_refusal_is_one_line_at_once(
    tmp_path: Path, bucket: Bucket, proxy: Proxy, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = upload(bucket, tmp_path)
    proxy.schedule = lambda request: fault
    assert main([*inputs, "--output", f"{bucket.uri}/out", *ARGUMENTS]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {inputs[0]}: cannot list: ")
    storage_line = error.strip()
    assert "\n" not in storage_line
    assert all(part in storage_line for part in PERMANENT[fault].split(".*"))
    assert len(proxy.requests) <= 3  # not one of them again


def test_credentials_that_expire_in_the_middle_leave_what_is_committed(
    tmp_path: Path, bucket: Bucket, proxy: Proxy
) -> None:
    inputs = upload(bucket, tmp_path, tars=3)
    output = f"{bucket.uri}/out"

    def expires(request: Request) -> str | None:
        records = sum("/ledger/" in one.path and one.method == "PUT" for one in proxy.requests)
        return "expired" if records > 2 else None

    proxy.schedule = expires
    with pytest.raises(RegradError, match=r"ExpiredToken: .*; renew the credentials and run the same command again"):
        score(output, *inputs)
    proxy.rest()
    assert len(contents.committed(output)) == 2
    outcome = score(output, *inputs)
    assert outcome.counts["rows_scored"] == 140
    assert outcome.this_run["rows_scored"] < 140
    assert len(rows(output)) == 140


def test_an_outage_ends_when_patience_does(
    tmp_path: Path, bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = upload(bucket, tmp_path)
    monkeypatch.setenv(retry.PATIENCE_VARIABLE, "1")
    ready = job(f"{bucket.uri}/out", *inputs)
    proxy.schedule = lambda request: "503"
    with pytest.raises(RegradError, match=r"SlowDown: .* \(tried \d+ times in \d s\); run the same command again when"):
        execute(ready, score_here)
    tries = len(proxy.requests)
    with pytest.raises(RegradError, match=r"\(tried once in 0 s\)"):
        storage.read_bytes(inputs[0])  # nobody waits for a store that is known to be out
    assert len(proxy.requests) == tries + 1
    with pytest.raises(RegradError, match=f"{inputs[0]}: cannot list: 503"):
        job(f"{bucket.uri}/other", inputs[0])
    proxy.rest()
    assert storage.read_bytes(inputs[0])
    assert score(f"{bucket.uri}/out", *inputs).counts["rows_scored"] == 100


@pytest.mark.usefixtures("ray_session")
def test_actors_live_through_trouble_tell_of_it_and_share_what_the_driver_has_fetched(
    tmp_path: Path, bucket: Bucket, proxy: Proxy
) -> None:
    inputs = upload(bucket, tmp_path)
    safetensors.torch.save_file(build(seed=1)[0].state_dict(), tmp_path / "w.safetensors")
    asked = (*inputs, "--weights", bucket.put(str(tmp_path / "w.safetensors"), "w.safetensors"), "--num-workers", 2)
    score(tmp_path / "undisturbed", *asked)
    proxy.latency = 0.05
    retry.take_counts()
    trouble = seeded(5, dict.fromkeys(TRANSIENT, 0.04))
    proxy.schedule = lambda request: None if request.path.endswith("/w.safetensors") else trouble(request)
    outcome = execute(job(f"{bucket.uri}/out", *asked), score_on_ray)
    proxy.rest()
    assert outcome.exit_code == 0
    assert_sound(f"{bucket.uri}/out", rows(tmp_path / "undisturbed"))
    assert sum(outcome.this_run["storage_retries"].values()) >= answered_with_errors(proxy) > 5
    weights = [request.method for request in proxy.requests if request.path.endswith("/w.safetensors")]
    assert weights.count("GET") == 1  # of the undisturbed run, in this process
    assert weights.count("HEAD") >= 4  # each of the two runs and each of the two workers asks whether it is the same


@pytest.mark.long
def test_a_store_that_hangs_in_the_middle_ends_the_run_within_a_minute(
    tmp_path: Path, bucket: Bucket, proxy: Proxy
) -> None:
    inputs = upload(bucket, tmp_path, tars=3)
    proxy.latency = 600
    hung: list[float] = []

    def hangs(request: Request) -> str | None:
        records = sum("/ledger/" in one.path and one.method == "PUT" for one in proxy.requests)
        if records > 2 and not hung:
            hung.append(time.monotonic())
        return "latency" if hung else None

    proxy.schedule = hangs
    arguments = [sys.executable, "-m", "regrad", "score", *inputs, *ARGUMENTS, "--output", f"{bucket.uri}/out"]
    ended = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert time.monotonic() - hung[0] < 60
    assert ended.returncode == 1
    assert re.search(rf"error: {bucket.uri}/out/\S+: cannot \w+: ReadTimeoutError", ended.stdout)


@pytest.mark.long
@pytest.mark.usefixtures("small_reads")
@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fifth_of_all_requests_in_trouble(tmp_path: Path, bucket: Bucket, proxy: Proxy, fault: str) -> None:
    inputs = upload(bucket, tmp_path, tars=12, images=60)
    score(tmp_path / "undisturbed", *inputs)
    proxy.schedule = seeded(0, {fault: 0.2})
    outcome = score(f"{bucket.uri}/out", *inputs)
    proxy.rest()
    assert (outcome.exit_code, outcome.this_run["units"]) == (0, 36)
    assert proxy.done[fault] > 40
    assert_sound(f"{bucket.uri}/out", rows(tmp_path / "undisturbed"))


# ------------------------------------------------------------------------------- content that changes under a run


def overwriting(folder: Path, kind: str) -> tuple[str, Callable[[int], None]]:
    """A source of 60 rows under ``folder``, and what writes it anew with fewer."""
    path = folder / f"in.{kind}" if kind != "folder" else folder / "images"

    def write(count: int) -> None:
        if kind == "folder":
            for name, image, _ in digits(60)[count:]:
                (path / name).write_bytes(image[:-1] + b"!")
        else:
            (write_tar if kind == "tar" else write_parquet)(path, heavy(count))

    if kind == "folder":
        write_folder(path, digits(60))
    else:
        write(60)
    return str(path), write


def on_read(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], None]) -> None:
    """``act`` once, when ``owner.name`` is called for the second time."""
    read, calls = getattr(owner, name), itertools.count(1)

    def reading(*arguments: Any) -> Any:
        if next(calls) == 2:
            act()
        return read(*arguments)

    monkeypatch.setattr(owner, name, reading)


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder"])
def test_a_local_source_that_changes_while_it_is_read_is_planned_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, write = overwriting(tmp_path, kind)
    other = write_folder(tmp_path / "others", digits(20)) if kind != "folder" else ""
    inputs = [source, *filter(None, [other])]
    ready = job(tmp_path / "out", *inputs)
    place = (storage, "read_identified") if kind == "folder" else (Shard, "read")
    on_read(monkeypatch, *place, lambda: write(40))
    outcome = execute(ready, score_here)
    assert outcome.exit_code == 0
    assert len(rows(tmp_path / "out")) == outcome.counts["rows_in"] == 60  # 40 and 20 others; a folder keeps its 60
    score(tmp_path / "fresh", *inputs)
    assert rows(tmp_path / "out") == rows(tmp_path / "fresh")
    assert execute(job(tmp_path / "out", *inputs), lambda _: pytest.fail("scored again")).exit_code == 0


@pytest.mark.parametrize("kind", ["tar", "parquet", "folder"])
@pytest.mark.usefixtures("small_reads")
def test_an_object_that_changes_while_it_is_read_is_planned_again(
    tmp_path: Path, bucket: Bucket, proxy: Proxy, kind: str
) -> None:
    path, write = overwriting(tmp_path, kind)
    source = bucket.put(path, Path(path).name)
    output = f"{bucket.uri}/out"
    ready = job(output, source)
    gets: list[Request] = []

    def overwrite(request: Request) -> None:
        if request.method == "GET" and f"/{Path(path).name}/" in f"{request.path}/":
            gets.append(request)
            if len(gets) == 3:
                write(40)
                bucket.put(path, Path(path).name) if kind != "folder" else replace_files(bucket, Path(path))

    proxy.hook = overwrite
    outcome = execute(ready, score_here)
    assert len(gets) > 3
    proxy.hook = lambda request: None
    assert outcome.exit_code == 0
    score(tmp_path / "fresh", source)
    assert rows(output) == rows(tmp_path / "fresh")
    assert outcome.counts["rows_in"] == outcome.counts["rows_scored"] + outcome.counts["rows_quarantined"]
    assert execute(job(output, source), lambda _: pytest.fail("scored again")).exit_code == 0


def replace_files(bucket: Bucket, folder: Path) -> None:
    for path in folder.rglob("*.png"):
        bucket.put(str(path), f"{folder.name}/{path.relative_to(folder)}")


def test_a_source_that_never_rests_is_given_up(tmp_path: Path) -> None:
    source, write = overwriting(tmp_path, "tar")
    other = write_parquet(tmp_path / "other.parquet", digits(20))
    counts = iter(range(10, 60))

    def changing(ready: Job) -> Iterator[dict[str, Any]]:
        write(next(counts))
        yield from score_here(ready)

    with pytest.raises(RegradError, match=r"in\.tar: changed while it was read, 4 times; run again when it is at rest"):
        execute(job(tmp_path / "out", other, source), changing)
    assert len(rows(tmp_path / "out")) == 20
    assert score(tmp_path / "out", other, source).counts["rows_scored"] == 20 + next(counts) - 1


def test_a_shard_that_goes_away_is_a_failure_of_one_line(tmp_path: Path) -> None:
    source, _ = overwriting(tmp_path, "tar")
    ready = job(tmp_path / "out", source)
    os.remove(source)
    with pytest.raises(RegradError, match=r"in\.tar: no such file"):
        execute(ready, score_here)
