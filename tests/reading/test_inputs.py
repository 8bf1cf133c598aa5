import hashlib
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import table
from regrad.errors import RegradError, UsageError
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.reading import inputs
from regrad.reading.formats import Source, fetch_images, kind_of
from regrad.reading.inputs import absolute, expand_braces, list_inputs, list_sources
from regrad.reading.looked import Look
from regrad.reading.naming.classes import Classes
from regrad.reading.samples import Columns
from tests.services import Bucket
from tests.shards import digits, write_folder, write_parquet, write_tar


def test_a_folder_stands_for_its_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "data/b.tar", digits(3))
    write_parquet(tmp_path / "data/deep/a.parquet", digits(4))
    (tmp_path / "data/README.md").write_text("hello")
    (tmp_path / "data/_tmp-1-c.parquet").write_bytes(b"unfinished")
    sources = list_sources([str(tmp_path / "data")])
    assert [(source.uri, source.kind, source.rows) for source in sources] == [
        (str(tmp_path / "data/b.tar"), "tar", None),
        (str(tmp_path / "data/deep/a.parquet"), "parquet", 4),
    ]


def test_a_folder_of_images_has_labels_from_its_sub_folders(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", [*digits(30), ("loose.png", b"x", 0)])
    (source,) = list_sources([folder + "/"], Columns(classes=Classes(10)))
    assert source.uri == folder
    assert source.kind == "folder"
    assert source.files == tuple(sorted([*(name for name, *_ in digits(30)), "loose.png"]))
    assert dict(zip(source.files, source.labels, strict=True)) == {
        **{name: label for name, _, label in digits(30)},  # the classes 0 to 9 are sub-folders of these names
        "loose.png": None,
    }


def test_globs_braces_and_repeated_inputs_give_each_shard_once(tmp_path: Path) -> None:
    for number in range(12):
        write_tar(tmp_path / f"s-{number:02}.tar", digits(1))
    found = list_sources([str(tmp_path / "s-{09..11}.tar"), str(tmp_path / "*1.tar"), f"file://{tmp_path}/s-01.tar"])
    assert [os.path.basename(source.uri) for source in found] == ["s-09.tar", "s-10.tar", "s-11.tar", "s-01.tar"]
    assert expand_braces("a{b}c") == ["a{b}c"]
    assert expand_braces("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"]


def test_a_name_with_brackets_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a[1].tar", digits(1))
    assert [source.uri for source in list_sources([path])] == [path]


STEMS = [
    "photo?token=abc&w=671",
    "x?X-Amz-Signature=1",
    "a::b",
    "s3::c",
    "a b ",
    "#1%41+&=;'\"",
    "[1]*{2,3}",
    "ünï 結果",
    "~d",
    "b\\c",
    "v1.2.3",
]


@pytest.mark.parametrize("remote", [False, True])
def test_whatever_a_file_is_called_it_is_read(tmp_path: Path, bucket: Bucket, remote: bool) -> None:
    rows = [(f"{stem} d/{stem}.png", image, label) for stem, (_, image, label) in zip(STEMS, digits(), strict=False)]
    folder = write_folder(tmp_path / "images", rows)
    for stem, row in zip(STEMS, rows, strict=True):
        write_parquet(tmp_path / f"shards/{stem}.parquet", [row])
        write_tar(tmp_path / f"shards/{stem}.tar", [("0.png", *row[1:])])
    shards = str(tmp_path / "shards")
    if remote:
        folder, shards = bucket.put(folder, "images"), bucket.put(shards, "shards")
    output = f"{bucket.uri}/out é #" if remote else str(tmp_path / "out ?token=1::é #%41 [x]")
    model = ("--model", "tests.shards:build", "--scores", "entropy", "--samples", "0", "--unit-rows", "4")
    outcome = execute(prepare(parse([folder, shards, *model, "--output", output], "score", None)), score_here)
    scored = table.read(output).to_pylist()
    assert (outcome.exit_code, len(scored)) == (0, 3 * len(STEMS))
    assert not check(output).problems
    assert not check(output).notes
    names = {os.path.basename(row["source"]) for row in scored}
    assert names == {"images", *(f"{stem}.{end}" for stem in STEMS for end in ("tar", "parquet"))}
    for row in scored:
        ((_, image),) = fetch_images(row["source"], {row["row"]: row["id"]})
        assert image in {image for _, image, _ in rows}
    for source in {row["source"] for row in scored if not (remote and "?" in row["source"])}:
        again = list_sources([source])
        assert [again[0].uri, len(again)] == [source, 1]


@pytest.mark.parametrize("given", ["s3://bucket/a.tar?X-Amz-Signature=1", "s3://bucket/a?token=1", "az://b/a?sig=1"])
def test_a_signature_that_a_user_gives_is_refused(given: str) -> None:
    for refused in (lambda: list_sources([given]), lambda: absolute(given)):
        with pytest.raises(UsageError, match="credentials or signatures in a URI") as caught:
            refused()
        assert "=1" not in str(caught.value)


def test_an_input_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="an INPUT without a name"):
        list_sources([" "])


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", digits(1))
    monkeypatch.chdir(tmp_path)
    assert [source.uri for source in list_sources(["a.tar"])] == [str(tmp_path / "a.tar")]


def test_the_output_is_no_input(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", digits(3))
    write_parquet(tmp_path / "out/scores/part-1.parquet", digits(3))
    assert len(list_sources([str(tmp_path)], output=str(tmp_path / "out"))) == 1
    assert len(list_sources([str(tmp_path)], output=str(tmp_path / "ou"))) == 2


def test_identity_follows_the_content(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", digits(3))
    folder = write_folder(tmp_path / "images", digits(9))
    before = list_sources([path, folder])
    assert [source.identity_of(0, 4) for source in list_sources([path, folder])] == [
        source.identity_of(0, 4) for source in before
    ]
    write_parquet(tmp_path / "a.parquet", digits(4))
    (tmp_path / "images" / sorted(digits(9))[6][0]).write_bytes(b"new")
    shard, images = list_sources([path, folder])
    assert shard.identity != before[0].identity
    assert images.identity_of(0, 4) == before[1].identity_of(0, 4)
    assert images.identity_of(4, 9) != before[1].identity_of(4, 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.tar", "nowhere.tar: no such file or folder"),
        ("none-*.tar", r"none-\*.tar: no such file or folder"),
        ("empty", "empty: an empty input: no .tar, no .parquet and no image"),
        ("cat.jpg", "cat.jpg: not a .tar or .parquet file; for single images give the folder"),
        ("a.zip", "a.zip: not a .tar or .parquet file; unpack it and give the folder"),
    ],
)
def test_what_is_no_input_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("cat.jpg", "a.zip"):
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(UsageError, match=message):
        list_sources([str(tmp_path / name)])


def test_parquet_without_images_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", digits(3))
    with pytest.raises(UsageError, match="no column 'photo' for --image-column"):
        list_sources([path], Columns(image="photo"))


def test_s3_is_listed_with_its_etags(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put(write_tar(tmp_path / "a.tar", digits(3)), "deep/a.tar")
    bucket.put(write_parquet(tmp_path / "b.parquet", digits(3)), "deep/b.parquet")
    first, second = list_sources([f"{bucket.uri}/deep"])
    assert (first.uri, first.kind) == (f"{bucket.uri}/deep/a.tar", "tar")
    assert (second.uri, second.rows) == (f"{bucket.uri}/deep/b.parquet", 3)
    content = (tmp_path / "a.tar").read_bytes()
    assert first.identity == f"{len(content)}:{hashlib.md5(content).hexdigest()}"  # the ETag
    assert list_sources([f"{bucket.uri}/deep/a.tar"]) == [first]
    assert [source.uri for source in list_sources([f"{bucket.uri}/*/a.tar"])] == [first.uri]
    with pytest.raises(UsageError, match=r"s3://no-such-bucket/x: no such file"):
        list_sources(["s3://no-such-bucket/x"])


def test_a_bucket_that_refuses_is_a_failure_and_no_missing_input(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RegradError, match=f"{bucket.uri}/x: cannot list: ") as caught:
        list_sources([f"{bucket.uri}/x"])
    assert not isinstance(caught.value, UsageError)


def folder_of(path: Path, *names: str) -> str:
    """Files of these names: digits where they are pictures' names, a few words otherwise."""
    for number, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(digits()[number][1] if name.endswith((".png", ".jpg")) else b"words")
    return str(path)


def test_where_looking_takes_long_it_is_said_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [write_parquet(tmp_path / f"{place}.parquet", digits(2)) for place in range(3)]
    real, told = inputs._with_rows, threading.Event()

    def slow(source: Source) -> Look:
        assert source.uri != paths[1] or told.wait(20)
        return real(source)

    def say(text: str) -> None:
        print(text)
        told.set()

    monkeypatch.setattr(inputs, "_SILENT", 0.2)
    monkeypatch.setattr(inputs, "_with_rows", slow)
    monkeypatch.setattr(inputs, "say", say)
    assert [source.rows for source in list_inputs(paths).sources] == [2, 2, 2]
    assert capsys.readouterr().out.splitlines()[0] == f"looking into new shards: 2 of 3 done, now {paths[1]}"


def test_a_store_that_fails_while_one_looks_ends_it_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [write_parquet(tmp_path / f"{place:03}.parquet", digits(1)) for place in range(200)]
    looked: list[str] = []

    def failing(source: Source) -> Look:
        looked.append(source.uri)
        threading.Event().wait(0.01)
        raise RegradError("the store is gone")

    monkeypatch.setattr(inputs, "_with_rows", failing)
    with pytest.raises(RegradError, match="the store is gone"):
        list_inputs(paths)
    assert len(looked) < 200


def test_what_other_tools_left_is_counted_and_no_input(tmp_path: Path) -> None:
    pictures = ("cat/1.png", "dog/_MG_2.jpg")
    hidden = ("cat/.ipynb_checkpoints/1-checkpoint.png", ".Trash-0/x.png", "_SUCCESS", "_x/y.png")
    tools = ("Thumbs.db", "cat/.DS_Store", "__MACOSX/cat/._1.png")
    others = ("labels.csv", "dog/notes", "more.CSV")
    folder = folder_of(tmp_path / "in", *pictures, *hidden, *tools, *others)
    listing = list_inputs([folder])
    assert [source.files for source in listing.sources] == [pictures]
    assert listing.skipped == {
        "hidden": 4,
        "left by a desktop or an archiver": 3,
        "type not read: .csv": 2,
        "no extension": 1,
    }


def test_an_earlier_output_is_no_input(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "1.png", "old/run.json", "old/ledger/1.json", "old/thumbnails/1.png")
    write_parquet(tmp_path / "in/old/scores/part-1.parquet", digits(3))
    folder_of(tmp_path / "in/new", "run.json", "ledger/1.json", "scores/x.png")
    for pattern in (folder, f"{folder}/*"):
        if pattern != folder:
            (tmp_path / "in/more").mkdir()
            (tmp_path / "in/1.png").rename(tmp_path / "in/more/1.png")
        listing = list_inputs([pattern], output=str(tmp_path / "in/new"))
        assert [name for source in listing.sources for name in source.files][-1].endswith("1.png")
        assert len(listing.sources) == 1
        assert listing.skipped == {"an output of regrad": 4}  # the output that is being written is not even counted


def test_the_folder_that_img2dataset_writes(tmp_path: Path) -> None:
    for shard in ("00000", "00001"):
        write_tar(tmp_path / f"{shard}.tar", digits(3))
        pa.parquet.write_table(pa.table({"url": ["x"], "key": ["1"]}), tmp_path / f"{shard}.parquet")
        (tmp_path / f"{shard}_stats.json").write_text("{}")
    for pattern in (str(tmp_path), f"{tmp_path}/*"):
        listing = list_inputs([pattern], Columns(image="png"))
        assert [os.path.basename(source.uri) for source in listing.sources] == ["00000.tar", "00001.tar"]
        assert listing.skipped == {"a table without images": 2, "type not read: .json": 2}
    with pytest.raises(UsageError, match=r"00000\.parquet: no image column"):
        list_inputs([str(tmp_path / "00000.parquet"), str(tmp_path / "00000.tar")])  # named by itself, it is meant


def test_a_table_beside_pictures_does_not_hide_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "1.png", "2.png")
    pa.parquet.write_table(pa.table({"file_name": ["1.png"]}), tmp_path / "in/metadata.parquet")
    listing = list_inputs([folder])
    assert [source.files for source in listing.sources] == [("1.png", "2.png")]
    assert listing.skipped == {"a table without images": 1}
    write_parquet(tmp_path / "in/shard.parquet", digits(3))
    listing = list_inputs([folder])
    assert [os.path.basename(source.uri) for source in listing.sources] == ["metadata.parquet", "shard.parquet"]
    assert listing.skipped == {"an image beside shards": 2}


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.tar.gz"])
def test_a_folder_that_is_named_like_a_shard_is_a_folder(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / name, "1.png", "2.png")
    for given in (folder, f"{folder}/", f"{tmp_path}/*"):
        (source,) = list_inputs([given]).sources
        assert (source.kind, source.files, source.uri) == ("folder", ("1.png", "2.png"), f"{folder}/")
        assert kind_of(source.uri) is None
        assert dict(fetch_images(source.uri, {1: "2.png"})) == {1: digits()[1][1]}
        assert [sample.image for sample in source.open().rows()] == [digits()[0][1], digits()[1][1]]
    write_parquet(tmp_path / name / "part-0.parquet", digits(3))
    (tmp_path / name / "_SUCCESS").touch()
    assert [source.kind for source in list_inputs([folder]).sources] == ["parquet"]


def test_a_camera_s_second_picture_of_the_same_is_counted(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "1.jpg", "1.DNG", "2.dng")
    listing = list_inputs([folder])
    assert listing.sources[0].files == ("1.jpg", "2.dng")
    assert listing.skipped == {"another picture of a sample: .dng": 1}


def test_a_link_to_a_folder_is_counted_and_not_followed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "1.png")
    folder_of(tmp_path / "elsewhere", "2.png")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    listing = list_inputs([folder])
    assert listing.sources[0].files == ("1.png",)
    assert listing.skipped == {"a link to a folder, which is not followed": 1}


def test_a_file_is_left_out_once_however_often_its_folder_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", "1.png", "notes.txt")
    assert list_inputs([folder, f"{folder}/", folder]).skipped == {"type not read: .txt": 1}


def test_an_empty_input_says_what_is_there(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "in", ".hidden/1.png", "a.txt")
    told = r"an empty input: .*; left out 2: 1 hidden, 1 type not read: \.txt; give the folder of its images$"
    with pytest.raises(UsageError, match=told):
        list_inputs([folder])


def test_a_folder_in_a_bucket_is_sorted_out_too(tmp_path: Path, bucket: Bucket) -> None:
    folder = folder_of(tmp_path / "in", "cat/1.png", ".hidden/2.png", "old/run.json", "old/ledger/1.json", "a.csv")
    listing = list_inputs([bucket.put(folder, "pictures")])
    assert listing.sources[0].files == ("cat/1.png",)
    assert listing.skipped == {"an output of regrad": 2, "hidden": 1, "type not read: .csv": 1}


def test_the_log_of_a_table_is_no_news_of_what_it_has_removed(tmp_path: Path) -> None:
    write_parquet(tmp_path / "table/part-0.parquet", digits(3))
    assert list_inputs([str(tmp_path / "table")]).warnings == []
    (tmp_path / "table/_delta_log").mkdir()
    (tmp_path / "table/_delta_log/00000000000000000000.json").write_text("{}")
    (warning,) = list_inputs([str(tmp_path / "table")]).warnings
    assert warning.startswith("Delta's log is among the inputs, and is not read: files that it has removed are scored")
