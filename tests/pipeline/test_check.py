"""`regrad check` finds what is wrong with an output, and repairs what scoring again can mend."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import table
from regrad.commands.check import main
from regrad.ledger import contents, fold, lease, merge
from regrad.ledger.rows import Rows
from regrad.pipeline import options
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.services import Bucket
from tests.shards import digits, write_members, write_parquet, write_tar


def score(folder: Path, *more: str) -> Path:
    """An output of a Parquet file in four units and a tar in one, with a row in quarantine."""
    arguments = [str(folder / "in"), "--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "6", *more]
    execute(prepare(options.parse([*arguments, "--output", str(folder / "out")], "score", None)), score_here)
    return folder / "out"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_parquet(folder / "in/a.parquet", [*digits(20), ("bad", b"no image", 1)])
    write_tar(folder / "in/b.tar", digits(9))
    score(folder)
    return folder


@pytest.fixture
def output(made: Path, tmp_path: Path) -> Path:
    """A copy of the output to do harm to; its inputs stay where they are."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def check(capsys: pytest.CaptureFixture[str], output: Any, *more: str) -> tuple[int, list[str]]:
    code = main([str(output), *more])
    captured = capsys.readouterr()
    return code, (captured.out + captured.err).splitlines()


def largest(output: Path, kind: str) -> Path:
    return max((output / kind).iterdir(), key=lambda path: (path.stat().st_size, path.name))


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], provenance: dict[str, Any] | None = None) -> None:
    rows = pa.parquet.read_table(path)
    kept = json.loads(rows.schema.metadata[table.PROVENANCE_KEY])
    path.write_bytes(table.to_parquet(change(rows), kept | (provenance or {})))


def test_a_sound_output_is_ok(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, output) == (0, [f"{output}: OK: 5 units, 29 rows scored, 1 in quarantine"])


def origin(output: Path, path: Path) -> dict[str, Any]:
    """Where the rows of a part come from, as its footer names it."""
    said = json.loads(pa.parquet.read_metadata(path).metadata[table.PROVENANCE_KEY])
    return table.read_provenance(str(output), said["provenance"])


def as_before(output: Path) -> None:
    """Make it one of schema version 2: the whole provenance in every file, and no digests."""
    for path in [*(output / "scores").iterdir(), *(output / "quarantine").iterdir()]:
        rows = pa.parquet.read_table(path)
        said = json.loads(rows.schema.metadata[table.PROVENANCE_KEY])
        own = {name: said[name] for name in ("unit", "identity")}
        path.write_bytes(table.to_parquet(rows.drop_columns(["digest"]), origin(output, path) | own))
    shutil.rmtree(output / "provenance")
    edit(output / "run.json", lambda run: run.update(schema_version=2))


def test_an_output_of_an_earlier_version_is_sound(made: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_before(output)
    assert check(capsys, output)[0] == 0
    path = largest(output, "scores")
    kept, said = path.read_bytes(), json.loads(pa.parquet.read_metadata(path).metadata[table.PROVENANCE_KEY])
    for other in ({"model": {"spec": "x", "fingerprint": "0" * 64}}, {"config": said["config"] | {"sigma": 0.5}}):
        rewrite(path, lambda rows: rows, other)
        assert "its footer names another model or configuration" in check(capsys, output)[1][0]
        path.write_bytes(kept)


def test_a_provenance_that_is_gone_or_another_is_told_once(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = (output / "provenance").iterdir()
    kept = path.read_text()
    for harm in (lambda: path.write_text(kept.replace("0.02", "0.03")), path.unlink):
        harm()
        code, lines = check(capsys, output)
        assert (code, len(lines)) == (1, 2)
        assert re.search(rf"{path.name}: cannot be read .*; put it back$", lines[0])
        assert check(capsys, output, "--repair")[0] == 1  # scoring again does not mend it
    path.write_text(kept)
    assert check(capsys, output)[0] == 0


def test_what_attempts_left_and_what_is_not_scored_yet_is_no_problem(
    made: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(path for path in (output / "ledger").iterdir() if json.loads(path.read_text())["start"] == 6).unlink()
    (output / "scores/part-0123.parquet").write_bytes(b"half")
    (output / "ledger/_tmp-1-x.json").write_bytes(b"half")
    code, lines = check(capsys, output)
    assert code == 0
    assert "note: 3 files of attempts that were cut short; the next run removes them" in lines
    assert any(re.fullmatch(r"note: not scored yet: 1 unit( \(\d rows\))?", line) for line in lines)


def lose_part(output: Path) -> None:
    largest(output, "scores").unlink()


def cut_part(output: Path) -> None:
    path = largest(output, "scores")
    path.write_bytes(path.read_bytes()[:-7])


def damage_page(output: Path) -> None:
    path = largest(output, "scores")
    content = bytearray(path.read_bytes())
    content[40:60] = bytes(20)
    path.write_bytes(content)


def flip_a_bit(output: Path) -> None:
    """One that alters a score and may leave everything readable."""
    path = largest(output, "scores")
    content = bytearray(path.read_bytes())
    column = pa.parquet.read_metadata(path).row_group(0).column(7)
    begin = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    content[begin + column.total_compressed_size - 5] ^= 1
    path.write_bytes(content)


def drop_row(output: Path) -> None:
    rewrite(largest(output, "scores"), lambda rows: rows.slice(1))


def double_row(output: Path) -> None:
    rewrite(largest(output, "scores"), lambda rows: pa.concat_tables([rows.slice(1), rows.slice(2, 1)]))


def drop_score(output: Path) -> None:
    rewrite(largest(output, "scores"), lambda rows: rows.drop_columns(["entropy"]))


def number_digests(output: Path) -> None:
    rewrite(
        largest(output, "scores"),
        lambda rows: rows.set_column(
            rows.schema.get_field_index("digest"), "digest", pa.array(range(rows.num_rows), pa.int64())
        ),
    )


def drop_source(output: Path) -> None:
    rewrite(largest(output, "scores"), lambda rows: rows.drop_columns(["source"]))


def change_type(output: Path) -> None:
    rewrite(
        largest(output, "scores"),
        lambda rows: rows.set_column(rows.schema.get_field_index("row"), "row", rows["row"].cast(pa.string())),
    )


def stray_part(output: Path) -> None:
    shutil.copy(largest(output, "scores"), output / "scores/part-0123.parquet")


def other_source(output: Path) -> None:
    rewrite(
        largest(output, "scores"),
        lambda rows: rows.set_column(1, "source", pa.array(["elsewhere"] * rows.num_rows)),
    )


def other_model(output: Path) -> None:
    rewrite(largest(output, "scores"), lambda rows: rows, {"model": {"spec": "x", "fingerprint": "0" * 64}})


def other_settings(output: Path) -> None:
    path = largest(output, "scores")
    kept = origin(output, path)
    rewrite(path, lambda rows: rows, table.footer(kept | {"config": kept["config"] | {"sigma": 0.5}}))
    table.write_provenance(str(output), kept | {"config": kept["config"] | {"sigma": 0.5}})


def other_unit(output: Path) -> None:
    first, second, *_ = sorted((output / "scores").iterdir())
    second.write_bytes(first.read_bytes())


def lie_about_rows(output: Path) -> None:
    edit(largest(output, "ledger"), lambda record: record.update(rows_in=record["rows_in"] + 1))


def lie_about_range(output: Path) -> None:
    edit(largest(output, "ledger"), lambda record: record.update(start=record["start"] + 1))


def break_record(output: Path) -> None:
    largest(output, "ledger").write_text("{")


HARM = {
    lose_part: r"no scores part, but \d+ rows in the ledger",
    cut_part: "its scores part is damaged: ",
    damage_page: "its scores part is damaged: ",
    flip_a_bit: "its scores part is damaged: .*CRC checksum verification failed",
    drop_row: r"\d+ rows in its scores part, but \d+ in the ledger",
    double_row: "1 rows are there twice",
    drop_score: "without the column entropy",
    drop_source: "without the column source",
    number_digests: "without the column digest, or with another type",
    change_type: "without the column row, or with another type",
    stray_part: "part-0123.parquet: no ledger record knows its rows",
    other_source: "its scores part holds rows of another source",
    other_model: "its footer names another model or configuration",
    other_settings: "its footer names another model or configuration",
    other_unit: "its footer names another unit",
    lie_about_rows: r"\d+ rows read, but \d+ scored and \d+ quarantined",
    lie_about_range: "its record does not belong to this name, model and configuration",
    break_record: "not a readable ledger record",
}


def stray_file(output: Path) -> None:
    path = largest(output, "scores")
    shutil.copy(path, path.with_name("merged-0000000001-000000000001-0123456789abcdef.parquet"))


def left_part(output: Path) -> None:
    """As a merge leaves it that was killed before it removed what it had merged."""
    (unit, *_) = contents.committed(str(output))
    shutil.copy(largest(output, "scores"), output / f"scores/part-{unit}.parquet")


def part_of_nothing(output: Path) -> None:
    """Rows in quarantine, of a unit that has none there."""
    records = contents.read_records(str(output), contents.committed(str(output)))
    unit = next(record["unit"] for record in records if not record["rows_quarantined"])
    shutil.copy(largest(output, "quarantine"), output / f"quarantine/part-{unit}.parquet")


def swap_units(output: Path) -> None:
    """Let the footer give the rows of a unit to another."""
    path = largest(output, "scores")
    rows = pa.parquet.read_table(path)
    said = json.loads(rows.schema.metadata[table.PROVENANCE_KEY])
    said["units"][0][0], said["units"][1][0] = said["units"][1][0], said["units"][0][0]
    path.write_bytes(table.to_parquet(rows, said))


OF_RECORDS = (lie_about_rows, lie_about_range, break_record)
OF_PARTS = (drop_row, double_row, other_model, other_settings, other_unit)
MERGED = {
    drop_row: r"rows outside \d+ to \d+",
    stray_file: "merged-.*-0123456789abcdef.parquet: no ledger record knows its rows",
    left_part: "part-[0-9a-f]{32}.parquet: its rows are in another file too",
    part_of_nothing: r"quarantine/part-.*: its unit has no such rows",
    swap_units: "its scores part is damaged: ValueError: its footer names other rows",
}
MADE = {
    **{(harm, "loose"): message for harm, message in HARM.items()},
    **{(harm, "folded"): message for harm, message in HARM.items() if harm not in OF_RECORDS},
    **{(harm, "merged"): text for harm, text in HARM.items() if harm not in OF_RECORDS and harm not in OF_PARTS},
    **{(harm, "merged"): message for harm, message in MERGED.items()},
}


@pytest.mark.parametrize(("harm", "made_as"), MADE, ids=lambda value: getattr(value, "__name__", str(value)))
def test_harm_is_named_and_repaired_by_scoring_again(
    made: Path, output: Path, harm: Callable[[Path], None], made_as: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if made_as != "loose":
        fold.fold(str(output), lambda: None, at_least=1)
        assert not contents.look(str(output)).loose
    if made_as == "merged":
        merge.merge(str(output), lambda: None, at_least=1)
        assert all(path.name.startswith("merged-") for path in (output / "scores").iterdir())
    before = table.read(str(output)).sort_by([("source", "ascending"), ("row", "ascending")])
    harm(output)
    code, lines = check(capsys, output)
    assert code == 1
    wrong = [line for line in lines if line.startswith("wrong: ")]
    assert any(re.search(MADE[harm, made_as], line) for line in wrong), lines
    code, lines = check(capsys, output, "--repair")
    assert code == 0, lines
    assert lines[-1].startswith("dropped ")
    there = [path for path in (output / "scores").iterdir() if harm not in OF_RECORDS]
    assert sum(pa.parquet.read_metadata(path).num_rows for path in there) == Rows(str(output)).count() or not there
    shutil.rmtree(made / "out")
    shutil.copytree(output, made / "out")
    score(made)
    assert check(capsys, made / "out")[0] == 0
    again = table.read(str(made / "out")).sort_by([("source", "ascending"), ("row", "ascending")])
    assert again.drop_columns(["entropy", "nll", "confidence"]) == before.drop_columns(["entropy", "nll", "confidence"])
    for name in ("entropy", "nll", "confidence"):
        assert again[name].to_pylist() == pytest.approx(before[name].to_pylist(), rel=1e-6)


def test_wrong_totals_are_found_and_counted_anew(made: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(output / "run.json", lambda content: content["counts"].update(rows_scored=7))
    code, lines = check(capsys, output)
    assert (code, lines[0]) == (1, "wrong: run.json says rows_scored 7, the ledger 29")
    assert check(capsys, output, "--repair")[0] == 0
    shutil.rmtree(made / "out")
    shutil.copytree(output, made / "out")
    score(made)
    assert table.read_run(str(made / "out"))["counts"]["rows_scored"] == 29


def test_a_tar_that_grew_without_a_sign_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar(tmp_path / "in/b.tar", digits(9))
    output = score(tmp_path)
    record = next((output / "ledger").iterdir())
    rewrite(next((output / "scores").iterdir()), lambda rows: rows.slice(0, 8))
    edit(record, lambda content: content.update(rows_in=8, rows_scored=8))
    code, lines = check(capsys, output)
    assert code == 1
    assert any("b.tar: 9 samples, but 8 rows in the ledger" in line for line in lines)


def test_nothing_is_repaired_while_a_run_is_at_work(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lose_part(output)
    with lease.hold(str(output), seconds=1.5):
        code, lines = check(capsys, output, "--repair")
    assert code == 2
    assert "another run is at work on it" in lines[-1]


def test_on_s3(bucket: Bucket, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = bucket.put(str(made / "out"), "out")
    code, lines = check(capsys, output)
    assert (code, lines[-1]) == (0, f"{output}: OK: 5 units, 29 rows scored, 1 in quarantine")


def test_a_folder_without_a_run_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(capsys, tmp_path)
    assert (code, len(lines)) == (2, 1)
    assert "no run.json here" in lines[0]


def test_what_was_left_out_is_held_against_the_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_members(tmp_path / "in/a.tar", [("1.png", digits()[0][1]), ("1.txt", b"words")])
    (tmp_path / "in/notes.txt").write_text("words")
    output = score(tmp_path)
    assert check(capsys, output) == (0, [f"{output}: OK: 1 units, 1 rows scored, 0 in quarantine"])
    kept = (output / "run.json").read_text()
    edit(output / "run.json", lambda run: run["skipped"].pop("type not read: .txt"))
    code, lines = check(capsys, output)
    assert code == 1
    assert "run.json says it left out {}, there are {'type not read: .txt': 2}" in lines[0]
    (output / "run.json").write_text(kept)
    record = next((output / "ledger").iterdir())
    edit(record, lambda content: content["skipped"].clear())
    code, lines = check(capsys, output)
    assert code == 1
    assert any("it has {'type not read: .txt': 1} that are no row, the ledger {}" in line for line in lines)
    edit(record, lambda content: content["skipped"].update({"type not read: .txt": 1}))
    (tmp_path / "in/more.csv").write_text("words")
    code, lines = check(capsys, output)
    assert code == 0
    assert any("other files beside the data than the run left out; now 2: 1 type not read: .csv" in s for s in lines)
