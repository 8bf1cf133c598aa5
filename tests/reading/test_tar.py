import json
from pathlib import Path

import pytest

from regrad.errors import RegradError
from regrad.reading.samples import Columns
from regrad.reading.tar import TarReader
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


def test_samples_without_an_image_or_key_say_so_and_cost_nothing(tmp_path: Path) -> None:
    members = [("a.cls", b"1"), (".png", PNG), ("._b.png", b"litter"), ("README", b"hello"), ("b.png", PNG)]
    samples = list(TarReader(write_members(tmp_path / "a.tar", members)).rows())
    assert [(sample.row, sample.id, sample.image is not None) for sample in samples] == [
        (0, "a", False),
        (1, None, False),
        (2, "b", True),
    ]
    assert "no image member" in str(samples[0].error)
    assert "without a key" in str(samples[1].error)


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
    assert "end mark" in str(list(TarReader(str(path)).rows())[-1].error)


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    path = Path(write_tar(tmp_path / "a.tar", digits(5)))
    content = bytearray(path.read_bytes())
    place = content.index(digits()[3][0].encode())
    content[place : place + 400] = b"\xff" * 400
    path.write_bytes(content)
    *good, last = TarReader(str(path)).rows()
    assert [sample.row for sample in good] == [0, 1]  # the third may go on where the damage begins
    assert "from row 2 on: CorruptTar: damaged member header" in str(last.error)


def test_a_file_that_is_no_tar_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"hello" * 1000)
    (tmp_path / "b.tar").write_bytes(b"")
    for name in ("a.tar", "b.tar"):
        (sample,) = TarReader(str(tmp_path / name)).rows()
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
