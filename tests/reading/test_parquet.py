import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad.errors import UsageError
from regrad.reading.parquet import ParquetReader
from regrad.reading.samples import Columns
from tests.shards import digits, write_hugging_face, write_parquet


def test_reads_ids_images_and_labels(tmp_path: Path) -> None:
    samples = list(ParquetReader(write_parquet(tmp_path / "a.parquet", digits(50))).rows())
    assert [(sample.row, sample.id, sample.image, sample.label) for sample in samples] == [
        (row, *rest) for row, rest in enumerate(digits(50))
    ]


def test_reads_the_hugging_face_struct_with_its_path_as_id(tmp_path: Path) -> None:
    samples = list(ParquetReader(write_hugging_face(tmp_path / "a.parquet", digits(50))).rows())
    assert [(sample.id, sample.image, sample.label) for sample in samples] == digits(50)


def test_reads_a_file_as_the_datasets_library_writes_it(tmp_path: Path) -> None:
    """``Dataset.to_parquet`` of images from memory: no paths, and the features in the schema's metadata."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    images = [{"bytes": image, "path": None} for _, image, _ in digits(4)]
    pa.parquet.write_table(pa.table({"image": images, "label": [0, 1, 1, 0]}, schema=schema), tmp_path / "a.parquet")
    found = list(ParquetReader(str(tmp_path / "a.parquet")).rows())
    assert [(sample.id, sample.label, sample.image) for sample in found] == [
        (str(row), label, digits(4)[row][1]) for row, label in enumerate([0, 1, 1, 0])
    ]


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (15, 47), (20, 40), (49, 50), (30, None)])
@pytest.mark.parametrize("group", [7, 20, 1000])
def test_reads_any_range(tmp_path: Path, start: int, stop: int | None, group: int) -> None:
    reader = ParquetReader(write_parquet(tmp_path / "a.parquet", digits(50), group))
    expected = list(range(50))[start:stop]
    assert [sample.row for sample in reader.rows(start, stop)] == expected
    assert [sample.row for sample in reader.rows(start, stop)] == expected


def test_ranges_that_follow_each_other_decode_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = ParquetReader(write_parquet(tmp_path / "a.parquet", digits(60), group=60))
    opened = []
    real = pa.parquet.ParquetFile
    monkeypatch.setattr(pa.parquet, "ParquetFile", lambda *a, **k: opened.append(1) or real(*a, **k))
    rows = [sample.row for start in range(0, 60, 10) for sample in reader.rows(start, start + 10)]
    assert rows == list(range(60))
    assert len(opened) == 1


def test_a_corrupt_row_group_costs_its_own_rows_only(tmp_path: Path) -> None:
    path = Path(write_parquet(tmp_path / "a.parquet", digits(60), group=20))
    chunk = pa.parquet.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(path.read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)
    samples = list(ParquetReader(str(path)).rows())
    assert [sample.row for sample in samples] == list(range(60))
    assert [sample.row for sample in samples if sample.error] == list(range(20, 40))
    assert "row group 1 cannot be read from row 20 on" in str(samples[20].error)
    assert [sample.row for sample in ParquetReader(str(path)).rows(30, 45) if sample.error] == list(range(30, 40))


def test_null_images_are_named_with_their_row(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image": pa.array([{"bytes": b"x", "path": "a"}, None, {"bytes": None, "path": "c"}]),
            "label": pa.array([None, 1, 2], pa.int64()),
        }
    )
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    first, second, third = ParquetReader(str(tmp_path / "a.parquet")).rows()
    assert (first.id, first.image, first.label) == ("a", b"x", None)
    assert (second.row, second.id, second.error) == (1, "1", "the image is null")
    assert "'c' is not followed" in str(third.error)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", digits(3), other=[b"a", b"b", b"c"], number=[7, 8, 9])
    samples = list(ParquetReader(path, Columns(image="other", label="number", id="label")).rows())
    assert [(sample.id, sample.image, sample.label) for sample in samples] == [
        (str(label), image, number)
        for (_, _, label), image, number in zip(digits(3), [b"a", b"b", b"c"], [7, 8, 9], strict=True)
    ]
    assert [sample.id for sample in ParquetReader(path, Columns(id="row")).rows()] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("columns", "table", "message"),
    [
        (
            Columns(),
            {"a": [1], "b": ["x"]},
            r"no image column: the columns are a \(int64\), b .*--image-column",
        ),
        (Columns(), {"a": [b"1"], "b": [b"2"]}, "no image column"),
        (Columns(image="x"), {"a": [b"1"]}, r"no column 'x' for --image-column; the columns are a \(binary\)"),
        (Columns(), {"image": ["cat.png"]}, "'image' is string, not encoded images"),
        (Columns(label="l"), {"image": [b"1"], "l": ["cat"]}, "'l' of --label-column is string, not a class index"),
        (Columns(id="name"), {"image": [b"1"]}, "no column 'name' for --id-column"),
    ],
)
def test_unusable_columns_are_refused_by_name(
    tmp_path: Path, columns: Columns, table: dict[str, list[object]], message: str
) -> None:
    pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=message):
        ParquetReader(str(tmp_path / "a.parquet"), columns).length()
    (sample,) = ParquetReader(str(tmp_path / "a.parquet"), columns).rows()
    assert (sample.row, sample.stage) == (None, "list")
    assert re.search(message, str(sample.error))


def test_a_label_column_of_text_is_left_alone_unless_asked_for(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"image": [b"1"], "label": ["cat"]}), tmp_path / "a.parquet")
    (sample,) = ParquetReader(str(tmp_path / "a.parquet")).rows()
    assert (sample.image, sample.label) == (b"1", None)


def test_a_file_that_is_no_parquet_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 hello")
    assert ParquetReader(str(tmp_path / "a.parquet")).length() is None
    assert ParquetReader(str(tmp_path / "a.parquet")).count() == (0, 0.0)
    (sample,) = ParquetReader(str(tmp_path / "a.parquet")).rows()
    assert sample.row is None
    assert "not readable as Parquet" in str(sample.error)


def test_large_row_groups_are_read_through_a_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", digits(60), group=60)
    whole = list(ParquetReader(path).rows())
    monkeypatch.setattr("regrad.reading.parquet._WHOLE_GROUP", 100)
    assert list(ParquetReader(path).rows()) == whole
    assert list(ParquetReader(path).rows(30, 45)) == whole[30:45]
