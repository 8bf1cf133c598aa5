"""Images that are decoded by other processes: the same rows, whatever becomes of those processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch

from regrad import table
from regrad.cluster import actors, decoders, score_on_ray
from regrad.cluster.decoders import DecodingActors
from regrad.network.pictures import Preprocessing
from regrad.pipeline import prepare as prepared
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import RunOutcome, execute, score_here
from regrad.reading.decode import BadImage, DecodingThreads, How, Picture, to_compact
from tests.shards import digits, write_parquet

pytestmark = pytest.mark.usefixtures("ray_session")
KINDS = ("scores", "embeddings", "quarantine")
BROKEN = [("cut", digits()[0][1][:40], 3), ("none", b"", 2)]
ROWS = [*digits(40), *BROKEN, *[(f"x{row}", content, 1) for row, (_, content, _) in enumerate(digits(9))]]
SETTINGS = Preprocessing((8, 8), 1)
HOW = How(SETTINGS, 10**6, looks=True)


def halved(image: torch.Tensor) -> torch.Tensor:
    """A transform that tells which process it is done by: Ray calls its own by what they do."""
    with open(os.environ["REGRAD_TEST_DECODED_BY"], "ab") as told:
        told.write(Path("/proc/self/cmdline").read_bytes().strip(b"\0") + b"\n")
    return image / 2


@contextmanager
def begun(*arguments: Any) -> Iterator[list[Any]]:
    """Decoders that have started."""
    with decoders.started(*arguments) as actors:
        ray.get([actor.ready.remote() for actor in actors])
        yield actors


def outcome(
    output: Path, source: str, *arguments: Any, on: Any = score_on_ray
) -> tuple[RunOutcome, list[dict[str, Any]]]:
    settings = ("--model", "tests.shards:build", "--scores", "regrad,entropy", "--samples", 2, "--output", output)
    ended = execute(prepare(parse([*map(str, (source, *settings, *arguments))], "score", None)), on)
    rows = [row for kind in KINDS for row in table.read(str(output), kind=kind).to_pylist()]
    return ended, sorted(rows, key=lambda row: (row["source"], row["row"]))


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a worker beside a decoder has here: threads share the images of a batch, which decides the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(prepared, "cores", lambda: 1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_rows_and_quarantine_are_those_of_a_worker_that_decodes_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a transform, after which images are floats; levels are what the tests of chunks have."""
    monkeypatch.setattr(actors, "decoders", SimpleNamespace(started=begun, by_decoders=decoders.by_decoders))
    monkeypatch.setenv("REGRAD_TEST_DECODED_BY", str(tmp_path / "alone.txt"))
    source = write_parquet(tmp_path / "in.parquet", ROWS)
    transform = ("--transform", f"{__name__}:halved")
    asked = (*transform, "--embeddings", "--max-quarantined", 2, "--unit-rows", 20, "--batch-size", 7)
    alone, wanted = outcome(tmp_path / "alone", source, *asked, on=score_here)
    monkeypatch.setenv("REGRAD_TEST_DECODED_BY", str(tmp_path / "shared.txt"))
    shared, rows = outcome(tmp_path / "shared", source, *asked, "--decode-workers", 1)
    assert shared.this_run["rows_scored"] == alone.this_run["rows_scored"] == 49
    assert shared.this_run["rows_quarantined"] == alone.this_run["rows_quarantined"] == 2
    assert rows == wanted
    decoded_by = (tmp_path / "shared.txt").read_text().splitlines()
    assert sum(line.startswith("ray::Decoder") for line in decoded_by) == 49, decoded_by


class _Pool:
    """Decoders that are asked, and what became of it."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self.said: list[str] = []
        here = DecodingThreads(HOW, 1)
        self.here_count = 0
        submit = here.submit

        def counted(content: bytes) -> Future[Picture]:
            self.here_count += 1
            return submit(content)

        here.submit = counted  # type: ignore[method-assign]
        self.decoding = DecodingActors(actors, 4, here, self.said.append)


@pytest.fixture
def pool() -> Iterator[_Pool]:
    with begun(1, HOW) as actors:
        yield _Pool(actors)


def same(picture: Picture, content: bytes) -> None:
    """It is what is decoded here."""
    wanted = HOW.picture(content)
    assert torch.equal(picture.tensor, wanted.tensor)
    assert tuple(picture.looks) == tuple(wanted.looks) != ()


def test_chunks_go_out_when_they_are_full_or_somebody_waits(pool: _Pool) -> None:
    contents = [content for _, content, _ in digits(5)]
    images = [pool.decoding.submit(content) for content in contents]
    for content, image in zip(contents[:4], images[:4], strict=True):
        same(image.result(20), content)
    threading.Event().wait(0.1)
    assert not images[4].done()
    pool.decoding.flush()
    same(images[4].result(20), contents[4])
    bad = pool.decoding.submit(b"no picture")
    pool.decoding.flush()
    with pytest.raises(BadImage, match="decode: ") as raised:
        bad.result(20)
    assert raised.value.stage == "decode"
    left = pool.decoding.submit(contents[0])
    pool.decoding.shutdown()
    assert left.cancelled()
    assert (pool.here_count, pool.said) == (0, [])


def test_until_one_has_started_images_are_decoded_here(pool: _Pool) -> None:
    pool.decoding._looked = float("inf")  # none has
    image = pool.decoding.submit(digits()[0][1])
    pool.decoding.flush()
    same(image.result(20), digits()[0][1])
    assert pool.here_count == 1
    pool.decoding.shutdown()


def test_what_a_lost_decoder_had_is_decoded_here(pool: _Pool) -> None:
    (decoder,) = pool.decoding._starting.values()
    process = ray.get(decoder.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGSTOP)
    contents = [content for _, content, _ in digits(8)]
    images = [pool.decoding.submit(content) for content in contents]
    os.kill(process, signal.SIGKILL)
    for content, image in zip(contents, images, strict=True):
        same(image.result(60), content)
    assert pool.here_count == 8
    assert pool.said == ["a process that decodes for others was lost: its images are decoded by the worker itself"]
    pool.decoding.shutdown()


def test_others_go_on_without_a_lost_one() -> None:
    with begun(2, HOW) as both:
        ready = _Pool(both)
        ray.wait([*ready.decoding._starting], num_returns=2)
        ready.decoding._looked = -1.0  # not for the first time, so that both are taken in
        ready.decoding._look()
        assert len(ready.decoding._under_way) == 2
        ray.kill(both[0])
        contents = [content for _, content, _ in digits(40)]
        for content in contents:  # a chunk is waited for before the next begins
            image = ready.decoding.submit(content)
            ready.decoding.flush()
            same(image.result(60), content)
        assert ready.here_count <= 1
        ready.decoding.shutdown()


def test_images_travel_as_they_lie_in_memory() -> None:
    levels = to_compact(digits()[0][1], SETTINGS)
    assert decoders.packed(levels).flags.c_contiguous
    for image in (levels, levels.float()):
        assert torch.equal(decoders.unpacked(decoders.packed(image)), image)
