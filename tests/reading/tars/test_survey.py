"""Where a tar may be cut: pieces give what the whole gives, and what may not be cut is one unit, with the reason."""

from __future__ import annotations

import dataclasses
import io
import random
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrad.pipeline.plan import cut, make_unit
from regrad.reading.formats import Source
from regrad.reading.inputs import list_sources
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, Sample
from regrad.reading.tar import TarReader
from regrad.reading.tars import survey as surveys
from regrad.reading.tars.survey import Survey, survey
from tests.conftest import png
from tests.shards import write_members

Members = list[tuple[str, bytes]]


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
    assert source.rows == len(whole) > 40 and len(source.marks) > 8 and not source.whole
    parts = list(pieces(source, unit_rows))
    assert [sample for samples, _ in parts for sample in samples] == whole
    assert sum((reasons for _, reasons in parts), Counter()) == skipped
    longest = max(len(samples) for samples, _ in parts)
    assert len(parts) == 1 if unit_rows == 1000 else longest <= max(unit_rows, 6)
