"""Labels in the names of folders, as Hive, Spark and Arrow's datasets write them: ``label=3/part-0.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from regrad.reading.naming.classes import Classes, not_called
from regrad.reading.naming.trees import Labels

LABEL = "label"  # of what is called so, unless --label-column says otherwise
_NULL = "__HIVE_DEFAULT_PARTITION__"


def partition_value(path: str, column: str) -> str | None:
    """What the folders of ``path`` say of ``column``, nothing where that is null; None: they do not.

    >>> partition_value("s3://bucket/t/label=hot%20dog/0.parquet", "label"), partition_value("label=3.png", "label")
    ('hot dog', None)
    """
    values = (name.partition("=")[2] for name in path.split("/")[:-1] if name.startswith(f"{column}="))
    value = next(values, None)
    return value and ("" if value == _NULL else unquote(value))


def labels_of_partitions(files: Sequence[str], column: str, classes: Classes) -> Labels | None:
    """The labels of ``files`` by the folders ``column=...`` that they are in; None where not one is in such."""
    values = [partition_value(file, column) for file in files]
    if all(value is None for value in values):
        return None
    known = {value: None if value is None else classes.label(value) for value in values}
    without = sorted(value for value, label in known.items() if value and label is None)
    told = f"labels are what its sub-folders say of {column!r}"
    return Labels(tuple(known[value] for value in values), f"{told}; {not_called(without)}" if without else told)
