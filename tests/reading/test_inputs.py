import hashlib
import os
from pathlib import Path

import pytest

from regrad import table
from regrad.errors import RegradError, UsageError
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.reading.formats import fetch_images
from regrad.reading.inputs import absolute, expand_braces, list_sources
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
    (source,) = list_sources([folder + "/"])
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
    ],
)
def test_what_is_no_input_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cat.jpg").write_bytes(b"")
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
