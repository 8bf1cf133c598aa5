"""Where a tar may be cut: pieces give what the whole gives, and what may not be cut is one unit, with the reason."""

from __future__ import annotations

import io
import random
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from regrad import table
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.plan import cut, make_unit
from regrad.pipeline.prepare import describe, prepare
from regrad.pipeline.run import execute, score_here
from regrad.reading.formats import Source
from regrad.reading.inputs import list_inputs, list_sources
from regrad.reading.looked import Looked
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, Sample, Shard
from regrad.reading.tar import TarReader
from regrad.reading.tars import survey as surveys
from regrad.reading.tars.survey import TarSurvey, survey
from tests.conftest import png
from tests.services import Bucket
from tests.shards import digits, write_members, write_tar

Members = list[tuple[str, bytes]]
MODEL = ("--model", "tests.shards:build", "--scores", "entropy", "--samples", "0", "--unit-rows", "8")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tars of a few members are large, and marks stand close."""
    monkeypatch.setattr(surveys, "SMALL_BYTES", 0)
    monkeypatch.setattr(surveys, "MARK_ROWS", 3)


def in_order(seed: int, samples: int = 40) -> Members:
    """A tar as WebDataset wants it, with all that may lie between and in the samples of one."""
    draw = random.Random(seed)
    members: Members = []
    for number in range(samples):
        key = f"{number // 10:02}/{number:04}"
        several = draw.random() < 0.2
        fields = ["left.png", "right.png"] if several else ["png"]
        fields += draw.sample(["cls", "json", "txt", "seg.npy"], draw.randint(0, 3))
        draw.shuffle(fields)
        if draw.random() < 0.2:
            members.append((draw.choice(["README", f"x/.hidden{number}.png", "__MACOSX/._a.png"]), b"x"))
        for field in fields:
            content = {"cls": b"%d" % (number % 10), "json": b'{"label": 3}'}.get(field, bytes(draw.randint(0, 1500)))
            members.append((f"{key}.{field}", png(number) if field.endswith("png") else content))
        if draw.random() < 0.05:
            members.append((f"{key[:2]}/" + "long" * 60 + f"{number}.png", png(number)))  # a name of two headers
        if draw.random() < 0.05:
            members.append((".png", b"no key"))
    return members


def read(reader: TarReader, start: int = 0, stop: int | None = None) -> tuple[list[Sample], Counter[str]]:
    samples = list(reader.rows(start, stop))
    return samples, Counter(reader.skipped)


def pieces(source: Source, unit_rows: int) -> Iterator[tuple[list[Sample], Counter[str]]]:
    """What the units of a source give, read one by one."""
    for rows in cut(source, unit_rows, "salt"):
        unit = make_unit(source, rows.start, rows.stop, "salt")
        reader = TarReader(source.uri, source.columns)
        reader.extent = unit.extent
        yield read(reader, unit.start, unit.stop)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("unit_rows", [1, 5, 16, 1000])
def test_the_pieces_are_the_whole(tmp_path: Path, seed: int, unit_rows: int) -> None:
    uri = write_members(tmp_path / "a.tar", in_order(seed))
    (source,) = list_sources([uri])
    whole, skipped = read(TarReader(uri))
    assert source.rows == len(whole) > 40
    assert len(source.marks) > 8
    parts = list(pieces(source, unit_rows))
    assert [sample for samples, _ in parts for sample in samples] == whole
    assert sum((reasons for _, reasons in parts), Counter()) == skipped
    longest = max(len(samples) for samples, _ in parts)
    assert len(parts) == 1 if unit_rows == 1000 else longest <= max(unit_rows, 6)


def test_a_limit_within_a_piece_is_the_beginning_of_it(tmp_path: Path) -> None:
    (source,) = list_sources([write_members(tmp_path / "a.tar", in_order(0))])
    reader = TarReader(source.uri)
    whole = list(reader.rows())
    for start, stop in [(0, 2), (7, 11), (20, 21)]:
        reader.extent = source.extent(start, stop)
        assert list(reader.rows(start, stop)) == whole[start:stop]


def test_a_piece_is_read_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a byte of what lies before it, and of what comes after it no more than is read at a time."""
    uri = write_members(tmp_path / "a.tar", [(f"{n:03}.png", bytes(10_000)) for n in range(100)])
    (source,) = list_sources([uri])
    reader = TarReader(uri)
    reader.extent = source.extent(60, 63)
    assert reader.extent is not None
    assert reader.extent.row == 60
    places: list[tuple[int, int]] = []
    real = Shard.read

    def read(shard: Shard, size: int = -1) -> bytes:
        places.append((shard.tell(), size))
        return real(shard, size)

    monkeypatch.setattr(Shard, "read", read)
    assert [sample.row for sample in reader.rows(60, 63)] == [60, 61, 62]
    assert min(place for place, _ in places) == reader.extent.begin
    assert max(place + size for place, size in places) == reader.extent.end


def compressed(path: Path) -> str:
    return write_members(path / "a.tar.gz", in_order(1), "w:gz")


def cut_short(path: Path) -> str:
    uri = write_members(path / "a.tar", in_order(1))
    content = Path(uri).read_bytes()
    Path(uri).write_bytes(content[: len(content) // 2])
    return uri


def unsorted(path: Path) -> str:
    return write_members(path / "a.tar", sorted(in_order(1), key=lambda member: member[0].rpartition(".")[2]))


def twice(path: Path) -> str:
    return write_members(path / "a.tar", [("0.png", png(1)), *in_order(1), ("0.png", png(1))])


def without_a_picture(path: Path) -> str:
    return write_members(path / "a.tar", [*in_order(1), ("09/0000.cls", b"1")])


def with_global_headers(path: Path) -> str:
    with tarfile.open(path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "of all"}) as archive:
        for name, content in in_order(1):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path / "a.tar")


WHOLE: dict[Callable[[Path], str], str] = {
    compressed: surveys.COMPRESSED,
    cut_short: surveys.DAMAGED,
    unsorted: surveys.SCATTERED,
    twice: surveys.NAMES,
    without_a_picture: surveys.SCATTERED,
    with_global_headers: surveys.GLOBAL,
}


@pytest.mark.parametrize("write", WHOLE)
def test_what_may_not_be_cut_is_one_unit_as_the_plan_says(tmp_path: Path, write: Callable[[Path], str]) -> None:
    write(tmp_path)
    listing = list_inputs([str(tmp_path)])
    (source,) = listing.sources
    assert (source.rows, source.marks, source.whole) == (None, (), WHOLE[write])
    assert [(span.start, span.stop) for span in cut(source, 4, "salt")] == [(0, None)]
    job = prepare(parse([*MODEL, str(tmp_path), "--output", str(tmp_path / "out")], "score", None))
    assert f"one unit   1: 1 {WHOLE[write]}" in describe(job).splitlines()


def test_ids_that_only_reading_tells_and_small_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = write_members(tmp_path / "a.tar", in_order(1))
    assert survey(uri, Columns(id="name"), 2**30) == TarSurvey(whole=surveys.IDS)
    monkeypatch.setattr(surveys, "SMALL_BYTES", 10**6)
    assert survey("nothing is opened", DEFAULT_COLUMNS, 10**6 - 1) == TarSurvey()


def test_a_stores_tar_is_not_read_to_its_end_for_it(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = bucket.put(write_members(tmp_path / "a.tar", in_order(1)), "a.tar")
    (source,) = list_sources([uri])
    assert (source.rows, source.whole) == (None, surveys.NO_INDEX)
    monkeypatch.setattr(surveys, "REMOTE_BYTES", source.size)
    (large,) = list_sources([uri])
    (local,) = list_sources([str(tmp_path / "a.tar")])
    assert (large.marks, large.rows) == (local.marks, local.rows)
    whole, _ = read(TarReader(uri))
    assert [sample for samples, _ in pieces(large, 8) for sample in samples] == whole


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_members(tmp_path / "in/a.tar", in_order(1))
    compressed(tmp_path / "in")
    looked = Looked(str(tmp_path))
    first = list_inputs([str(tmp_path / "in")], looked=looked)
    looked.save()
    monkeypatch.setattr(surveys, "Shard", None)  # nothing is opened again
    again = list_inputs([str(tmp_path / "in")], looked=Looked(str(tmp_path)))
    assert again.sources == first.sources
    assert [len(source.marks) > 8 for source in again.sources] == [True, False]


def test_a_job_on_a_cut_tar_is_the_job_on_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where the whole was committed already, it stays."""
    uri = write_tar(tmp_path / "a.tar", digits(40))

    def run(output: str, *more: str) -> Any:
        return execute(
            prepare(parse([uri, *MODEL, "--output", str(tmp_path / output), *more], "score", None)), score_here
        )

    total = [0]
    real = Shard.read

    def read(shard: Shard, size: int = -1) -> bytes:
        content = real(shard, size)
        total[0] += len(content)
        return content

    with monkeypatch.context() as patched:
        patched.setattr(Shard, "read", read)
        cut_up = run("cut")
    assert total[0] < 2.5 * (tmp_path / "a.tar").stat().st_size  # the headers for the plan, and each unit its own rows
    assert (cut_up.counts["units"], cut_up.counts["rows_scored"]) == (7, 40)  # of six rows, two marks apart
    assert not check(str(tmp_path / "cut")).problems + check(str(tmp_path / "cut")).notes
    assert run("cut").this_run["units"] == 0
    assert run("limited", "--limit", "11").counts["rows_scored"] == 11
    assert run("limited").counts["rows_scored"] == 40
    with monkeypatch.context() as patched:
        patched.setattr(surveys, "SMALL_BYTES", 2**26)
        assert run("whole").counts["units"] == 1
    assert run("whole").this_run["units"] == 0
    tables = [table.read(str(tmp_path / output)).sort_by("row") for output in ("cut", "limited", "whole")]
    columns = [dict(zip(rows.column_names, rows.to_pydict().values(), strict=True)) for rows in tables]
    for name, values in columns[0].items():
        for others in columns[1:]:
            assert others[name] == (pytest.approx(values, rel=1e-6) if isinstance(values[0], float) else values)
