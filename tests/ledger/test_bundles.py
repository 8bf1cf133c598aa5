"""Small units that are committed together, and are units all the same. (Folds and merges among them: test_merge.py.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import bundles, commit, contents, files, fold, merge, snapshots
from regrad.ledger.commit import NewUnit
from regrad.ledger.rows import Rows
from tests.ledger.test_merge import expected, ids, key_of, lines, tables, written, written_together
from tests.outputs import Stopped, new_unit, stop_after
from tests.services import Bucket

MANY = range(1, 13)


def units(numbers: Sequence[int] = MANY, replaces: Sequence[str] = ()) -> list[NewUnit]:
    made = [new_unit(key_of(number), *tables(number), source=f"shard-{number // 4}") for number in numbers]
    return [replace(unit, footer={**unit.footer, "provenance": "0" * 16}, replaces=replaces) for unit in made]


def names(output: str, folder: str = "ledger") -> list[str]:
    return storage.list_files(storage.join(output, folder))


def all_rows(output: str, kind: str = "scores") -> list[str]:
    return sorted(ids(Rows(output, kind).tables()))


def test_they_cost_a_file_of_each_kind_and_one_of_the_ledger(tmp_path: Path, steps: list[Callable[[], None]]) -> None:
    output, written_or_removed = str(tmp_path), []
    steps.append(lambda: written_or_removed.append(1))
    bundles.write_units(output, made := units())
    assert len(written_or_removed) == 4
    assert snapshots.bundles(names(output)) == names(output)
    assert contents.committed(output) == {unit.key for unit in made}
    assert contents.read_records(output, [unit.key for unit in made]) == [unit.record for unit in made]
    for kind in contents.KINDS:
        (name,) = names(output, kind)
        assert files.size_of(name)
        for place, unit in Rows(output, kind).by_unit():
            assert isinstance(unit, files.UnitRows)
            number = int(place.unit[12:], 16)
            assert unit.rows["id"].to_pylist() == [name for name, _ in lines(number, kind, 0)]
            assert (unit.said["unit"], unit.said["identity"]) == (place.unit, "e")
        assert ids(Rows(output, kind).tables()) == expected(MANY, kind)


def test_few_are_committed_one_by_one(tmp_path: Path) -> None:
    some = units(MANY[: bundles.LEAST - 1])
    bundles.write_units(str(tmp_path), some)
    assert names(str(tmp_path)) == sorted(f"{unit.key}.json" for unit in some)


def test_what_replaces_another_or_was_retired_a_moment_ago_is_committed_by_itself(tmp_path: Path) -> None:
    output = str(tmp_path)
    written(output, 0)
    written(output, 1)
    commit.retire(output, [key_of(1)])
    bundles.write_units(output, [*units(), *units([20], replaces=[key_of(0)])])
    assert contents.committed(output) == {key_of(number) for number in (*MANY, 20)}
    assert {name for name in names(output) if name.endswith(".json")} == {
        f"{key_of(number)}.json" for number in (1, 20)
    }
    fold.fold(output, lambda: None, at_least=1)
    assert contents.committed(output) == {key_of(number) for number in (*MANY, 20)}
    assert all_rows(output) == sorted(expected([*MANY, 20]))


def test_each_is_retired_by_itself_and_the_file_is_written_again_without_it(tmp_path: Path) -> None:
    output = str(tmp_path)
    bundles.write_units(output, units())
    commit.retire(output, [key_of(5)])
    assert contents.committed(output) == {key_of(number) for number in MANY if number != 5}
    fold.fold(output, lambda: None)  # however few there are
    merge.merge(output, lambda: None, merge.ONLY_WORN)
    for kind in contents.KINDS:
        assert len(names(output, kind)) == 1
        plain = table.read(output, ["id"], kind)["id"].to_pylist()
        assert plain == expected([number for number in MANY if number != 5], kind)


def test_all_are_retired(tmp_path: Path) -> None:
    output = str(tmp_path)
    bundles.write_units(output, units())
    commit.retire(output, [key_of(number) for number in MANY])
    assert contents.committed(output) == set()
    assert [names(output, kind) for kind in contents.KINDS] == [[], [], []]
    fold.fold(output, lambda: None)
    assert all(name.startswith("snapshot-") for name in names(output))
    assert contents.committed(output) == set()


def test_of_two_bundles_with_the_same_units_one_counts(tmp_path: Path) -> None:
    output = str(tmp_path)
    written_together(output, MANY, 0)
    written_together(output, MANY[2:], 1)  # by a worker that was taken for dead
    assert contents.committed(output) == {key_of(number) for number in MANY}
    assert all_rows(output) == sorted(expected(MANY))
    fold.fold(output, lambda: None)
    merge.merge(output, lambda: None, merge.ONLY_WORN)
    commit.sweep(output, contents.committed(output), commit.WRITTEN)
    assert sorted(table.read(output, ["id"])["id"].to_pylist()) == sorted(expected(MANY))


def test_rows_are_not_merged_before_a_fold_took_their_bundle_in(tmp_path: Path) -> None:
    output = str(tmp_path)
    for number in range(20, 32):
        written(output, number)
    fold.fold(output, lambda: None, at_least=1)
    bundles.write_units(output, units())
    own = names(output, "scores")[0]
    merge.merge(output, lambda: None, at_least=2)
    assert own in names(output, "scores")
    assert sorted(table.read(output, ["id"])["id"].to_pylist()) == sorted(expected([*MANY, *range(20, 32)]))
    fold.fold(output, lambda: None, at_least=1)
    merge.merge(output, lambda: None, at_least=2)
    assert len(names(output, "scores")) == 1
    assert all_rows(output) == sorted(expected([*MANY, *range(20, 32)]))


def test_parts_of_attempts_that_were_cut_short_are_left_over(tmp_path: Path) -> None:
    output = str(tmp_path)
    without = next(number for number in MANY if not lines(number, "quarantine", 0))
    parts = [
        contents.part_uri(output, kind, key_of(number)) for kind, number in (("scores", 1), ("quarantine", without))
    ]
    for uri in parts:
        storage.write_atomically(uri, b"rows")
    bundles.write_units(output, units())
    assert commit.left_over(output, contents.committed(output)) == parts
    fold.fold(output, lambda: None, at_least=1)
    assert commit.left_over(output, contents.committed(output)) == parts


@pytest.mark.parametrize("left", range(4))
def test_stopped_before_the_last_write_nothing_is_committed(
    tmp_path: Path, steps: list[Callable[[], None]], left: int
) -> None:
    output = str(tmp_path)
    writes = iter(range(left))
    steps.append(lambda: stop_after(writes))
    with pytest.raises(Stopped):
        bundles.write_units(output, units())
    steps.clear()
    assert contents.committed(output) == set()
    assert all_rows(output) == []
    commit.sweep(output, [])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_the_lease_nothing_is_committed(tmp_path: Path) -> None:
    asked: list[int] = []

    def lost() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise RegradError("another run is at work")

    with pytest.raises(RegradError, match="another run"):
        bundles.write_units(str(tmp_path), units(), lost)
    assert contents.committed(str(tmp_path)) == set()


def test_a_record_that_is_not_that_of_its_rows_commits_none(tmp_path: Path) -> None:
    wrong = units()
    wrong[5].record["rows_in"] += 1
    with pytest.raises(RegradError, match="please report this"):
        bundles.write_units(str(tmp_path), wrong)
    assert not [*tmp_path.iterdir()]


def test_a_damaged_one_says_what_to_do(tmp_path: Path) -> None:
    output = str(tmp_path)
    bundles.write_units(output, units())
    (name,) = names(output)
    path = tmp_path / "ledger" / name
    path.write_bytes(path.read_bytes()[:-9])
    fresh = path.rename(path.with_name(f"bundle-{'0' * 16}.parquet"))
    with pytest.raises(RegradError, match=rf"{fresh.name}: not a readable ledger .*delete it to score its units again"):
        contents.committed(output)


def test_in_a_bucket(bucket: Bucket) -> None:
    output = f"{bucket.uri}/out"
    bundles.write_units(output, units())
    commit.retire(output, [key_of(3)])
    fold.fold(output, lambda: None)
    merge.merge(output, lambda: None, merge.ONLY_WORN)
    commit.sweep(output, contents.committed(output), commit.WRITTEN)
    plain = pyarrow.parquet.read_table(storage.open_file(f"{output}/scores/{names(output, 'scores')[0]}"))
    assert plain["id"].to_pylist() == expected([number for number in MANY if number != 3])
