"""The columns of a Parquet file: which hold images, labels and ids, and which ids are several rows'."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regrad import storage
from regrad.errors import UsageError
from regrad.reading.samples import Columns, as_text

_SHOWN = 20  # columns that a message names
ROW_NUMBER = "row"  # `--id-column row` asks for row numbers where no column has that name


class NoImages(UsageError):
    """A table in which no column can hold images: it tells something of images that are elsewhere."""


@dataclass(frozen=True)
class ParquetFields:
    """The columns of one Parquet file that are read.

    Attributes:
        label_names: the names of the classes that the numbers in ``label`` stand for, where the file has them.
    """

    image: str
    label: str | None
    id: str | None
    label_names: tuple[str, ...] = ()

    @classmethod
    def choose(cls, schema: pa.Schema, columns: Columns, uri: str) -> ParquetFields:
        """The image, label and id column of ``schema``, as asked for or by default.

        Raises:
            UsageError: a column is missing or has no usable type; the columns there are, are named.
        """
        candidates = [field.name for field in schema if holds_images(field.type)]
        fault = UsageError if candidates else NoImages
        there = _there(schema)
        for flag, name in (("image", columns.image), ("label", columns.label), ("id", columns.id)):
            if flag == "label" or (flag == "id" and name == ROW_NUMBER):
                continue  # rows do without
            if name is not None and name not in schema.names:
                raise fault(str(no_column(schema, flag, name, uri)))
        label = columns.label or _default_label(schema)
        for name in (columns.image or "image", label, columns.id or "id"):
            if schema.names.count(name) > 1:
                raise UsageError(f"{storage.mask(uri)}: more than one column {name!r}; {there}")
        image = columns.image or ("image" if "image" in schema.names else None)
        if image is None:
            if len(candidates) != 1:
                raise fault(
                    f"{storage.mask(uri)}: no image column: {there}; name one that holds encoded images "
                    "with --image-column"
                )
            image = candidates[0]
        if not holds_images(schema.field(image).type):
            raise fault(
                f"{storage.mask(uri)}: column {image!r} is {schema.field(image).type}, not encoded images (binary, "
                f"or a struct with a binary field `bytes`); {there}; {_what_to_do(schema.field(image).type)}"
            )
        identifier = columns.id or ("id" if "id" in schema.names else None)
        if label not in schema.names:
            return cls(image, None, identifier)
        return cls(image, label, identifier, _class_names(schema, label))

    def names(self, schema: pa.Schema) -> list[str]:
        """The columns to read: those of the chosen ones that ``schema`` has."""
        return [name for name in (self.image, self.label, self.id) if name is not None and name in schema.names]

    def numbers(self, schema: pa.Schema) -> bool:
        """Whether row numbers are the ids that were asked for."""
        return self.id == ROW_NUMBER and self.id not in schema.names

    def id_leaf(self, schema: pa.Schema) -> str | None:
        """The column that ids are taken from, or that of the paths beside the images; None: there are neither."""
        if self.id is not None and self.id in schema.names:
            return self.id
        kind = _storage_type(schema.field(self.image).type)
        return f"{self.image}.path" if _has_paths(kind) and not self.numbers(schema) else None

    def ids(self, batch: pa.RecordBatch) -> Any:
        """The ids in ``batch``, or the paths beside the images, also where only :meth:`id_leaf` was read."""
        if self.id_leaf(batch.schema) is None:
            return None
        if self.id in batch.schema.names:
            return batch.column(batch.schema.get_field_index(self.id))
        return split_images(batch.column(batch.schema.get_field_index(self.image)))[1]


def _default_label(schema: pa.Schema) -> str:
    """``label``; a WebDataset that was made into a table has ``cls``, as its tars had, beside their ``__key__``."""
    return "cls" if "label" not in schema.names and "__key__" in schema.names else "label"


def no_column(schema: pa.Schema, flag: str, name: str, uri: str) -> UsageError:
    """That a file lacks the column that was asked for."""
    return UsageError(f"{storage.mask(uri)}: no column {name!r} for --{flag}-column; {_there(schema)}")


def _there(schema: pa.Schema) -> str:
    shown = ", ".join(f"{field.name} ({field.type})" for field in itertools.islice(schema, _SHOWN))
    return f"the columns are {shown}" + (f" and {len(schema) - _SHOWN:,} more" if len(schema) > _SHOWN else "")


def _what_to_do(kind: pa.DataType) -> str:
    """What can be done where a column of this type, which holds no encoded images, was to be read."""
    kind = _storage_type(kind)
    return next((told for fits, told in _TO_DO.items() if fits(kind)), "name another with --image-column")


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """The names that Hugging Face's datasets keep with a column of numbers, or an ``id2label`` beside them."""
    metadata = {**(schema.metadata or {}), **(schema.field(label).metadata or {})}
    for key, way in (
        (b"huggingface", ("info", "features", label, "names")),
        (b"huggingface", ("id2label",)),
        (b"id2label", ()),
    ):
        try:
            names = json.loads(metadata.get(key, b"null"))
            for step in way:
                names = names[step]
            if isinstance(names, dict):
                names = [names[place] for place in sorted(names, key=int)] if _counts(names) else []
            if names and all(isinstance(name, str) for name in names):
                return tuple(names)
        except (ValueError, TypeError, KeyError):
            continue
    return ()


def _counts(names: dict[str, Any]) -> bool:
    """Whether the keys are the numbers from 0 on."""
    return sorted(map(int, names)) == list(range(len(names)))


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type can hold encoded images."""
    kind = _storage_type(kind)
    if pa.types.is_dictionary(kind):
        return holds_images(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_images(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _has_paths(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0


_TO_DO: dict[Callable[[pa.DataType], bool], str] = {
    _is_text: "where it holds paths, give the folder of the images; where base64, write the decoded bytes",
    _has_paths: "it holds paths alone: give the folder of the images, or write their bytes into `bytes`",
    lambda kind: _is_list(kind) and holds_images(kind.value_type): "write one image a row",
    _is_list: "it holds numbers: encode each image, as PNG, which loses none",
}


def split_images(column: Any) -> tuple[Any, Any]:
    """The images of a column, and the paths beside them; None where there are no such."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if not pa.types.is_struct(column.type):
        return column, None
    # `StructArray.field` ignores the struct's own nulls; `flatten` applies them.
    parts = dict(zip([field.name for field in column.type], column.flatten(), strict=True))
    return parts.get("bytes"), parts.get("path")


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def cell(column: Any, offset: int) -> Any:
    """One cell; None where it is null or nothing that Python can hold (a date of the year 20,000)."""
    if column is None:
        return None
    try:
        return column[offset].as_py()
    except UnicodeDecodeError as error:
        return error.object  # the bytes
    except Exception:
        return None


def texts(ids: Any) -> Iterator[str]:
    """The ids of a column as rows have them; nulls are left out."""
    values = (cell(ids, offset) for offset in range(len(ids)))
    return (as_text(value) for value in values if value is not None)
