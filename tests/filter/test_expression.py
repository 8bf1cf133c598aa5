"""Conditions: against the same condition in Python on the rows, and everything else refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pytest

from regrad.errors import UsageError
from regrad.filter.expression import parse_condition

ROWS: list[dict[str, Any]] = [
    {"id": "a.png", "source": "s3://b/x", "prediction": p, "label": label, "regrad": r, "confidence": r / 10}
    for p in (1, 3, 5)
    for label in (None, 2, 5)
    for r in (0.5, 1.0, 2.0, 3.5)
] + [{"id": "z.jpg", "source": "local", "prediction": 3, "label": 3, "regrad": -1.0, "confidence": 0.9}]
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("prediction", pa.int32()),
        ("label", pa.int32()),
        ("regrad", pa.float64()),
        ("confidence", pa.float32()),
    ]
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("regrad > 1", lambda row: row["regrad"] > 1),
        ("regrad >= 1 and prediction in (3, 5)", lambda row: row["regrad"] >= 1 and row["prediction"] in (3, 5)),
        ("not (regrad < 1 or prediction == 3)", lambda row: not (row["regrad"] < 1 or row["prediction"] == 3)),
        ("0.5 < regrad <= 2", lambda row: 0.5 < row["regrad"] <= 2),
        ("2 > regrad", lambda row: row["regrad"] < 2),
        ("label is None or regrad > 3", lambda row: row["label"] is None or row["regrad"] > 3),
        ("label is not None", lambda row: row["label"] is not None),
        ("prediction not in [1]", lambda row: row["prediction"] not in [1]),
        ("starts_with(source, 's3://')", lambda row: row["source"].startswith("s3://")),
        ("ends_with(id, '.jpg') or contains(source, 'oca')", lambda row: row["id"] == "z.jpg"),
        ("id != 'a.png'", lambda row: row["id"] != "a.png"),
        ("regrad * 2 - 1 > -regrad", lambda row: row["regrad"] * 2 - 1 > -row["regrad"]),
        ("prediction / 2 > 1", lambda row: row["prediction"] / 2 > 1),
        ("prediction != label and label is not None", lambda row: row["label"] not in (None, row["prediction"])),
        ("regrad > 1e400", lambda row: False),
    ],
)
def test_arrow_and_python_agree(text: str, reference: Any) -> None:
    table = pa.Table.from_pylist(ROWS, SCHEMA)
    found = pa.dataset.dataset(table).to_table(filter=parse_condition(text, SCHEMA)).to_pylist()
    expected = [row for row in table.to_pylist() if reference(row)]
    assert found == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regrat > 1", "no column regrat; the columns are id, source, prediction, label, regrad, confidence"),
        ("regrad", "no condition"),
        ("regrad > 'high'", "a condition compares columns"),
        ("id > 3", "a condition compares columns"),
        ("3 > 2", "needs a column on one side"),
        ("True", "does not depend on any column"),
        ("regrad >", "invalid syntax"),
        ("", "invalid syntax"),
        ("__import__('os').system('touch owned') > 1", "is not understood"),
        ("regrad.__class__ > 1", "is not understood"),
        ("[x for x in regrad]", "is not understood"),
        ("(lambda: regrad)() > 1", "is not understood"),
        ("f'{regrad}' == 'x'", "is not understood"),
        ("regrad > 9 ** 9 ** 9", "is not understood"),
        ("open(id, 'w') == 1", "is not understood"),
        ("starts_with(source, id)", "is not understood"),
        ("prediction in (regrad, 1)", "must be numbers or texts"),
        ("prediction in ('a',)", "a condition compares columns"),
        ("not " * 300 + "(regrad > 1)", "nested too deeply"),
        ("(" * 4000 + "regrad" + ")" * 4000 + " > 1", "a condition"),
        ("regrad > 1 " + "or regrad > 1 " * 1000, "at most 10000 are read"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")) as error:
        parse_condition(text, SCHEMA)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
