"""Folds among commits and retirements, seen at every step and cut short at every step; told against a dict."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import commit, contents, fold, snapshots
from tests.outputs import Stopped, stop_after
from tests.services import Bucket

Records = dict[str, dict[str, Any]]


def record(number: int, **more: Any) -> dict[str, Any]:
    """A ledger record as a worker writes it, of a unit with this number."""
    counts = {"rows_in": 3, "rows_scored": 2, "rows_quarantined": 1, "labelled": 0, "correct": 0, "labels_outside": 0}
    place = {"source": f"shard-{number // 4}", "start": 3 * (number % 4), "stop": None if number % 7 == 0 else 9}
    told = {"seconds": 0.5, "finished": "2026-01-02T03:04:05Z", "identity": "e", "schema_version": 2}
    return {"unit": f"{number:032x}", **place, **counts, **told, "reasons": {"read: gone": 1}, "skipped": {}, **more}


def write(output: str, content: dict[str, Any]) -> None:
    """Commit a record, as :func:`regrad.ledger.commit.write_unit` does after its parts."""
    storage.write_atomically(contents.record_uri(output, content["unit"]), json.dumps(content).encode())


def bundle(output: str, records: list[dict[str, Any]]) -> None:
    """Commit records together, as :func:`regrad.ledger.bundles.write_units` does after their rows."""
    rows = snapshots.live(snapshots.to_table(records))
    snapshots.write_bundle(output, snapshots.moved(rows, "scores", "merged", range(0, 2 * len(rows), 2)))


def held(output: str) -> Records:
    """What the ledger tells, asked in every way there is."""
    keys = contents.committed(output)
    ledger = commit.Ledger.read(output)
    assert set(ledger.keys) == keys
    records = dict(zip(sorted(keys), contents.read_records(output, sorted(keys)), strict=True))
    assert ledger.records(sorted(keys)) == list(records.values())
    assert snapshots.to_records(ledger.table()) == list(records.values())
    return records


def names(output: str) -> list[str]:
    return storage.list_files(storage.join(output, "ledger"))


@pytest.mark.parametrize("seed", range(8))
def test_no_step_of_a_fold_and_no_end_of_one_changes_what_is_held(
    tmp_path: Path, steps: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance, output, model = random.Random(seed), str(tmp_path), Records()
    together: set[str] = set()  # as long as they are, they are what was committed first
    monkeypatch.setattr(fold, "_AT_ONCE", chance.choice([3, 5, 1000]))
    for _ in range(60):
        match chance.choice(["commit", "commit", "commit", "bundle", "bundle", "retire", "fold", "killed"]):
            case "commit":
                told = record(chance.randrange(30), seconds=chance.random())
                write(output, told)
                if told["unit"] not in together:
                    model[told["unit"]] = told
            case "bundle":
                some = [record(number, seconds=chance.random()) for number in chance.sample(range(30), 4)]
                able = {told["unit"]: told for told in some}
                for unit in able.keys() & (contents.noted(output) | together):
                    del able[unit]
                if able:
                    bundle(output, [*able.values()])
                together.update(able)
                model.update(able)
            case "retire":
                going = chance.sample(sorted(model), min(len(model), chance.randrange(3)))
                commit.retire(output, going)
                together.difference_update(going)
                for key in going:
                    del model[key]
            case "fold":
                steps.append(lambda: _same(output, model))
                fold.fold(output, lambda: None, at_least=1)
                steps.clear()
                assert all(name.startswith("snapshot-") for name in names(output))
            case _:
                left = iter(range(chance.randrange(8)))
                steps.append(lambda left=left: stop_after(left))  # type: ignore[misc]
                with contextlib.suppress(Stopped):
                    fold.fold(output, lambda: None, at_least=1)
                steps.clear()
        _same(output, model)
    fold.fold(output, lambda: None, at_least=1)
    commit.sweep(output, model.keys(), ["ledger"])
    assert not snapshots.named(names(output))[1]
    _same(output, model)


def _same(output: str, model: Records) -> None:
    assert held(output) == model


def test_what_is_new_is_merged_with_what_is_about_as_large(tmp_path: Path) -> None:
    output = str(tmp_path)
    sizes = []
    for night in range(8):
        for number in range(64 if night == 0 else 4):
            write(output, record(1000 * night + number))
        assert fold.fold(output, lambda: None, at_least=1) == (64 if night == 0 else 4)
        sizes.append([snapshots.row_count(output, one) for one in snapshots.named(names(output))[0]])
    assert sizes == [[64], [64, 4], [64, 8], [64, 12], [64, 12, 4], [64, 20], [64, 20, 4], [64, 20, 8]]
    assert len(held(output)) == 64 + 7 * 4


def test_few_records_are_left_as_they_are(tmp_path: Path) -> None:
    for number in range(3):
        write(str(tmp_path), record(number))
    assert fold.fold(str(tmp_path), lambda: None, at_least=4) == 0
    assert len(names(str(tmp_path))) == 3


def test_nothing_is_written_and_nothing_removed_without_the_lease(tmp_path: Path) -> None:
    def lost() -> None:
        raise RegradError("another run is at work")

    write(str(tmp_path), record(1))
    with pytest.raises(RegradError, match="another run"):
        fold.fold(str(tmp_path), lost, at_least=1)
    assert names(str(tmp_path)) == [f"{1:032x}.json"]


@pytest.mark.parametrize(
    "wrong",
    [{"rows_in": "three"}, {"seconds": None, "rows_in": 2**70}, {"unit": "another"}, {"seconds": "slow"}],
)
def test_a_record_that_is_not_whole_stays_as_it_is(tmp_path: Path, wrong: dict[str, Any]) -> None:
    output = str(tmp_path)
    for number in range(5):
        write(output, record(number))
    strange = json.dumps(record(9, **wrong))
    for key, content in ((f"{9:032x}", strange), (f"{10:032x}", "{"), (f"{11:032x}", '{"unit": "' + "b" * 32 + '"}')):
        storage.write_atomically(contents.record_uri(output, key), content.encode())
    assert fold.fold(output, lambda: None, at_least=1) == 5
    assert names(output) == [*(f"{number:032x}.json" for number in (9, 10, 11)), names(output)[-1]]
    assert contents.committed(output) == {f"{number:032x}" for number in (0, 1, 2, 3, 4, 9, 10, 11)}


def test_a_reader_goes_on_when_what_it_saw_is_folded_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = str(tmp_path)
    for number in range(4):
        write(output, record(number))
    before = commit.Ledger.read(output)
    fold.fold(output, lambda: None, at_least=1)
    for number in range(4, 8):
        write(output, record(number))
    seen = names(output)
    fold.fold(output, lambda: None, at_least=1)
    assert before.records([f"{2:032x}"]) == [record(2)]
    assert before.table().num_rows == 4
    real, listings = storage.list_files, iter([seen])
    monkeypatch.setattr(storage, "list_files", lambda *given: next(listings, None) or real(*given))
    snapshots._read.cache_clear()
    assert len(contents.committed(output)) == 8  # its snapshot was merged into another


def test_of_records_that_lack_values_and_are_wrong_the_wrong_one_is_told(tmp_path: Path) -> None:
    output = str(tmp_path)
    old = {name: value for name, value in record(1).items() if name not in ("labelled", "reasons")}
    for content in (old, record(2)):
        write(output, content)
    assert commit.Ledger.read(output).table()["labelled"].to_pylist() == [None, 0]
    write(output, record(3, rows_in="three"))
    with pytest.raises(RegradError, match=rf"{3:032x}\.json: not a readable ledger record"):
        commit.Ledger.read(output).table()


def test_in_a_bucket(bucket: Bucket) -> None:
    output, model = f"{bucket.uri}/out", {record(number)["unit"]: record(number) for number in range(6)}
    for content in model.values():
        write(output, content)
    fold.fold(output, lambda: None, at_least=1)
    commit.retire(output, [record(2)["unit"], record(3)["unit"]])
    write(output, again := record(3, seconds=9.0))
    model[again["unit"]] = again
    del model[record(2)["unit"]]
    _same(output, model)
    fold.fold(output, lambda: None, at_least=1)
    assert [name for name in names(output) if not name.endswith(".parquet")] == []
    _same(output, model)


def test_the_parts_of_a_retired_unit_go_and_its_note_stays_until_the_next_fold(tmp_path: Path) -> None:
    output, key = str(tmp_path), f"{1:032x}"
    for number in (1, 2):
        write(output, record(number))
    part = tmp_path / "scores" / f"part-{key}.parquet"
    part.parent.mkdir()
    part.write_bytes(b"rows")
    fold.fold(output, lambda: None, at_least=1)
    commit.retire(output, [key])
    assert not part.exists()
    assert names(output)[0].startswith(f"{key}.")
    assert names(output)[0].endswith(".gone")
    assert contents.committed(output) == {f"{2:032x}"}
    with pytest.raises(RegradError, match="no such file"):
        contents.read_records(output, [key])
    fold.fold(output, lambda: None, at_least=1)
    assert len(names(output)) == 1
    assert contents.committed(output) == {f"{2:032x}"}
