"""Merges among commits, retirements and folds, seen at every step and cut short at every step; told against a dict."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import bundles, commit, contents, files, fold, merge, rows
from regrad.ledger.rows import Rows, read_ids
from regrad.pipeline.account import as_table
from tests.outputs import Stopped, commit_rows, new_unit, stop_after
from tests.services import Bucket

Lines = tuple[tuple[Any, ...], ...]  # of one kind of one unit: id and what was measured
SCHEMA, REFUSED, EMBEDDED = table.score_schema(["entropy"]), table.QUARANTINE_SCHEMA, table.embedding_schema(1)
COUNTS = {"scores": 3, "quarantine": 2, "embeddings": 3}  # at most so many rows of a kind in a unit


def key_of(number: int) -> str:
    return f"{number * 7919 % 1000:012x}{number:020x}"


def lines(number: int, kind: str, attempt: int) -> Lines:
    """The rows of a unit; some have none of a kind. Attempts measure something else each."""
    kind = "scores" if kind == "embeddings" else kind  # of the same images
    count = (number // (1 if kind == "scores" else 3) + (kind == "scores")) % (COUNTS[kind] + 1)
    return tuple((f"{kind}-{number}-{row}", attempt) for row in range(count))


def tables(number: int, attempt: int = 0) -> tuple[pa.Table, pa.Table, pa.Table]:
    scored, refused, embedded = (enumerate(lines(number, kind, attempt)) for kind in contents.KINDS)
    return (
        as_table([(name, "s", row, 1, 1, 0.5, 0.7, "d", value) for row, (name, value) in scored], SCHEMA),
        as_table([(name, "s", 90 + row, "read", str(value), None) for row, (name, value) in refused], REFUSED),
        as_table([(name, "s", row, "d", "p", 5, np.float16([value])) for row, (name, value) in embedded], EMBEDDED),
    )


def written(output: str, number: int, attempt: int = 0) -> None:
    commit_rows(output, key_of(number), *tables(number, attempt), source=f"shard-{number // 4}")


def written_together(output: str, numbers: Iterable[int], attempt: int = 0) -> None:
    """As :func:`written`, by one write to the ledger."""
    units = [
        new_unit(key_of(number), *tables(number, attempt), source=f"shard-{number // 4}") for number in sorted(numbers)
    ]
    bundles.write_units(output, [replace(unit, footer={**unit.footer, "provenance": "0" * 16}) for unit in units])


MEASURED = {"scores": "entropy", "quarantine": "reason", "embeddings": "embedding"}


def rows_of(kind: str, rows: pa.Table) -> list[tuple[str, int]]:
    measured = rows[MEASURED[kind]].to_pylist()
    numbers = [value[0] if kind == "embeddings" else value for value in measured]
    return list(zip(rows["id"].to_pylist(), map(int, map(float, numbers)), strict=True))


def held(output: str, kind: str) -> dict[str, Lines]:
    """What the output holds, read in both ways."""
    by_unit = {}
    for place, unit in Rows(output, kind).by_unit():
        assert not isinstance(unit, Exception), unit
        assert unit.said["unit"] == place.unit
        assert unit.said["identity"] == "e"
        by_unit[place.unit] = tuple(rows_of(kind, unit.rows))
    streamed = [line for rows in Rows(output, kind).tables(["id", MEASURED[kind]]) for line in rows_of(kind, rows)]
    assert sorted(streamed) == sorted(line for some in by_unit.values() for line in some)
    assert Rows(output, kind).count() == len(streamed)
    return by_unit


def plain(output: str, kind: str) -> list[tuple[str, int]]:
    """What any reader of Parquet finds."""
    names = storage.list_files(storage.join(output, kind), ".parquet")
    return sorted(rows_of(kind, table.read(output, kind=kind))) if names else []


class Model:
    """The units there should be, and the attempts whose rows each may have."""

    def __init__(self, output: str, chance: random.Random):
        self.output, self.chance = output, chance
        self.units: dict[int, set[int]] = {}
        self._half: list[tuple[int, int]] = []

    def same(self) -> None:
        assert contents.committed(self.output) == {key_of(number) for number in self.units}
        for kind in contents.KINDS:
            now = held(self.output, kind)
            for number, attempts in self.units.items():
                assert now.pop(key_of(number), ()) in {lines(number, kind, attempt) for attempt in attempts}
            assert not now

    def at_rest(self) -> None:
        """Nothing is there but what counts, each row once, for any reader."""
        self.finish()
        fold.fold(self.output, lambda: None)
        merge.merge(self.output, lambda: None, at_least=2)
        commit.sweep(self.output, contents.committed(self.output), commit.WRITTEN)
        self.same()
        for kind in contents.KINDS:
            assert plain(self.output, kind) == sorted(
                line for some in held(self.output, kind).values() for line in some
            )
        assert commit.left_over(self.output, contents.committed(self.output)) == []

    def commit(self, number: int) -> None:
        attempt = self.chance.randrange(1000)
        written(self.output, number, attempt)
        self.units.setdefault(number, set()).add(attempt)

    def together(self) -> None:
        """Units in a bundle, also such as are committed already, by a worker that does not know."""
        attempt, numbers = self.chance.randrange(1000), self.chance.sample(range(50), 5)
        written_together(self.output, numbers, attempt)
        for number in numbers:
            self.units.setdefault(number, set()).add(attempt)

    def retire(self, count: int) -> None:
        half = {number for number, _ in self._half}
        going = self.chance.sample(sorted(self.units.keys() - half), min(len(self.units.keys() - half), count))
        commit.retire(self.output, [key_of(number) for number in going])
        for number in going:
            del self.units[number]

    def begin(self) -> None:
        """Half of another attempt of a unit: its parts, by a worker that does not know that it is committed."""
        if self.units:
            number, attempt = self.chance.choice(sorted(self.units)), self.chance.randrange(1000)
            footer = {"unit": key_of(number), "identity": "e", "model": {"spec": "s", "fingerprint": "f"}}
            for kind, rows in zip(contents.KINDS, tables(number, attempt), strict=True):
                if len(rows):
                    uri = contents.part_uri(self.output, kind, key_of(number))
                    storage.write_atomically(uri, table.to_parquet(rows, footer))
            self.units[number].add(attempt)
            self._half.append((number, attempt))

    def finish(self) -> None:
        """The other half: its record."""
        for number, _ in self._half:
            scored, refused, _ = tables(number)
            counts = {"rows_in": len(scored) + len(refused), "rows_scored": len(scored)}
            counts |= {"rows_quarantined": len(refused), "labelled": 0, "correct": 0, "labels_outside": 0}
            place = {"source": f"shard-{number // 4}", "start": 0, "stop": 9, "identity": "e", "schema_version": 2}
            told = {"unit": key_of(number), **counts, **place, "seconds": 0.5, "finished": "2026-01-02T03:04:05Z"}
            content = json.dumps(told | {"reasons": {}, "skipped": {}}).encode()
            storage.write_atomically(contents.record_uri(self.output, key_of(number)), content)
        self._half = []

    def others(self) -> None:
        """Something that workers do while the holder of the lease folds or merges, now and then."""
        match self.chance.choice(["begin", "finish", "retire", "together", *["nothing"] * 4]):
            case "begin":
                self.begin()
            case "together":
                self.together()
            case "finish":
                self.finish()
            case "retire":
                self.retire(1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a few units reach."""
    for name, value in {"AT_LEAST": 3, "FULL": 6000, "_ENDED": 9000, "_UNITS": 14}.items():
        monkeypatch.setattr(merge, name, value)
    monkeypatch.setattr(files, "_GROUP_ROWS", 5)
    monkeypatch.setattr(bundles, "LEAST", 3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(3))
def test_no_step_of_a_merge_and_no_end_of_one_changes_what_is_held(
    tmp_path: Path, steps: list[Callable[[], None]], seed: int
) -> None:
    chance = random.Random(seed)
    model = Model(str(tmp_path), chance)
    for _ in range(24):
        match chance.choice(["commit", "together", "retire", "fold", "merge", "killed", "killed", "rest"]):
            case "commit":
                for number in chance.sample(range(50), 6):
                    model.commit(number)
            case "together":
                model.together()
            case "retire":
                model.retire(chance.randrange(4))
            case "fold" | "merge" as what:
                steps.append(lambda: _see(steps, model))
                _work(model.output, what)
                steps.clear()
            case "killed":
                left = iter(range(chance.randrange(12)))
                steps.append(lambda left=left: stop_after(left))  # type: ignore[misc]
                with contextlib.suppress(Stopped):
                    _work(model.output, chance.choice(["fold", "merge", "both"]))
                steps.clear()
            case _:
                model.at_rest()
        model.same()
    model.at_rest()


def _work(output: str, what: str) -> None:
    if what != "merge":
        fold.fold(output, lambda: None, at_least=1)
    if what != "fold":
        merge.merge(output, lambda: None)


def _see(steps: list[Callable[[], None]], model: Model) -> None:
    seeing = steps[:]
    steps.clear()  # what is done here is not a step
    model.others()
    model.same()
    steps[:] = seeing


def merged(output: str, kind: str = "scores") -> list[str]:
    return [name for name in storage.list_files(storage.join(output, kind)) if files.size_of(name)]


def made(output: str, numbers: Iterable[int] = range(12), attempt: int = 0) -> None:
    """Units that are in a snapshot."""
    for number in numbers:
        written(output, number, attempt)
    fold.fold(output, lambda: None, at_least=1)


def ids(rows: Iterable[pa.Table]) -> list[str]:
    return [name for some in rows for name in some["id"].to_pylist()]


def expected(numbers: Iterable[int], kind: str = "scores") -> list[str]:
    return [name for number in sorted(numbers, key=key_of) for name, _ in lines(number, kind, 0)]


def test_a_merged_file_has_whole_units_in_order_and_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    monkeypatch.setattr(files, "_GROUP_ROWS", 4)
    made(output)
    assert merge.merge(output, lambda: None, at_least=2) == 15 + 9  # a unit may have no rows of a kind
    (name,) = storage.list_files(f"{output}/scores")
    path = tmp_path / "scores" / name
    assert files.size_of(name) == (len(expected(range(12))), path.stat().st_size)
    file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    assert file.read()["id"].to_pylist() == expected(range(12))
    said = json.loads(file.metadata.metadata[table.PROVENANCE_KEY])
    assert said["model"] == {"spec": "tests:network", "fingerprint": "f"}
    units = sorted((key_of(number), "e", len(lines(number, "scores", 0)), 0) for number in range(12))
    assert said["units"] == [list(unit) for unit in units if unit[2]]
    groups = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
    ends = {sum(unit[2] for unit in units[:place]) for place in range(13)}
    assert {sum(groups[:place]) for place in range(len(groups))} <= ends
    assert all(4 <= rows < 4 + COUNTS["scores"] for rows in groups[:-1])


def test_the_ids_of_units_in_merged_files(tmp_path: Path) -> None:
    output, numbers = str(tmp_path), [7, 1, 4, 3]
    made(output)
    merge.merge(output, lambda: None, at_least=2)
    records = contents.read_records(output, [key_of(number) for number in numbers])
    names = [[name for name, _ in lines(number, "scores", 0)] for number in numbers]
    refused = [len(lines(number, "quarantine", 0)) for number in numbers]
    assert refused == [2, 0, 1, 1]
    assert read_ids(output, [record | {"stop": len(own)} for record, own in zip(records, names, strict=True)]) == [
        None if count else own for own, count in zip(names, refused, strict=True)
    ]


def test_a_reader_goes_on_when_what_it_saw_is_merged_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path)
    monkeypatch.setattr(rows, "_AHEAD", 2)
    made(output)
    streamed, by_unit = Rows(output).tables(["id"]), Rows(output).by_unit(["id"])
    first, (_, unit) = next(streamed), next(by_unit)
    merge.merge(output, lambda: None, at_least=2)
    made(output, range(20, 26))
    later = Rows(output).tables(["id"])
    merge.merge(output, lambda: None, at_least=2)
    assert len(merged(output)) == 1  # the first is gone too
    assert isinstance(unit, files.UnitRows)
    assert sorted(ids([first, *streamed])) == sorted(expected(range(12)))
    others = [other.rows for _, other in by_unit if isinstance(other, files.UnitRows)]
    assert ids([unit.rows, *others]) == expected(range(12))
    assert sorted(ids(later)) == sorted(expected([*range(12), *range(20, 26)]))


def test_a_file_goes_with_the_last_unit_that_has_rows_in_it(tmp_path: Path) -> None:
    output = str(tmp_path)
    made(output)
    merge.merge(output, lambda: None, at_least=2)
    there = merged(output)
    commit.retire(output, [key_of(number) for number in range(5)])
    assert merged(output) == there  # others need it
    assert sorted(ids(Rows(output).tables())) == sorted(expected(range(5, 12)))
    commit.retire(output, [key_of(number) for number in range(5, 12)])
    assert merged(output) == merged(output, "quarantine") == []


def test_a_file_that_is_written_again_stays_until_all_its_units_are_moved(
    tmp_path: Path, steps: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, left = str(tmp_path), [*range(4), *range(5, 12)]
    made(output)
    merge.merge(output, lambda: None, at_least=2)
    commit.retire(output, [key_of(4)])
    monkeypatch.setattr(merge, "_UNITS", 3)
    seen = []

    def see() -> None:
        assert sorted(ids(Rows(output).tables())) == sorted(expected(left))
        seen.append(len(merged(output)))

    steps.append(see)
    merge.merge(output, lambda: None)
    steps.clear()
    assert max(seen) == 4  # the old one, and three of four new ones
    assert len(merged(output)) == 3
    assert [row["id"] for row in table.read(output).to_pylist()] != []
    assert commit.left_over(output, contents.committed(output)) == []


def test_a_unit_that_is_retired_while_it_is_folded_again_is_no_more(
    tmp_path: Path, steps: list[Callable[[], None]]
) -> None:
    output, others = str(tmp_path), expected([2, 4])
    made(output, [1, 2, 4])
    commit.retire(output, [key_of(1)])
    written(output, 1)  # it comes back, and is loose beside the note of its retirement
    once = iter([None])

    def retire() -> None:
        if next(once, 0) is None:
            commit.retire(output, [key_of(1)])

    steps.append(retire)
    fold.fold(output, lambda: None, at_least=1)
    steps.clear()
    assert ids(Rows(output).tables()) == others
    fold.fold(output, lambda: None, at_least=1)
    assert ids(Rows(output).tables()) == others
    assert not contents.look(output).notes


def test_a_unit_that_was_committed_once_more_after_it_was_merged_is_retired_at_once(
    tmp_path: Path, steps: list[Callable[[], None]]
) -> None:
    output = str(tmp_path)
    made(output)
    merge.merge(output, lambda: None, at_least=2)
    written(output, 1)
    commit.sweep(output, contents.committed(output))  # its part, since its rows are in the file

    def see() -> None:
        for _, unit in Rows(output).by_unit():
            assert not isinstance(unit, Exception)

    steps.append(see)
    commit.retire(output, [key_of(1)])
    steps.clear()
    assert key_of(1) not in contents.committed(output)


def test_what_is_new_is_merged_with_what_is_about_as_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, sizes = str(tmp_path), []
    for night in range(6):
        made(output, range(100 * night, 100 * night + (64 if night == 0 else 8)))
        merge.merge(output, lambda: None, at_least=2)
        names = [files.size_of(name) for name in merged(output)]
        sizes.append(sorted(size.rows for size in names if size))
    monkeypatch.setattr(merge, "FULL", 1)
    made(output, range(1000, 1100))
    merge.merge(output, lambda: None, at_least=2)
    assert len(merged(output)) == len(sizes[-1]) + 1  # what was there is large enough now
    assert sizes == [[96], [12, 96], [24, 96], [36, 96], [12, 36, 96], [156]]


@pytest.mark.parametrize(
    ("rows", "new", "taken"),
    [
        ([], 0, 0),
        ([5], 0, 0),
        ([5] * 7, 0, 0),
        ([5] * 8, 0, 8),
        ([1, *[50] * 8], 0, 9),  # what is smaller comes with them
        ([1, 2, *[50] * 8, 5000], 0, 10),
        ([1, 20, 400, 8000], 0, 0),
        ([50] * 7 + [1000] * 8, 0, 15),
        ([5, 9, 100], 4, 2),
        ([9, 100], 4, 0),
    ],
)
def test_files_of_about_the_same_size_are_merged(rows: list[int], new: int, taken: int) -> None:
    assert merge._alike(rows, new, at_least=8) == taken


def test_few_parts_and_large_units_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path)
    made(output)
    assert merge.merge(output, lambda: None) == 0
    monkeypatch.setattr(merge, "_ALONE", 3)
    merge.merge(output, lambda: None, at_least=2)
    parts = [name for name in storage.list_files(f"{output}/scores") if name not in merged(output)]
    assert sorted(parts) == sorted(f"part-{key_of(n)}.parquet" for n in range(12) if len(lines(n, "scores", 0)) == 3)


def test_nothing_is_written_and_nothing_removed_without_the_lease(tmp_path: Path) -> None:
    output = str(tmp_path)
    made(output)
    there = [sorted(path.name for path in tmp_path.rglob("*"))]
    for count in range(4):
        left = iter(range(count))

        def lost(left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise RegradError("another run is at work")

        with pytest.raises(RegradError, match="another run"):
            merge.merge(output, lost, at_least=2)
        there.append(sorted(path.name for path in tmp_path.rglob("*")))
        assert sorted(ids(Rows(output).tables())) == sorted(expected(range(12)))
    assert there[0] == there[1]


@pytest.mark.parametrize("harm", ["cut", "gone", "another's", "other columns", "fewer rows"])
def test_what_is_not_as_it_should_be_stays_as_it_is(tmp_path: Path, harm: str) -> None:
    output = str(tmp_path)
    made(output)
    path, other = (tmp_path / "scores" / f"part-{key_of(number)}.parquet" for number in (1, 5))
    content = path.read_bytes()
    kept = pyarrow.parquet.read_table(path)
    said = json.loads(kept.schema.metadata[table.PROVENANCE_KEY])
    match harm:
        case "cut":
            path.write_bytes(content[:-7])
        case "gone":
            path.unlink()
        case "another's":
            path.write_bytes(other.read_bytes())
        case "other columns":
            path.write_bytes(table.to_parquet(kept.drop_columns(["entropy"]), said))
        case _:
            path.write_bytes(table.to_parquet(kept.slice(1), said))
    harmed = path.read_bytes() if path.exists() else b""
    merge.merge(output, lambda: None, at_least=2)
    assert [place.unit for place in Rows(output).places if place.file is None] == [key_of(1)]
    assert (path.read_bytes() if path.exists() else b"") == harmed
    assert [ids(Rows(output, units=[key_of(number)]).tables()) for number in (2, 4)] == [expected([2]), expected([4])]


def test_damage_in_a_file_concerns_its_units_and_the_others_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    monkeypatch.setattr(files, "_GROUP_ROWS", 4)
    made(output)
    merge.merge(output, lambda: None, at_least=2)
    (name,) = merged(output)
    path = tmp_path / "scores" / name
    content = bytearray(path.read_bytes())
    column = pyarrow.parquet.read_metadata(path).row_group(1).column(0)
    content[column.dictionary_page_offset + column.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RegradError, match="scores: cannot read: "):
        ids(Rows(output).tables())
    wrong = [place.unit for place, unit in Rows(output).by_unit() if isinstance(unit, Exception)]
    assert 1 <= len(wrong) <= 4
    commit.retire(output, wrong)
    merge.merge(output, lambda: None)
    (again,) = merged(output)
    assert again != name
    left = [number for number in range(12) if key_of(number) not in wrong]
    assert ids(Rows(output).tables()) == [row["id"] for row in table.read(output).to_pylist()] == expected(left)


def test_parts_of_before_are_given_a_name_of_where_they_come_from(tmp_path: Path) -> None:
    output = str(tmp_path)
    made(output)
    origin = {"schema_version": 2, "model": {"spec": "s", "fingerprint": "f"}, "config": {"sigma": 0.5}}
    for number in range(12):
        path = tmp_path / "scores" / f"part-{key_of(number)}.parquet"
        if path.exists() and number % 4 != 1:
            rows_of_old = pyarrow.parquet.read_table(path).drop_columns(["digest"])
            told = {**origin, "unit": key_of(number), "identity": "e"}
            path.write_bytes(table.to_parquet(rows_of_old, told))
    merge.merge(output, lambda: None, at_least=2)
    names = set()
    for place, unit in Rows(output).by_unit():
        assert isinstance(unit, files.UnitRows)
        number = int(place.unit[12:], 16)
        assert unit.rows["digest"].to_pylist() == [None if number % 4 != 1 else "d"] * place.rows
        names.add((unit.said["provenance"], number % 4 == 1))
    (old,) = (name for name, new in names if not new)
    assert table.read_provenance(output, old) == origin
    assert len(names) == 2


def test_in_a_bucket(bucket: Bucket) -> None:
    output = f"{bucket.uri}/out"
    made(output, range(8))
    merge.merge(output, lambda: None, at_least=2)
    assert [len(storage.list_files(f"{output}/{kind}")) for kind in contents.KINDS] == [1, 1, 1]
    streamed, by_unit = Rows(output).tables(["id"]), Rows(output).by_unit(["id"])
    commit.retire(output, [key_of(1)])
    merge.merge(output, lambda: None)
    with pytest.raises(RegradError, match=f"unit {key_of(1)} was replaced while it was read"):
        ids(streamed)
    left = [0, *range(2, 8)]
    assert ids(unit.rows for _, unit in by_unit if isinstance(unit, files.UnitRows)) == expected(left)
    assert ids(Rows(output).tables()) == expected(left)
    assert sorted(table.read(output)["id"].to_pylist()) == sorted(expected(left))
