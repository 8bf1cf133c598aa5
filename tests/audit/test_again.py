"""Sources that grow, shrink and change: a night has exactly the images that are new, whatever was scored again."""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from regrad import storage, table
from regrad.audit import run as audits
from regrad.audit.options import OPTIONS
from regrad.errors import UsageError
from regrad.filter import carry_out as filters
from regrad.filter import rules
from regrad.pages import thumbnails
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.run import execute, score_here
from regrad.reading import decode
from regrad.reading.formats import fetcher
from regrad.runs import scored
from regrad.select import choose, features
from tests.nights import UNIT_ROWS, Incoming, camera, noise, score
from tests.services import Bucket
from tests.shards import Row, digits, write_folder, write_parquet, write_tar


@pytest.fixture
def incoming(tmp_path: Path) -> Incoming:
    write_folder(tmp_path / "in", camera(0, 20))
    return Incoming(tmp_path)


def folder(incoming: Incoming) -> Path:
    return Path(str(incoming.inputs))


def test_a_folder_that_grows_gives_nights_of_what_is_new(incoming: Incoming) -> None:
    assert incoming.night("--night", "n1") == (20, 20)
    for night, (first, last) in {"n2": (20, 23), "n3": (23, 40), "n4": (40, 41)}.items():
        write_folder(folder(incoming), camera(first, last))
        assert incoming.night("--night", night) == (last - first, last - first)
        assert incoming.night("--night", night) == (0, last - first)  # the same night again
        incoming.hold(camera(0, last))
    assert incoming.night("--night", "n5") == (0, 0)
    assert [row["images"] for row in incoming.history()] == [20, 3, 17, 1, 0]


def test_a_prefix_that_grows(tmp_path: Path, bucket: Bucket) -> None:
    prefix = bucket.put(write_folder(tmp_path / "first", camera(0, 20)), "in")
    incoming = Incoming(tmp_path, uri=prefix)
    incoming.outputs = bucket.uri
    incoming.settings[incoming.settings.index("--output") + 1] = f"{bucket.uri}/audit"
    assert incoming.night("--night", "n1") == (20, 20)
    for name, image, _ in camera(20, 23):
        fsspec.filesystem("s3").pipe_file(f"{prefix}/{name}", image)
    assert incoming.night("--night", "n2") == (3, 3)
    fsspec.filesystem("s3").rm_file(f"{prefix}/{camera(0, 1)[0][0]}")
    assert incoming.night("--night", "n3") == (7, 0)  # what is left of its unit
    incoming.hold(camera(1, 23))


def test_names_in_order_of_time_cost_no_look_at_what_was_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(f"0/{row:04}.png", image, 0) for row, (_, image, _) in enumerate(digits(40))]
    write_folder(tmp_path / "in", rows[:20])
    incoming = Incoming(tmp_path)
    incoming.night("--night", "n1")
    monkeypatch.setattr("regrad.ledger.rows.Rows.by_unit", None)
    for night, (first, last) in {"n2": (20, 23), "n3": (23, 40)}.items():
        write_folder(tmp_path / "in", rows[first:last])
        assert incoming.night("--night", night) == (last - first, last - first)


WRITERS: dict[str, Callable[[Path, list[Row]], str]] = {
    "in.parquet": lambda path, rows: write_parquet(path, rows, group=7),
    "in.tar": write_tar,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_shard_that_is_written_again_with_more(tmp_path: Path, name: str) -> None:
    incoming = Incoming(tmp_path, name)
    counts = []
    for night, last in enumerate((20, 31, 31, 40)):
        WRITERS[name](tmp_path / name, camera(0, last))
        counts.append(incoming.night("--night", f"n{night}"))
        assert incoming.night("--night", f"n{night}") == (0, counts[-1][1])
        incoming.sound()
    assert [images for _, images in counts] == [20, 11, 0, 9]
    assert counts[-1][0] == 40  # such a shard is scored as a whole
    assert len(table.read(incoming.output)) == 40


def test_images_without_an_id_are_told_by_their_bytes(tmp_path: Path) -> None:
    """Where an id is but a row number, what is put in front shifts every one of them."""

    def write(images: Sequence[bytes]) -> None:
        pa.parquet.write_table(pa.table({"image": list(images)}), tmp_path / "in.parquet")

    images = [image for _, image, _ in digits(30)]
    incoming = Incoming(tmp_path, "in.parquet")
    write([*images[10:], images[10]])  # one of them twice
    assert incoming.night("--night", "n1") == (21, 21)
    write([*images[:10], images[10], *images[10:], images[10]])  # and once more
    assert incoming.night("--night", "n2") == (32, 11)


def test_a_file_that_goes_costs_its_unit_and_is_no_news(incoming: Incoming) -> None:
    incoming.night("--night", "n1")
    (folder(incoming) / camera(0, 20)[3][0]).unlink()
    assert incoming.night("--night", "n2") == (UNIT_ROWS - 1, 0)
    write_folder(folder(incoming), camera(20, 25))
    (folder(incoming) / camera(0, 20)[4][0]).unlink()
    rows, images = incoming.night("--night", "n3")
    assert images == 5
    assert rows < 5 + UNIT_ROWS
    incoming.hold([*camera(0, 3), *camera(5, 25)])
    # What came back was counted.
    write_folder(folder(incoming), camera(3, 4))
    assert incoming.night("--night", "n4") == (1, 0)
    # A night in which everything went.
    shutil.rmtree(folder(incoming))
    write_folder(folder(incoming), camera(25, 26))
    assert incoming.night("--night", "n5") == (1, 1)
    incoming.hold(camera(25, 26))


def test_old_files_that_go_do_not_cost_the_new_ones(tmp_path: Path) -> None:
    """A folder of which each night adds some, and the oldest go: in the end nothing is scored twice."""
    write_folder(tmp_path / "in", camera(0, 21))
    incoming = Incoming(tmp_path)
    incoming.night("--night", "n0")
    rows = []
    for night in range(1, 6):
        write_folder(tmp_path / "in", camera(14 + 7 * night, 21 + 7 * night))
        for name, *_ in camera(7 * (night - 1), 7 * night):
            (tmp_path / "in" / name).unlink()
        done, images = incoming.night("--night", f"n{night}")
        assert images == 7
        rows.append(done)
    assert rows[2:] == [7, 7, 7]
    incoming.hold(camera(35, 56))


def test_a_file_that_changed_is_new_and_one_that_was_touched_is_not(incoming: Incoming) -> None:
    incoming.night("--night", "n1")
    changed, touched = camera(0, 20)[3][0], camera(0, 20)[9][0]
    other = digits(50)[49][1]
    (folder(incoming) / changed).write_bytes(other)
    incoming_rows = table.read(incoming.output, ["id", "row"]).to_pylist()
    assert incoming.night("--night", "n2") == (UNIT_ROWS, 1)
    # A unit of which all files are there keeps its rows.
    assert sorted(map(str, table.read(incoming.output, ["id", "row"]).to_pylist())) == sorted(map(str, incoming_rows))
    (folder(incoming) / touched).touch()
    rows, images = incoming.night("--night", "n3")
    assert (rows <= UNIT_ROWS, images) == (True, 0)
    flags = pyarrow.parquet.read_table(f"{incoming.output}/nights/n2/flags")["id"].to_pylist()
    assert set(flags) <= {changed}
    incoming.hold([*camera(0, 3), (changed, other, 0), *camera(4, 20)])


def test_a_new_sub_folder_that_shifts_the_labels_is_no_night_of_everything(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", digits(20))
    incoming = Incoming(tmp_path)
    incoming.night("--night", "n1")
    write_folder(tmp_path / "in", [("-1/new.png", digits(50)[49][1], 0)])
    outcome, found = incoming.audit("--night", "n2")
    assert found["images"] == 1
    assert found["again"]["scored"] == outcome.this_run["rows_in"] - 1


def test_what_could_not_be_scored_is_not_counted_again(incoming: Incoming) -> None:
    bad = [("1/empty.png", b"", 0), ("2/text.png", b"no picture", 0)]
    write_folder(folder(incoming), bad)
    first = incoming.audit("--night", "n1")[1]
    assert (first["images"], first["metrics"]["quarantined_rows"]) == (20, 2)
    for name, *_ in camera(0, 20):
        (folder(incoming) / name).touch()  # every unit
    write_folder(folder(incoming), [("3/html.png", b"<html>", 0), ("1/empty.png", camera(20, 21)[0][1], 0)])
    second = incoming.audit("--night", "n2")[1]
    assert (second["images"], second["metrics"]["quarantined_rows"]) == (1, 1)
    assert second["again"] == {"scored": 20, "quarantined": 1}
    assert sum(second["quarantine"].values()) == 1
    assert any("21 rows came by again" in sentence for sentence in second["headline"])
    assert second["metrics"]["quarantined"] == 1 / 2


def test_the_numbers_are_those_of_the_new_images_alone(tmp_path: Path) -> None:
    """The same night over a shard of its own, where nothing was scored again, has the same numbers."""
    old, new = digits(60), [*digits(90)[60:], *noise(20), ("bad", b"no image", 1)]
    write_parquet(tmp_path / "a/in.parquet", old)
    grown = Incoming(tmp_path / "a", "in.parquet")
    grown.night("--night", "n1")
    write_parquet(tmp_path / "a/in.parquet", [*old, *new])
    write_parquet(tmp_path / "b/in/1.parquet", old)
    apart = Incoming(tmp_path / "b")
    apart.night("--night", "n1")
    write_parquet(tmp_path / "b/in/2.parquet", new)
    found, expected = (nights.audit("--night", "n2")[1] for nights in (grown, apart))
    assert found["images"] == 50
    assert found["metrics"] == expected["metrics"]
    for key in ("predictions", "histogram", "distribution", "quarantine", "compared"):
        assert found[key] == expected[key]
    for key in ("images", "flagged", "share", "interval", "classes"):
        assert found["rates"][key] == expected["rates"][key]
    assert [row["id"] for row in found["pictures"]] == [row["id"] for row in expected["pictures"]]
    flags = [
        sorted(pyarrow.parquet.read_table(f"{nights.output}/nights/n2/flags")["id"].to_pylist())
        for nights in (grown, apart)
    ]
    assert flags[0] == flags[1] != []


def test_what_the_baseline_holds_of_a_folder_that_grew_is_no_news(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "in", camera(0, 20))
    incoming = Incoming(tmp_path, known=source)
    write_folder(tmp_path / "in", camera(20, 23))
    assert incoming.night("--night", "n1") == (3, 3)
    write_folder(tmp_path / "in", camera(23, 30))
    assert incoming.night("--night", "n2") == (7, 7)
    # Of a unit of the baseline that has lost its truth, all is scored here, and one image is new.
    (tmp_path / "in" / camera(0, 1)[0][0]).write_bytes(digits(50)[49][1])
    assert incoming.night("--night", "n3") == (UNIT_ROWS, 1)
    assert incoming.night("--night", "n3") == (0, 1)
    assert check(incoming.output).problems == []


def test_the_order_of_the_names_of_nights_is_not_that_of_the_audits(incoming: Incoming) -> None:
    incoming.night("--night", "n5")
    (folder(incoming) / camera(0, 1)[0][0]).unlink()
    write_folder(folder(incoming), camera(20, 22))
    assert incoming.night("--night", "n2")[1] == 2


@pytest.mark.parametrize("name", WRITERS)
def test_what_the_baseline_holds_of_a_shard_that_grew_is_no_news(tmp_path: Path, name: str) -> None:
    source = WRITERS[name](tmp_path / name, camera(0, 20))
    incoming = Incoming(tmp_path, name, known=source)
    assert incoming.night("--night", "n1") == (0, 0)
    WRITERS[name](tmp_path / name, camera(0, 26))
    assert incoming.night("--night", "n2") == (26, 6)


def test_what_reads_the_output_gets_the_images_that_were_scored(
    incoming: Incoming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures, features and copies of a folder that has grown, has lost a file, and goes on growing."""
    monkeypatch.setattr("regrad.cluster.tasks.each", lambda function, items, *_: map(function, items))
    monkeypatch.setattr("regrad.reading.folder.COPIED_FILES", 9)
    incoming.night("--night", "n1")
    write_folder(folder(incoming), camera(20, 29))
    (folder(incoming) / camera(0, 20)[3][0]).unlink()
    incoming.night("--night", "n2")
    run = scored.load_run("run", incoming.output)
    images = {name: image for name, image, _ in camera(0, 29)}
    rule = rules.make_rule(run, None, 0.5, None, "entropy", False)
    copies = str(tmp_path / "copies")
    outcome = filters.carry_out(run, rule, copies, write_shards=True)
    kept = pyarrow.parquet.read_table(f"{copies}/keep.parquet")["id"].to_pylist()
    assert (outcome.rows, outcome.shards) == (len(kept), 4)
    found = {}
    for name in storage.list_files(f"{copies}/shards"):
        with tarfile.open(f"{copies}/shards/{name}") as archive:
            found |= {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {name: images[name] for name in kept}
    assert filters.carry_out(run, rule, copies, write_shards=True).written == 0
    write_folder(folder(incoming), camera(29, 40))  # nobody has scored these, or minds them
    assert filters.carry_out(run, rule, copies, write_shards=True).written == 0
    rows = table.read(incoming.output)
    shown = thumbnails.collect({"all": rows.to_pylist()}, {"all": fetcher(run.info)})["all"]
    for row, thumbnail in zip(rows.to_pylist(), shown, strict=True):
        assert thumbnail.uri is not None
        pixels = [
            np.asarray(Image.open(io.BytesIO(content)).convert("L"))
            for content in (base64.b64decode(thumbnail.uri.partition(",")[2]), images[row["id"]])
        ]
        np.testing.assert_array_equal(*pixels)
    classifier = features.load_classifier(json.dumps(run.info["config"]), run.info["model"]["fingerprint"])
    (item,) = features.tasks(run.info, choose.order_of(rows))
    answer = features.compute(item)
    assert answer["lost"] == 0
    names = rows["id"].to_pylist()
    expected = features.features(
        classifier, torch.stack([decode.to_tensor(images[name], classifier) for name in names])
    )
    np.testing.assert_allclose([numbers for _, numbers in sorted(answer["features"])], expected, rtol=1e-5, atol=1e-6)


def test_another_configuration_makes_no_new_images(tmp_path: Path, incoming: Incoming) -> None:
    incoming.night("--night", "n1")
    write_folder(folder(incoming), camera(20, 25))
    incoming.settings += ["--temperature", "2", "--replace"]
    incoming.settings[incoming.settings.index("--baseline") + 1] = str(tmp_path / "other")
    known = str(tmp_path / "known.parquet")
    execute(audits.make_baseline(parse([known, *incoming.settings], "audit", None, OPTIONS)), score_here)
    assert incoming.night("--night", "n2") == (25, 5)
    incoming.sound()


def test_a_limit_that_is_lifted_counts_the_rest(tmp_path: Path) -> None:
    write_parquet(tmp_path / "in.parquet", digits(30))
    incoming = Incoming(tmp_path, "in.parquet")
    assert incoming.night("--night", "n1", "--limit", "12") == (12, 12)
    assert incoming.night("--night", "n2") == (22, 18)  # 4 of a unit that was cut by the limit
    assert incoming.night("--night", "n3") == (0, 0)


def test_scoring_alone_between_two_nights_forgets_nothing(incoming: Incoming) -> None:
    incoming.night("--night", "n1")
    (folder(incoming) / camera(0, 1)[0][0]).unlink()
    write_folder(folder(incoming), camera(20, 22))
    score(str(incoming.inputs), incoming.output)
    assert incoming.night("--night", "n2") == (0, 2)


def test_outputs_of_earlier_versions_go_on(incoming: Incoming) -> None:
    """Without digests an image is told by its id; one that has changed is then not noticed."""
    write_folder(folder(incoming), [("1/bad.png", b"bad", 0)])
    incoming.night("--night", "n1")
    for part in [*Path(incoming.output).glob("scores/*"), *Path(incoming.output).glob("quarantine/*")]:
        rows = pyarrow.parquet.read_table(part)
        pyarrow.parquet.write_table(rows.drop_columns(["digest"]), part)
    for name, old in (("audited", ["night", "unit"]), ("history", None)):
        path = f"{incoming.output}/{name}.parquet"
        rows = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(rows.select(old) if old else rows.drop_columns(["claim"]), path)
    assert check(incoming.output).problems == []
    write_folder(folder(incoming), camera(20, 23))
    for name, *_ in camera(0, 3):
        (folder(incoming) / name).touch()
    rows, images = incoming.night("--night", "n2")
    assert images == 3
    assert rows > 3
    assert set(table.read(incoming.output)["digest"].is_null().to_pylist()) == {True, False}
    incoming.sound()


def test_a_night_that_others_have_gone_on_from_is_not_audited_again(incoming: Incoming) -> None:
    incoming.night("--night", "n1")
    (folder(incoming) / camera(0, 1)[0][0]).unlink()
    assert incoming.night("--night", "n1") == (UNIT_ROWS - 1, 19)  # the same night, as it is now
    write_folder(folder(incoming), camera(20, 21))
    incoming.night("--night", "n2")
    before = incoming.history()
    assert incoming.night("--night", "n1") == (0, 19)
    (folder(incoming) / camera(1, 2)[0][0]).unlink()
    with pytest.raises(UsageError, match=r"--night n1: 1 unit of what it audited changed since, and later nights"):
        incoming.night("--night", "n1")
    assert [row["images"] for row in incoming.history()] == [row["images"] for row in before]
    assert incoming.night("--night", "n3")[1] == 0
    with pytest.raises(UsageError, match="--night n1: "):
        incoming.night("--night", "n1")
