"""What is written when, what stays where something fails, and what is left out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.handover import give
from regrad.handover.give import MARK, giving
from regrad.runs.scored import Run, load_run
from tests.data import ROOT
from tests.handover.conftest import HandOver, rows_of, score
from tests.services import Bucket
from tests.shards import digits, write_folder, write_tar


def marked(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MARK).read_text())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copies_are_the_images_and_all_lie_in_one_folder(inside: Run, hand_over: HandOver, tmp_path: Path) -> None:
    rows, given = hand_over(inside, "csv", tmp_path / "here/out")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    copies = list((tmp_path / "here/out/images").iterdir())
    assert (given.images, given.copied, len(copies)) == (25, 25, 25)
    digests = {give.digest_of(path.read_bytes()) for path in copies}
    assert digests == {row["digest"] for row in rows}
    assert {path.suffix for path in copies} == {".png", ".jpeg"}
    assert marked(tmp_path / "here/out")["copied"] == 25


def test_many_rows_are_taken_some_at_a_time_with_the_same_list(
    inside: Run, hand_over: HandOver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(inside, "coco", tmp_path / "whole")
    monkeypatch.setattr(give, "_ROWS", 4)
    monkeypatch.setattr(give, "_WRITES", 1)
    hand_over(inside, "coco", tmp_path / "parts")
    whole, parts = content_of(tmp_path / "whole"), content_of(tmp_path / "parts")
    assert {**whole, MARK: b""} == {**parts, MARK: b""}


KILLED = """
import os, signal, sys
from regrad import storage
from regrad.handover.give import giving
from regrad.runs.scored import load_run
run, output = load_run("run", sys.argv[1]), sys.argv[2]
columns = ["id", "source", "row", "prediction", "confidence", "digest", "entropy"]
write, done = storage.write_atomically, []
def kill(uri, content):
    write(uri, content)
    done.append(uri)
    if len(done) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
storage.write_atomically = kill
with giving(run, "coco", "entropy", output) as giver:
    for rows in run.tables(columns):
        giver.take(rows.rename_columns([*columns[:-1], "score"]))
"""


def test_one_that_is_killed_has_no_list_and_the_next_one_is_whole(
    inside: Run, hand_over: HandOver, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, inside.output, str(out)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = [path.name for path in out.iterdir()]
    assert "annotations.json" not in left
    assert any(name.startswith(storage.TEMPORARY_PREFIX) for name in left)
    assert marked(out)["status"] == "running"
    assert len(list((out / "images").iterdir())) >= 6
    hand_over(inside, "coco", out)
    hand_over(inside, "coco", tmp_path / "undisturbed")
    assert content_of(out).keys() == content_of(tmp_path / "undisturbed").keys()
    assert marked(out)["status"] == "done"


def test_a_write_that_fails_leaves_no_list(inside: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = storage.write_atomically

    def full(uri: str, content: bytes) -> None:
        if "/images/" in uri:
            raise RegradError("the disk is full")
        write(uri, content)

    monkeypatch.setattr(storage, "write_atomically", full)
    with (
        pytest.raises(RegradError, match="the disk is full"),
        giving(inside, "huggingface", "entropy", str(tmp_path / "out")) as giver,
    ):
        giver.take(rows_of(inside))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MARK]
    assert marked(tmp_path / "out")["status"] == "running"


def test_an_earlier_one_goes_and_what_is_not_ours_stays(inside: Run, hand_over: HandOver, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hand_over(inside, "coco", out)
    (out / "export.json").write_text("what people made of it")
    with giving(inside, "coco", "entropy", str(out)) as giver:
        assert not (out / "annotations.json").exists()  # before the images that it names
        assert not (out / "images").exists()
        giver.take(rows_of(inside).slice(0, 3))
    assert len(list((out / "images").iterdir())) == 3
    assert (out / "export.json").exists()


def test_a_folder_of_something_else_is_refused(inside: Run, hand_over: HandOver, tmp_path: Path) -> None:
    for name in ("images", MARK):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(UsageError, match="holds something that is no hand-over"):
            hand_over(inside, "coco", folder)
        assert [path.name for path in folder.iterdir()] == [name]


def test_what_is_gone_or_changed_is_left_out_and_counted(hand_over: HandOver, tmp_path: Path) -> None:
    write_folder(tmp_path / "in", digits(10))
    run = score(str(tmp_path / "in"), tmp_path / "run")
    rows = rows_of(run)
    names = rows["id"].to_pylist()
    (tmp_path / "in" / names[2]).unlink()
    (tmp_path / "in" / names[5]).write_bytes(digits(11)[10][1])
    _, given = hand_over(run, "cvat", tmp_path / "out")
    assert (given.images, given.copied, given.gone, given.changed) == (8, 8, 1, 1)
    assert given.problems() == "1 image not in the sources any more; 1 image not what was scored any more"
    # Rows of before the column: there is nothing to compare with.
    unknown = rows.set_column(rows.column_names.index("digest"), "digest", pa.nulls(len(rows), pa.string()))
    with giving(run, "cvat", "entropy", str(tmp_path / "out")) as giver:
        giver.take(unknown)
    assert (giver.given.images, giver.given.changed) == (9, 0)
    # A tool that reads images where they are is told where they were.
    assert hand_over(run, "csv", tmp_path / "csv")[1].images == 10


def test_a_source_that_is_gone_is_an_error_that_names_it(hand_over: HandOver, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", digits(6))
    run = score(str(tmp_path / "a.tar"), tmp_path / "run")
    (tmp_path / "a.tar").unlink()
    with pytest.raises(RegradError, match=r"a\.tar: "):
        hand_over(run, "csv", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MARK]


def test_from_a_store_into_a_store(hand_over: HandOver, bucket: Bucket, tmp_path: Path) -> None:
    bucket.put(write_folder(tmp_path / "in", digits(6)), "files")
    bucket.put(write_tar(tmp_path / "a.tar", digits(12)[6:]), "tars/a.tar")
    for name, copied in (("files", 0), ("tars", 6)):
        run = score(f"{bucket.uri}/{name}", tmp_path / f"{name}-run")
        output = f"{bucket.uri}/{name}-out"
        for _ in range(2):  # the second one clears the first away
            with giving(run, "label-studio", "entropy", output) as giver:
                giver.take(rows_of(run))
        assert (giver.given.images, giver.given.copied) == (6, copied)
        for task in json.loads(storage.read_bytes(f"{output}/tasks.json")):
            assert task["data"]["image"].startswith(bucket.uri)
            assert storage.read_bytes(task["data"]["image"]).startswith(b"\x89PNG")
    files = load_run("run", str(tmp_path / "files-run"))
    with giving(files, "fiftyone", "entropy", f"{bucket.uri}/out") as giver:
        giver.take(rows_of(files))
    assert giver.given.copied == 6  # FiftyOne reads no store
