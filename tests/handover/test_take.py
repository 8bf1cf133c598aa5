"""Files that come back: told apart by what is in them, and refused with a line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad.errors import UsageError
from regrad.handover.take import read_returned


def read(path: Path, content: str | bytes) -> tuple[str, list[tuple]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    form, rows = read_returned(str(path))
    return form, [tuple(row.values()) for row in rows.to_pylist()]


COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"image_id": 1, "category_id": 1}],
}
TASKS = [{"data": {"image": "a.png"}, "annotations": [{"result": [{"value": {"choices": ["cat"]}}]}]}]


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (json.dumps(TASKS), "Label Studio"),
        (json.dumps(COCO), "COCO"),
        (json.dumps({"classes": ["cat"], "labels": {"a.png": 0}}), "FiftyOne"),
        ('{"file_name": "a.png", "label": "cat"}\n', "JSON lines"),
        ('<annotations><image id="0" name="a.png"><tag label="cat"/></image></annotations>', "CVAT"),
        ("\ufeff<annotations><image name='a.png'><tag label='cat' source='manual'/></image></annotations>", "CVAT"),
        ("file_name,label\na.png,cat\n", "CSV"),
    ],
)
@pytest.mark.parametrize("name", ["export", "export.csv"])  # whatever it is called
def test_forms_are_told_apart(tmp_path: Path, name: str, content: str, form: str) -> None:
    assert read(tmp_path / name, content) == (form, [(None, None, "a.png", True, "cat", False)])


def test_tables_name_ids_sources_files_and_labels(tmp_path: Path) -> None:
    labelled = 'id,source,label,note\n0001,s,cat,x\n1e5,s,,y\n"a\nb",t,,"z\nz"\n'
    assert read(tmp_path / "a.csv", labelled) == (
        "CSV",
        [
            ("0001", "s", None, True, "cat", False),
            ("1e5", "s", None, False, None, False),
            ("a\nb", "t", None, False, None, False),
        ],
    )
    numbers = read(tmp_path / "numbers.csv", "id,label\n0001,1\n1e5,2\n")[1]
    assert [row[0] for row in numbers] == ["0001", "1e5"]  # and not the numbers 1 and 100,000
    assert read(tmp_path / "b.csv", "id,regrad_id\n7,x\n")[1] == [("x", None, None, True, None, False)]
    assert read(tmp_path / "c.csv", "file\nx.png\n")[1] == [(None, None, "x.png", True, None, False)]
    pa.parquet.write_table(pa.table({"id": [7, 8], "label": [3, None]}), tmp_path / "d")
    assert read_returned(str(tmp_path / "d"))[1].to_pylist() == [
        {"id": "7", "source": None, "file": None, "labelled": True, "label": "3", "predicted": False},
        {"id": "8", "source": None, "file": None, "labelled": False, "label": None, "predicted": False},
    ]
    lines = '{"id": "1", "label": null}\n\n{"id": "2", "label": "cat"}\n{"id": "3", "label": ""}\n'
    assert [row[3] for row in read(tmp_path / "e.jsonl", lines)[1]] == [False, True, False]


def test_a_list_is_read_out_of_an_archive(tmp_path: Path) -> None:
    def packed(*names: str) -> str:
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
            for name in (*names, "images/a.png"):
                archive.writestr(name, json.dumps(COCO))
        return str(tmp_path / "export.zip")

    assert read_returned(packed("annotations/instances_default.json"))[0] == "COCO"
    for names, message in ((("a.json", "b.json"), r"2 lists in it \(a\.json and b\.json\)"), ((), "0 lists in it")):
        with pytest.raises(UsageError, match=message):
            read_returned(packed(*names))
    (tmp_path / "export.zip").write_bytes(b"PK and then nothing")
    with pytest.raises(UsageError, match="not readable as a zip"):
        read_returned(str(tmp_path / "export.zip"))
    with pytest.raises(UsageError, match="no such file"):
        read_returned(str(tmp_path / "none.zip"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "not readable as CSV"),
        ("name\nx\n", "no column id, and none that names files; the columns are name"),
        ("id,a\n1\n", "not readable as CSV"),
        ('{"id": 1', "not readable as JSON: .*line 1"),
        ("[1, 2]", "JSON, but no export of Label Studio, COCO, FiftyOne or Hugging Face"),
        ('{"name": "x"}', "no column id, and none that names files; the columns are name"),
        ('{"name": "x"}\n{"name": "y"}', "no column id"),
        (json.dumps(COCO | {"images": [{"id": 1}]}), "not an export that is whole: .*file_name"),
        ("<html><body>", "not readable as XML"),
        (b"PAR1 and then nothing", "not readable as Parquet"),
        (b"\xff\xfe\x00\x01", "not readable as CSV|no column id"),
    ],
)
def test_what_is_none_of_them_is_one_line(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    path = tmp_path / "labelled.csv"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UsageError, match=message) as told:
        read_returned(str(path))
    assert str(path) in str(told.value)
