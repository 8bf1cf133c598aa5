"""What nights have counted is remembered, once, whatever is cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import audited, commit
from regrad.pipeline.account import as_table

SOURCE = "s3://bucket/a.parquet"


def key(name: str, source: str = SOURCE) -> str:
    return commit.source_digits(source) + name.ljust(20, "0")


def unit(output: str, name: str, images: dict[str, str | None], refused: dict[str, str | None], start: int = 0) -> str:
    """A unit with these ids and digests."""
    scores = [(each, SOURCE, start + row, 0, 0, 0.5, 0.7, digest) for row, (each, digest) in enumerate(images.items())]
    bad = [
        (each, SOURCE, start + len(images) + row, "decode", "bad", digest)
        for row, (each, digest) in enumerate(refused.items())
    ]
    record = {"unit": key(name), "source": SOURCE, "start": start, "stop": start + len(images) + len(refused)}
    record |= {"rows_in": len(images) + len(refused), "rows_scored": len(images), "rows_quarantined": len(refused)}
    tables = as_table(scores, table.score_schema([])), as_table(bad, table.QUARANTINE_SCHEMA)
    commit.write_unit(output, commit.NewUnit(record, *tables, {}))
    return key(name)


def nights(output: str, units: dict[str, str], claim: str | None = "c") -> None:
    """Unit -> night, all of them counted."""
    rows = [(night, unit, claim) for unit, night in units.items()]
    table.write_file(audited.audited_uri(output), as_table(rows, audited.AUDITED_SCHEMA))
    rows = [(night, "c") for night in sorted(set(units.values()))]
    schema = audited.AUDITED_SCHEMA.remove(1)
    table.write_file(audited.history_uri(output), as_table(rows, schema))


def no_loss(name: str) -> None:
    raise AssertionError(name)


def retired(output: str) -> list[tuple[Any, ...]]:
    uri = f"{output}/retired/{commit.source_digits(SOURCE)}.parquet"
    columns = ("night", "name", "digest", "scored")
    schema = table.pa.schema([*((name, table.pa.string()) for name in columns[:3]), ("scored", table.pa.bool_())])
    return sorted(tuple(row.values()) for row in table.read_file(uri, schema).to_pylist())


def test_what_goes_is_written_down_once_with_its_night(tmp_path: Path) -> None:
    output = str(tmp_path)
    first = unit(output, "a", {"x": "1", "y": "2"}, {"bad": None})
    nights(output, {first: "n1"})
    for _ in range(2):
        audited.keep(output, [first], no_loss)
        assert retired(output) == [("n1", "bad", None, False), ("n1", "x", "1", True), ("n1", "y", "2", True)]
    # The next night has these again, and one that has changed: that one alone is its own.
    second = unit(output, "b", {"x": "1", "y": "3"}, {"bad": None})
    nights(output, {first: "n1", second: "n2"})
    audited.keep(output, [second, first], no_loss)
    assert len(retired(output)) == 4
    assert ("n2", "y", "3", True) in retired(output)


def test_only_what_a_night_has_counted_is_kept(tmp_path: Path) -> None:
    output = str(tmp_path)
    names = [unit(output, name, {name: name}, {}, start) for start, name in enumerate("abc")]
    audited.keep(output, names, no_loss)
    assert not (tmp_path / "retired").exists()
    nights(output, {names[0]: "n1", names[1]: "n1"}, claim="of an audit that was cut short")
    audited.keep(output, names, no_loss)
    assert not (tmp_path / "retired").exists()
    nights(output, {names[0]: "n1", names[1]: "n1"}, claim=None)  # as versions before claims wrote it
    audited.keep(output, names[1:], no_loss)
    assert [row[1] for row in retired(output)] == ["b"]


def test_a_part_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    output, lost = str(tmp_path), list[str]()
    name = unit(output, "a", {"x": "1"}, {"bad": None})
    nights(output, {name: "n1"})
    (tmp_path / f"scores/part-{name}.parquet").write_bytes(b"PAR1")
    audited.keep(output, [name], lost.append)
    assert lost == [name]
    assert [row[1] for row in retired(output)] == ["bad"]


def test_a_store_that_fails_is_no_damaged_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path)
    name = unit(output, "a", {"x": "1"}, {})
    nights(output, {name: "n1"})
    real = storage.read_bytes

    def failing(uri: str) -> bytes:
        if "/scores/" in uri:
            raise RegradError("503 SlowDown")
        return real(uri)

    monkeypatch.setattr(storage, "read_bytes", failing)
    with pytest.raises(RegradError, match="503"):
        audited.keep(output, [name], no_loss)


def image(name: str | None, digest: str | None, row: int = 0, scored: bool = True) -> audited.Image:
    return audited.Image(SOURCE, row, name, digest, None if scored else ("read", "null"))


@pytest.mark.parametrize(
    ("counted", "seen", "same"),
    [
        (image("x", "1"), image("x", "1", row=7), True),
        (image("x", "1"), image("x", "2"), False),
        (image("x", "1"), image("y", "1"), False),
        (image("x", "1", scored=False), image("x", "1"), True),  # refused then, with these bytes
        # Without a digest: the name, and what became of it.
        (image("x", None), image("x", "2"), True),
        (image("x", "1"), image("x", None), True),
        (image("x", None, scored=False), image("x", None, scored=False), True),
        (image("x", None, scored=False), image("x", "1"), False),  # it could not be read then
        (image(None, None, row=3, scored=False), image(None, None, row=3, scored=False), True),
        (image(None, None, row=3, scored=False), image(None, None, row=4, scored=False), False),
        # Names that are row numbers, or have been given one.
        (image("(row 3)", "1", row=3), image("(row 9)", "1", row=9), True),
        (image("(row 3)", "1", row=3), image("(row 3)", "2", row=3), False),
        (image("3", "1", row=3), image("(row 9)", "1", row=9), True),
        (image("3", None, row=3), image("(row 3)", "1", row=3), True),
        (image("x", "1"), image("x (row 5)", "1", row=5), True),
        (image("x (row 5)", "1", row=5), image("x (row 6)", "1", row=6), True),
        (image("x (row 5)", "1", row=4), image("x", "1", row=4), False),
        (image("(row 3)", "1", row=3), image("x", "1", row=3), True),  # ids came with a later version of the file
    ],
)
def test_an_image_is_told_by_name_and_digest(counted: audited.Image, seen: audited.Image, same: bool) -> None:
    known = audited.Known()
    assert not known
    known.add(counted.name, counted.digest, counted.scored)
    assert known
    assert known.take(seen) == same
    assert not known.take(seen)  # it is there once


def test_what_stands_for_the_rest_of_a_file_is_news_each_time() -> None:
    known = audited.Known()
    rest = audited.Image(SOURCE, None, None, None, ("read", "cannot be read from row 7 on"))
    known.add(rest.name, rest.digest, rest.scored)
    assert not known.take(rest)
