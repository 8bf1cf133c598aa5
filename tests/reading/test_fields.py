"""Which columns of a Parquet file hold what."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from regrad.errors import UsageError
from regrad.reading.fields import NoImages, ParquetFields, cell, holds_images, split_images, texts
from regrad.reading.samples import Columns

HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def choose(schema: pa.Schema, **columns: str) -> ParquetFields:
    return ParquetFields.choose(schema, Columns(**columns), "s3://bucket/x.parquet")


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        HUGGING_FACE,
        pa.dictionary(pa.int32(), pa.binary()),
        pa.struct([("bytes", pa.large_binary())]),
    ],
    ids=str,
)
def test_types_that_hold_images(kind: pa.DataType) -> None:
    assert holds_images(kind)
    assert choose(pa.schema([("picture", kind), ("n", pa.int64())])).image == "picture"  # the only one


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.list_(pa.uint8()), pa.struct([("path", pa.string())])])
def test_types_that_hold_none(kind: pa.DataType) -> None:
    assert not holds_images(kind)
    with pytest.raises(NoImages, match="no image column: the columns are x"):
        choose(pa.schema([("x", kind)]))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (pa.string(), "where it holds paths, give the folder"),
        (pa.large_string(), "where base64, write the decoded bytes"),
        (pa.list_(pa.list_(pa.uint8())), "it holds numbers: encode each image"),
        (pa.list_(pa.binary()), "write one image a row"),
        (pa.struct([("bytes", pa.null()), ("path", pa.string())]), "it holds paths alone"),
        (pa.int64(), "name another with --image-column"),
    ],
    ids=str,
)
def test_what_holds_no_encoded_images_is_told_what_to_do(kind: pa.DataType, words: str) -> None:
    with pytest.raises(NoImages, match=f"column 'image' is .*, not encoded images .*; {words}"):
        choose(pa.schema([("image", kind)]))


def test_of_very_many_columns_some_are_named() -> None:
    with pytest.raises(NoImages, match=r"pixel18 \(uint8\) and 765 more; name one"):
        choose(pa.schema([("label", pa.int8()), *((f"pixel{place}", pa.uint8()) for place in range(784))]))


@pytest.mark.parametrize(
    ("fields", "columns", "words"),
    [
        ([("a", pa.binary()), ("b", pa.binary())], {}, "no image column: .* a .binary., b .binary.; name one"),
        ([("image", pa.binary())], {"image": "IMAGE"}, "no column 'IMAGE' for --image-column; the columns are image"),
        ([("image", pa.binary())], {"id": "key"}, "no column 'key' for --id-column"),
        ([("image", pa.int64()), ("b", pa.binary())], {}, "column 'image' is int64, not encoded images"),
        ([("image", pa.binary()), ("id", pa.string()), ("id", pa.string())], {}, "more than one column 'id'"),
    ],
)
def test_what_cannot_be_chosen_is_named(
    fields: list[tuple[str, pa.DataType]], columns: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=f"s3://bucket/x.parquet: {words}"):
        choose(pa.schema(fields), **columns)


def test_rows_do_without_a_label_or_with_their_numbers() -> None:
    schema = pa.schema([("image", pa.binary())])
    chosen = choose(schema, label="absent", id="row")
    assert (chosen.label, chosen.numbers(schema), chosen.id_leaf(schema)) == (None, True, None)
    assert chosen.names(schema) == ["image"]
    named = pa.schema([("image", pa.binary()), ("row", pa.string())])
    assert not choose(named, id="row").numbers(named)  # a column of that name is meant


def test_a_webdataset_that_became_a_table_has_its_labels() -> None:
    """As Hugging Face's datasets library makes one of a tar."""
    fields = [("jpg", HUGGING_FACE), ("cls", pa.int64()), ("__key__", pa.string()), ("__url__", pa.string())]
    schema = pa.schema(fields)
    chosen = choose(schema)
    assert (chosen.image, chosen.label, chosen.id_leaf(schema)) == ("jpg", "cls", "jpg.path")
    assert choose(pa.schema([*fields, ("label", pa.int64())])).label == "label"
    assert choose(pa.schema(fields[:2])).label is None  # it may be anything
    with pytest.raises(UsageError, match="more than one column 'cls'"):
        choose(pa.schema([*fields, ("cls", pa.int64())]))


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({"huggingface": {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}}, ("cat", "dog")),
        ({"id2label": {"1": "dog", "0": "cat"}}, ("cat", "dog")),
        ({"huggingface": {"id2label": {str(k): f"c{k}" for k in range(11)}}}, tuple(f"c{k}" for k in range(11))),
        ({"id2label": {"1": "dog", "2": "cow"}}, ()),  # not from 0 on: they cannot be told
        ({"huggingface": {"info": {"features": {"label": {}}}}}, ()),
        ({"id2label": ["cat", 7]}, ()),
    ],
)
def test_names_of_classes(metadata: dict[str, object], names: tuple[str, ...]) -> None:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    kept = {key.encode(): json.dumps(value).encode() for key, value in metadata.items()}
    assert choose(schema.with_metadata(kept)).label_names == names
    broken = {key: b"{" + value for key, value in kept.items()}
    assert choose(schema.with_metadata(broken)).label_names == ()


def test_a_null_struct_has_neither_bytes_nor_path() -> None:
    column = pa.array([{"bytes": b"a", "path": "x.png"}, None, {"bytes": None, "path": "y.png"}], HUGGING_FACE)
    images, paths = split_images(column)
    assert (images.to_pylist(), paths.to_pylist()) == ([b"a", None, None], ["x.png", None, "y.png"])
    schema = pa.schema([("image", HUGGING_FACE)])
    chosen = choose(schema)
    assert chosen.id_leaf(schema) == "image.path"
    batch = pa.record_batch([column], schema=schema)
    assert list(texts(chosen.ids(batch))) == ["x.png", "y.png"]


def test_a_cell_is_what_python_can_hold() -> None:
    assert cell(pa.array([1, None]), 1) is None
    assert cell(None, 0) is None
    far = pa.array([10**18], pa.timestamp("s"))
    assert cell(far, 0) is None
