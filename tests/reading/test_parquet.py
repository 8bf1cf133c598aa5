import dataclasses
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from s3fs.core import S3File

from regrad.errors import UsageError
from regrad.networks import CIFAR10_CLASSES
from regrad.reading.inputs import list_inputs
from regrad.reading.naming.classes import Classes
from regrad.reading.parquet import ParquetReader, _open
from regrad.reading.samples import Columns, Shard
from tests.services import Bucket
from tests.shards import digits, write_hugging_face, write_parquet


def test_reads_ids_images_and_labels(tmp_path: Path) -> None:
    samples = list(ParquetReader(write_parquet(tmp_path / "a.parquet", digits(50))).rows())
    assert [(sample.row, sample.id, sample.image, sample.label) for sample in samples] == [
        (row, *rest) for row, rest in enumerate(digits(50))
    ]


def test_a_row_group_without_rows_is_sound(tmp_path: Path) -> None:
    rows = pa.table({"image": [image for _, image, _ in digits(6)]})
    with pa.parquet.ParquetWriter(tmp_path / "a.parquet", rows.schema) as writer:
        for start, count in ((0, 4), (4, 0), (4, 2)):
            writer.write_table(rows.slice(start, count))
    sizes = pa.parquet.ParquetFile(tmp_path / "a.parquet").metadata
    assert [sizes.row_group(group).num_rows for group in range(3)] == [4, 0, 2]
    samples = list(ParquetReader(str(tmp_path / "a.parquet")).rows())
    assert [(sample.row, sample.image) for sample in samples] == [(row, digits()[row][1]) for row in range(6)]


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
        (f"(row {row})", label, digits(4)[row][1]) for row, label in enumerate([0, 1, 1, 0])
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
    assert len(opened) == 2  # one looks through the ids


def test_ranges_in_rising_order_decode_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a worker's tasks are, some of which others have."""
    reader = ParquetReader(write_parquet(tmp_path / "a.parquet", digits(60), group=25))
    real, read = pa.parquet.ParquetFile.iter_batches, list[int]()

    def watched(self: Any, size: int, groups: list[int], columns: list[str]) -> Any:
        read.extend(groups if "image" in columns else [])
        return real(self, size, groups, columns)

    monkeypatch.setattr(pa.parquet.ParquetFile, "iter_batches", watched)
    rows = [sample.row for start in (3, 10, 18, 55) for sample in reader.rows(start, start + 4)]
    assert rows == [3, 4, 5, 6, 10, 11, 12, 13, 18, 19, 20, 21, 55, 56, 57, 58]
    assert read == [0, 2]
    assert [sample.row for sample in reader.rows(54, 56)] == [54, 55]  # one that was read
    assert read == [0, 2, 2]
    assert [sample.row for sample in reader.pick({1: "", 57: ""})] == [1, 57]
    assert [sample.row for sample in reader.rows(58)] == [58, 59]
    assert read == [0, 2, 2, 0, 2]


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
    reader = ParquetReader(str(path))
    read = [sample for start in (5, 22, 38, 50) for sample in reader.rows(start, start + 4)]
    assert [sample.row for sample in read if not sample.error] == [5, 6, 7, 8, 40, 41, 50, 51, 52, 53]
    assert [sample.row for sample in read if sample.error] == [22, 23, 24, 25, 38, 39]


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
    assert (second.row, second.id, second.error) == (1, "(row 1)", "the image is null")
    assert "'c' is not followed" in str(third.error)


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", digits(3), other=[b"a", b"b", b"c"], number=[7, 8, 9])
    samples = list(ParquetReader(path, Columns(image="other", label="number", id="label")).rows())
    assert [(sample.id, sample.image, sample.label) for sample in samples] == [
        (str(label), image, number)
        for (_, _, label), image, number in zip(digits(3), [b"a", b"b", b"c"], [7, 8, 9], strict=True)
    ]
    assert [sample.id for sample in ParquetReader(path, Columns(id="row")).rows()] == ["0", "1", "2"]


WORDS = ["a", "b", "a", None, "", "(row 5)"]
APART = ["a (row 0)", "b", "a (row 2)", "(row 3)", "(row 4)", "(row 5) (row 5)"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array(WORDS), APART),
        (pa.array(WORDS, pa.string_view()), APART),
        (pa.array(WORDS, pa.large_string()), APART),
        (pa.array(WORDS).dictionary_encode(), APART),
        (pa.array([5, None, 1, 3, 2, 2]), ["5", "(row 1)", "1", "3", "2 (row 4)", "2 (row 5)"]),  # numbers of rows
        (pa.array([[1], [1], [2], [3], [4], [5]]), ["[1] (row 0)", "[1] (row 1)", "[2]", "[3]", "[4]", "[5]"]),
        (None, [f"(row {row})" for row in range(6)]),
    ],
)
@pytest.mark.parametrize("group", [1, 6])
@pytest.mark.parametrize("beside", [False, True])
def test_no_two_rows_have_one_id_whatever_range_is_read(
    tmp_path: Path, ids: pa.Array | None, expected: list[str], group: int, beside: bool
) -> None:
    images = pa.array([b"x"] * 6)
    columns = {"image": images} if ids is None else {"image": images, "id": ids}
    if beside and group == 1 and ids is not None and pa.types.is_string_view(ids.type):
        pytest.skip("not written by pyarrow")
    if beside and ids is not None:  # as `datasets` has it: the base name of a file, beside its bytes
        columns = {"image": pa.StructArray.from_arrays([images, ids], ["bytes", "path"])}
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=group)
    assert [sample.id for sample in ParquetReader(str(tmp_path / "a.parquet")).rows()] == expected
    for row, name in enumerate(expected):
        (sample,) = ParquetReader(str(tmp_path / "a.parquet")).rows(row, row + 1)
        assert sample.id == name


def test_ids_alone_are_looked_through(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(name, image + bytes(50_000), label) for name, image, label in digits(60)]
    path = bucket.put(write_parquet(tmp_path / "a.parquet", rows, 10), "a.parquet")
    table = pa.parquet.read_table(tmp_path / "a.parquet")
    pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=10, compression="none", use_dictionary=False)
    bucket.put(str(tmp_path / "a.parquet"), "a.parquet")
    fetched: list[int] = []
    real = S3File._fetch_range
    monkeypatch.setattr(S3File, "_fetch_range", lambda self, a, b: fetched.append(b - a) or real(self, a, b))
    reader = ParquetReader(path)
    with Shard(path) as shard:
        file, fields = _open(shard, Columns())
        fetched.clear()
        assert reader._find_shared(file, fields) == frozenset()
    assert 0 < sum(fetched) < 600_000 < 3_000_000 < (tmp_path / "a.parquet").stat().st_size


def test_an_extension_type_holds_images_and_paths_as_its_storage_does(tmp_path: Path) -> None:
    class Photo(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.struct([("bytes", pa.binary()), ("path", pa.string())]), "tests.photo")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> "Photo":
            return cls()

    pa.register_extension_type(Photo())
    try:
        structs = pa.array([{"bytes": image, "path": name} for name, image, _ in digits(3)], Photo().storage_type)
        table = pa.table({"photo": pa.ExtensionArray.from_storage(Photo(), structs)})
        pa.parquet.write_table(table, tmp_path / "a.parquet")
        samples = list(ParquetReader(str(tmp_path / "a.parquet")).rows())
    finally:
        pa.unregister_extension_type("tests.photo")
    assert [(sample.id, sample.image) for sample in samples] == [(name, image) for name, image, _ in digits(3)]


def columns(count: int) -> dict[str, pa.Array]:
    """Columns of every type that Parquet files are written with."""
    numbers, words = range(count), [f"n{row}" * 5 if row % 4 else None for row in range(count)]
    tensors = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    return {
        "binary_view": pa.array([word and word.encode() for word in words], pa.binary_view()),
        "string_view": pa.array(words, pa.string_view()),
        "large_string": pa.array(words, pa.large_string()),
        "fixed": pa.array([b"%02d" % row for row in numbers], pa.binary(2)),
        "list": pa.array([[row] * (row % 3) for row in numbers]),
        "views": pa.array([words[: row % 3] for row in numbers], pa.list_(pa.string_view())),
        "large_list": pa.array([[row] * (row % 3) for row in numbers], pa.large_list(pa.int16())),
        "list_view": pa.array([[row] * (row % 3) for row in numbers], pa.list_view(pa.int16())),
        "boxes": pa.array([[[1.0, 2.0]] * (row % 3) for row in numbers], pa.list_(pa.list_(pa.float32(), 2))),
        "struct": pa.array([{"a": row, "b": [str(row)]} if row % 5 else None for row in numbers]),
        "views_in_structs": pa.array([{"a": word} for word in words], pa.struct([("a", pa.string_view())])),
        "map": pa.array([[(str(row), row)] for row in numbers], pa.map_(pa.string(), pa.int32())),
        "dictionary": pa.array(words).dictionary_encode(),
        "decimal": pa.array([Decimal(row) / 4 for row in numbers], pa.decimal128(10, 2)),
        "wide_decimal": pa.array([Decimal(row) for row in numbers], pa.decimal256(50, 2)),
        "time": pa.array(numbers, pa.timestamp("us", "Europe/Berlin")),
        "duration": pa.array(numbers, pa.duration("ns")),
        "half": pa.array(np.arange(count, dtype=np.float16)),
        "null": pa.nulls(count),
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(tensors),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * count, pa.binary(16))),
    }


@pytest.mark.parametrize("size", [30, 90])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 17, 99], [98], [70, 71, 75, 76], list(range(100))])
def test_a_copy_keeps_every_type_and_all_metadata(tmp_path: Path, rows: list[int], size: int) -> None:
    parts = [pa.table({"image": [b"x"] * count, **columns(count)}) for count in (size, 100 - size)]
    table = parts[0]
    described = table.schema.field("struct").with_metadata({"unit": "metres"})
    schema = table.schema.set(table.schema.get_field_index("struct"), described)
    schema = schema.with_metadata({"huggingface": '{"info": {}}', "é": "ü"})
    with pa.parquet.ParquetWriter(tmp_path / "a.parquet", schema) as writer:
        for part in parts:
            writer.write_table(part.cast(schema))
    before = pa.parquet.read_table(tmp_path / "a.parquet")
    with open(tmp_path / "b.parquet", "wb") as file:
        assert ParquetReader(str(tmp_path / "a.parquet")).copy(rows, file) == len(rows)
    after = pa.parquet.read_table(tmp_path / "b.parquet")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert str(after.to_pylist()) == str([row for number, row in enumerate(before.to_pylist()) if number in rows])
    metadata = pa.parquet.ParquetFile(tmp_path / "b.parquet").metadata
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert max(groups) <= max(size, 100 - size)
    assert len(groups) <= 3


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


@pytest.mark.parametrize("columns", [Columns(), Columns(label="label")])
def test_text_in_the_label_column_means_classes_by_name(tmp_path: Path, columns: Columns) -> None:
    pa.parquet.write_table(pa.table({"image": [b"1"] * 2, "label": ["cat", "cow"]}), tmp_path / "a.parquet")
    known = dataclasses.replace(columns, classes=Classes(2, ("dog", "cat")))
    found = list(ParquetReader(str(tmp_path / "a.parquet"), known).rows())
    assert [(sample.label, sample.no_class) for sample in found] == [(1, False), (None, True)]


@pytest.mark.parametrize(
    ("place", "own", "labels"),
    [
        ("label=5", False, [5, 5]),
        ("label=Dog/day=1", False, [5, 5]),
        ("label=__HIVE_DEFAULT_PARTITION__", False, [None, None]),
        ("label=cow", False, [None, None]),
        ("y=5", False, [None, None]),
        ("label=5", True, [0, None]),
    ],
)
def test_without_such_a_column_the_label_is_what_the_path_says(
    tmp_path: Path, place: str, own: bool, labels: list[int | None]
) -> None:
    (tmp_path / place).mkdir(parents=True)
    columns = {"image": [image for _, image, _ in digits(2)]} | ({"label": [0, None]} if own else {})
    pa.parquet.write_table(pa.table(columns), tmp_path / place / "0.parquet")
    listing = list_inputs([str(tmp_path)], Columns(classes=Classes(10, tuple(CIFAR10_CLASSES))))
    samples = list(listing.sources[0].open().rows())
    assert [sample.label for sample in samples] == labels
    assert [sample.no_class for sample in samples] == [place == "label=cow"] * 2
    told = "labels of 1 shard: what the path says, where there is no such column"
    assert listing.notes == ((told,) if place.startswith("label=") else ())


def test_a_path_may_have_the_column_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "y=7").mkdir()
    pa.parquet.write_table(pa.table({"image": [image for _, image, _ in digits(2)]}), tmp_path / "y=7/0.parquet")
    listing = list_inputs([str(tmp_path)], Columns(label="y"))
    assert [sample.label for sample in listing.sources[0].open().rows()] == [7, 7]
    assert listing.sources[0].no_labels is None
    assert listing.notes == ("labels of 1 shard: what the path says, where there is no such column",)


def test_a_file_without_the_label_column_has_rows_without_labels(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"image": [b"1"] * 2, "label": [0, 1]}), tmp_path / "a.parquet")
    reader = ParquetReader(str(tmp_path / "a.parquet"), Columns(label="kind"))
    assert (reader.length(), "no column 'kind' for --label-column" in str(reader.no_labels)) == (2, True)
    assert [sample.label for sample in reader.rows()] == [None, None]


NAMES = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}


@pytest.mark.parametrize(
    "metadata",
    [
        {"huggingface": NAMES},
        {"huggingface": {"id2label": {"1": "dog", "0": "cat"}}},
        {"id2label": {"0": "cat", "1": "dog"}},
        {"huggingface": NAMES, "id2label": {"0": "x"}},
    ],
)
def test_the_names_that_a_file_has_for_its_classes(tmp_path: Path, metadata: dict[str, Any]) -> None:
    told = {key: json.dumps(value) for key, value in metadata.items()}
    rows = pa.table({"image": [b"1"] * 4, "label": [0, 1, 2, None]}).replace_schema_metadata(told)
    pa.parquet.write_table(rows, tmp_path / "a.parquet")
    reader = ParquetReader(str(tmp_path / "a.parquet"), Columns(classes=Classes(2, ("dog", "cat"))))
    assert (reader.length(), reader.label_names) == (4, ("cat", "dog"))
    assert [sample.label for sample in reader.rows()] == [1, 0, 2, None]


@pytest.mark.parametrize(
    "metadata",
    [
        b"not json",
        b"[]",
        b'{"info": null}',
        b'{"info": {"features": {"label": {"names": [1]}}}}',
        b'{"id2label": {"x": "y"}}',
    ],
)
def test_names_that_cannot_be_read_are_none(tmp_path: Path, metadata: bytes) -> None:
    rows = pa.table({"image": [b"1"], "label": [0]}).replace_schema_metadata({b"huggingface": metadata})
    pa.parquet.write_table(rows, tmp_path / "a.parquet")
    reader = ParquetReader(str(tmp_path / "a.parquet"), Columns(classes=Classes(2, ("dog", "cat"))))
    assert (reader.length(), reader.label_names) == (1, ())
    assert [sample.label for sample in reader.rows()] == [0]


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
