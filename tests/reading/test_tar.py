import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regrad.errors import RegradError
from regrad.reading.samples import DEFAULT_COLUMNS, Columns
from regrad.reading.tar import TarReader
from regrad.reading.tars import grouping
from tests.services import Bucket
from tests.shards import digits, write_members, write_tar

PNG = digits()[0][1]


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_reads_key_image_and_label(tmp_path: Path, name: str, mode: str) -> None:
    path = write_tar(tmp_path / name, digits(5), mode)
    samples = list(TarReader(path).rows())
    assert [(sample.row, f"{sample.id}.png", sample.image, sample.label) for sample in samples] == [
        (row, *rest) for row, rest in enumerate(digits(5))
    ]
    assert TarReader(path).count()[0] == 5


def test_reads_a_range(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", digits(6))
    assert [sample.row for sample in TarReader(path).rows(2, 4)] == [2, 3]
    assert [sample.row for sample in TarReader(path).rows(4)] == [4, 5]
    assert TarReader(path).count(at_most=4)[0] == 4


def test_counting_tells_the_bytes_of_a_sample(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", digits(40))
    rows, size = TarReader(path).count()
    assert rows * size == pytest.approx(Path(path).stat().st_size, rel=0.2)


def test_the_first_dot_of_the_base_name_ends_the_key(tmp_path: Path) -> None:
    members = [("./b.d/x.seg.png", b"mask"), ("./b.d/x.png", PNG), ("b.d/x.cls", b"4"), ("b.d/y.png", PNG)]
    samples = list(TarReader(write_members(tmp_path / "a.tar", members)).rows())
    assert [(sample.id, sample.image, sample.label) for sample in samples] == [("b.d/x", PNG, 4), ("b.d/y", PNG, None)]


def test_columns_name_extensions_and_json_fields(tmp_path: Path) -> None:
    details = json.dumps({"uid": "first", "kind": 7}).encode()
    members = [("x.left.png", b"left"), ("x.right.png", b"right"), ("x.json", details), ("y.right.png", b"r")]
    path = write_members(tmp_path / "a.tar", members)
    first, second = TarReader(path, Columns(image="right.png", label="kind", id="uid")).rows()
    assert (first.id, first.image, first.label) == ("first", b"right", 7)
    assert second.image is None
    assert "uid" in str(second.error)


def test_samples_without_an_image_or_key_say_so_and_what_is_no_sample_is_counted(tmp_path: Path) -> None:
    members = [("a.cls", b"1"), ("x/.png", PNG), ("._b.png", b"litter"), ("README", b"hello"), ("b.png", PNG)]
    members += [("b.txt", b"words"), ("notes.md", b"# words"), (".gitignore", b"*"), ("c/.cls", b"1")]
    reader = TarReader(write_members(tmp_path / "a.tar", members))
    samples = list(reader.rows())
    assert [(sample.row, sample.id, sample.image is not None) for sample in samples] == [
        (0, None, False),
        (1, "b", True),
        (2, "a", False),
    ]
    assert "'x/.png' is a name without a key" in str(samples[0].error)
    assert samples[2].error == "no image member under this key; it has cls"
    skipped = {"left by a desktop or an archiver": 1, "no extension": 1, "hidden": 2}
    skipped |= {"type not read: .txt": 1, "type not read: .md": 1}
    assert reader.skipped == skipped
    assert reader.count()[0] == 3
    assert reader.skipped == skipped


def rows(
    path: str, columns: Columns = DEFAULT_COLUMNS
) -> list[tuple[int | None, str | None, bytes | None, int | None]]:
    """The samples, none of which has an error."""
    samples = list(TarReader(path, columns).rows())
    assert [sample.error for sample in samples if sample.error] == []
    assert TarReader(path, columns).count()[0] == len(samples)
    return [(sample.row, sample.id, sample.image, sample.label) for sample in samples]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["22.png", "22.05.png", "22.10.png", "22.05.cls"], {"22": 0, "22.05": 1, "22.10": 2}),
        (["rgb/1.75.png", "rgb/1.21.png", "rgb/1.24.png"], {"rgb/1.75": 0, "rgb/1.21": 1, "rgb/1.24": 2}),
        (["x.left.png", "x.right.png"], {"x.left": 0, "x.right": 1}),
        (["a.b.jpg", "a.c.jpg", "a.b.c.jpg"], {"a.b": 0, "a.c": 1, "a.b.c": 2}),
        (["x.input.png"], {"x": 0}),
        (["a.b/1.png", "a.c/1.png"], {"a.b/1": 0, "a.c/1": 1}),
        (["v1.2.0.png", "v1.2.1.png", "v1.10.0.png"], {"v1.2.0": 0, "v1.2.1": 1, "v1.10.0": 2}),
    ],
)
def test_a_dot_in_a_name_costs_no_image(tmp_path: Path, names: list[str], expected: dict[str, int]) -> None:
    pictures = [name for name in names if not name.endswith(".cls")]
    members = [(name, digits()[pictures.index(name)][1] if name in pictures else b"7") for name in names]
    samples = rows(write_members(tmp_path / "a.tar", members))
    assert {key: image for _, key, image, _ in samples} == {key: digits()[n][1] for key, n in expected.items()}
    assert {key for _, key, _, label in samples if label == 7} == {name[:-4] for name in names if name.endswith("cls")}


@pytest.mark.parametrize("field", ["png", "PNG"])
def test_an_image_column_is_a_field_whatever_its_case(tmp_path: Path, field: str) -> None:
    members = [("1.5.png", b"a"), ("1.5.seg.png", b"mask"), ("1.7.PNG", b"b"), ("1.7.jpg", b"no"), ("1.7.cls", b"3")]
    path = write_members(tmp_path / "a.tar", members)
    assert rows(path, Columns(image=field)) == [(0, "1.5", b"a", None), (1, "1.7", b"b", 3)]
    first, second = TarReader(path, Columns(image="SEG.png")).rows()
    assert (first.id, first.image) == ("1.5", b"mask")
    assert second.error == "no .SEG.png member under this key; it has cls"


def test_other_pictures_of_a_sample_are_counted(tmp_path: Path) -> None:
    members = [("x.seg.png", b"mask"), ("x.png", b"b"), ("x.jpg", b"a"), ("x.cls", b"3")]
    reader = TarReader(write_members(tmp_path / "a.tar", members))
    assert [(sample.id, sample.image, sample.label) for sample in reader.rows()] == [("x", b"a", 3)]
    assert reader.skipped == {
        "another picture of a sample: .seg.png": 1,
        "another picture of a sample: .png": 1,
    }


def test_samples_whose_names_begin_alike_share_what_is_said_once(tmp_path: Path) -> None:
    details = json.dumps({"label": 5}).encode()
    members = [("7.0.jpg", b"a"), ("7.1.jpg", b"b"), ("7.1.cls", b"2"), ("7.json", details), ("8.0.jpg", b"c")]
    assert rows(write_members(tmp_path / "a.tar", members)) == [
        (0, "7.0", b"a", 5),
        (1, "7.1", b"b", 2),
        (2, "8.0", b"c", None),
    ]


def test_thousands_of_names_that_begin_alike_are_given_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regrad.reading.tars.grouping._GROUP_BYTES", 300)
    members = [
        (f"scan.n{n:02}.{end}", bytes([n]) * (90 if end == "png" else 1)) for n in range(40) for end in ("png", "txt")
    ]
    path = write_members(tmp_path / "a.tar", members)
    assert [(row, key) for row, key, *_ in rows(path)] == [(n, f"scan.n{n:02}") for n in range(40)]


PAIRS = [(f"d/{n:03}", image, label) for n, (_, image, label) in enumerate(digits(30))]


def orders() -> dict[str, list[tuple[str, bytes]]]:
    """The members of the same samples as tools and users put them."""
    images = [(f"{key}.png", image) for key, image, _ in PAIRS]
    classes = [(f"{key}.cls", str(label).encode()) for key, _, label in PAIRS]
    shuffled = [*images, *classes]
    np.random.default_rng(6).shuffle(shuffled)  # type: ignore[arg-type]
    assert shuffled[0][0][-3:] == shuffled[-1][0][-3:] == "png"  # from a store, the ends alone are looked at
    return {
        "images first": images + classes,
        "classes first": classes + images,
        "class before its image": [item for pair in zip(classes, images, strict=True) for item in pair],
        "as a folder lists them": shuffled,
        "reversed": images[::-1] + classes,
    }


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("order", orders())
def test_members_in_any_order_are_samples_with_their_labels(tmp_path: Path, order: str, mode: str) -> None:
    samples = rows(write_members(tmp_path / "a.tar", orders()[order], mode))
    assert [row for row, *_ in samples] == list(range(30))
    assert {(key, image, label) for _, key, image, label in samples} == set(PAIRS)


@pytest.mark.parametrize("order", orders())
def test_from_a_store_members_in_any_order_have_their_labels_or_a_row_says_why(
    tmp_path: Path, bucket: Bucket, order: str
) -> None:
    path = bucket.put(write_members(tmp_path / "a.tar", orders()[order]), "a.tar")
    samples = list(TarReader(path).rows())
    pairs = {(sample.id, sample.image): sample.label for sample in samples if sample.row is not None}
    labels = {(key, image): label for key, image, label in PAIRS}
    assert pairs.keys() == labels.keys()
    lost = [pair for pair in labels if pairs[pair] != labels[pair]]
    said = [str(sample.error) for sample in samples if sample.row is None]
    assert bool(lost) == (order == "as a folder lists them") == bool(said)
    assert all(f"{len(lost)} members (the first is 'd/" in why and "--sort=name" in why for why in said)


def test_a_store_is_not_asked_twice_for_a_tar_without_labels(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bucket.put(write_members(tmp_path / "a.tar", [(f"{n}.png", bytes(99_999)) for n in range(20)]), "a.tar")
    opened: list[str] = []
    real = grouping.open_archive
    monkeypatch.setattr(grouping, "open_archive", lambda *given, **how: opened.append("") or real(*given, **how))
    assert len(rows(path)) == 20
    assert len(opened) == 2  # one is for the count


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_tars_that_were_joined_are_read_to_the_end(tmp_path: Path, same: bool, compressed: bool) -> None:
    content = b""
    for part in range(3):
        members = [(f"{n if same else f'{part}-{n}'}.png", digits()[4 * part + n][1]) for n in range(4)]
        members += [(f"{n if same else f'{part}-{n}'}.cls", b"%d" % (4 * part + n)) for n in range(4)]
        content += Path(write_members(tmp_path / "part", sorted(members), "w:gz" if compressed else "w")).read_bytes()
    (tmp_path / "a.tar").write_bytes(content)
    samples = rows(str(tmp_path / "a.tar"))
    assert [(image, label) for _, _, image, label in samples] == [(digits()[n][1], n) for n in range(12)]
    ids = [key for _, key, *_ in samples]
    assert ids == [f"{n % 4} (row {n})" if n > 3 else f"{n}" for n in range(12)] if same else len(set(ids)) == 12


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_header_and_name(tmp_path: Path, form: int) -> None:
    names = ["./a.png", "/b.png", "c c.png", "d#%41?x=1&.png", "e::f.png", "ü/結果.png", f"{'long/' * 25}g.png"]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            archive.addfile(info, io.BytesIO(PNG))
    expected = ["a", "/b", "c c", "d#%41?x=1&", "e::f", "ü/結果", f"{'long/' * 25}g"]
    assert [key for _, key, *_ in rows(str(tmp_path / "a.tar"))] == expected


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=posix"], ["--format=posix", "--sparse-version=0.1"]])
def test_a_sparse_picture_is_read_as_it_was(tmp_path: Path, options: list[str]) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1024, 1024)).save(buffer, "BMP")
    with open(tmp_path / "x.bmp", "wb") as file:
        file.write(buffer.getvalue()[:2000])
        file.truncate(len(buffer.getvalue()))  # the zeros are not on the disk
    command = ["tar", "-C", str(tmp_path), "--sparse", *options, "-cf", str(tmp_path / "a.tar"), "x.bmp"]
    subprocess.run(command, check=True)
    assert os.path.getsize(tmp_path / "a.tar") < 100_000
    assert rows(str(tmp_path / "a.tar")) == [(0, "x", (tmp_path / "x.bmp").read_bytes(), None)]
    with open(tmp_path / "b.tar", "wb") as target:
        assert TarReader(str(tmp_path / "a.tar")).copy([0], target) == 1
    assert rows(str(tmp_path / "b.tar")) == rows(str(tmp_path / "a.tar"))


@pytest.mark.parametrize("order", orders())
def test_a_copy_has_all_members_of_its_samples_wherever_they_lie(tmp_path: Path, order: str) -> None:
    reader = TarReader(write_members(tmp_path / "a.tar", [*orders()[order], ("README", b"no sample")]))
    kept = [sample for sample in reader.rows() if sample.row in (0, 7, 8, 29)]
    with open(tmp_path / "b.tar", "wb") as file:
        assert reader.copy([0, 7, 8, 29], file) == 4
    copied = list(TarReader(str(tmp_path / "b.tar")).rows())
    assert [(sample.id, sample.image, sample.label) for sample in copied] == [
        (sample.id, sample.image, sample.label) for sample in kept
    ]
    with tarfile.open(tmp_path / "b.tar") as archive:
        assert len(archive.getnames()) == 8


def test_ids_are_told_apart(tmp_path: Path) -> None:
    uid = [json.dumps({"uid": name}).encode() for name in ("a", "a", "", "x (row 0)")]
    members = [(f"{n}.{end}", PNG if end == "png" else uid[n]) for n in range(4) for end in ("png", "json")]
    path = write_members(tmp_path / "a.tar", members)
    ids = [key for _, key, *_ in rows(path, Columns(id="uid"))]
    assert ids == ["a", "a (row 1)", "(row 2)", "x (row 0) (row 3)"]


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_cut_tar_gives_what_is_whole_and_says_from_where_it_is_not(tmp_path: Path, cut: float) -> None:
    path = Path(write_tar(tmp_path / "a.tar", digits(9)))
    content = path.read_bytes()[: 10240 * 3]  # without the padding at the end
    path.write_bytes(content[: int(len(content) * cut)])
    *good, last = TarReader(str(path)).rows()
    assert good
    assert all(sample.image for sample in good)
    assert last.row is None
    assert f"from row {len(good)} on" in str(last.error)


def test_a_tar_cut_between_members_is_noticed(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", digits(3)))
    end = path.read_bytes().index(digits()[2][0].encode())
    path.write_bytes(path.read_bytes()[:end])
    *good, last = TarReader(str(path)).rows()
    assert [(sample.id, sample.label) for sample in good] == [(name[:-4], label) for name, _, label in digits(2)]
    assert "from row 2 on: it ends without a tar's end mark" in str(last.error)


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", digits(5)))
    content = bytearray(path.read_bytes())
    place = content.index(digits()[3][0].encode())
    content[place : place + 400] = b"\xff" * 400
    path.write_bytes(content)
    *good, last = TarReader(str(path)).rows()
    assert [sample.row for sample in good] == [0, 1]  # the third may go on where the damage begins
    assert "from row 2 on: damaged member header" in str(last.error)


def test_a_file_that_is_no_tar_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"hello" * 1000)
    (sample,) = TarReader(str(tmp_path / "a.tar")).rows()
    assert "cannot be read from row 0 on" in str(sample.error)


def test_a_name_that_is_not_utf8_still_makes_an_id(tmp_path: Path) -> None:
    path = Path(write_members(tmp_path / "a.tar", [("kXey.png", PNG)]))
    content = bytearray(path.read_bytes())
    content[1] = 0xE9
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + sum(content[156:512]) + 8 * 32)
    path.write_bytes(content)
    (sample,) = TarReader(str(path)).rows()
    assert str(sample.id).encode() == b"k\\xe9ey"


def test_a_failing_storage_is_raised_and_not_taken_for_bad_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec.implementations.local as local

    path = write_tar(tmp_path / "a.tar", digits(60))
    calls: list[int] = []

    def read(self: object, size: int = -1) -> bytes:
        calls.append(size)
        if len(calls) > 1:
            raise TimeoutError("the store went away")
        return self.f.read(4096)  # type: ignore[attr-defined]

    monkeypatch.setattr(local.LocalFileOpener, "read", read, raising=False)
    with pytest.raises(RegradError, match=r"a\.tar: cannot read: TimeoutError: the store went away"):
        list(TarReader(path).rows())


def test_what_follows_the_end_mark_costs_no_sample(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", digits(3)))
    path.write_bytes(path.read_bytes() + b"appended by something" * 100)
    *good, last = TarReader(str(path)).rows()
    assert [(sample.id, sample.label) for sample in good] == [(name[:-4], label) for name, _, label in digits(3)]
    assert "from row 3 on: what comes after its end mark is no tar, and was not read; cut it off" in str(last.error)
