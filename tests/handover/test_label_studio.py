"""Label Studio: tasks against a schema from its documentation, and against the configuration they are made for."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from regrad.handover.entries import About, Entry
from regrad.handover.forms import Returned
from regrad.handover.label_studio import _address, read_label_studio
from tests.handover.conftest import HandOver
from tests.shards import NAMES

RESULT = {
    "type": "object",
    "required": ["from_name", "to_name", "type", "value"],
    "properties": {
        "from_name": {"type": "string"},
        "to_name": {"type": "string"},
        "type": {"const": "choices"},
        "value": {
            "type": "object",
            "required": ["choices"],
            "properties": {"choices": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
        },
    },
}
SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data", "predictions"],
        "additionalProperties": False,
        "properties": {
            "data": {"type": "object", "required": ["image"]},
            "predictions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["result"],
                    "additionalProperties": False,
                    "properties": {
                        "model_version": {"type": "string"},
                        "score": {"type": "number"},
                        "result": {"type": "array", "items": RESULT},
                    },
                },
            },
        },
    },
}


@pytest.mark.parametrize("images", ["inside", "files"])
def test_tasks_are_of_their_form_and_of_the_configuration(
    images: str, request: pytest.FixtureRequest, hand_over: HandOver, tmp_path: Path
) -> None:
    rows, given = hand_over(request.getfixturevalue(images), "label-studio", tmp_path / "out")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    jsonschema.validate(tasks, SCHEMA)
    view = ElementTree.parse(tmp_path / "out/config.xml").getroot()
    (picture,), (control,) = view.findall("Image"), view.findall("Choices")
    offered = [choice.attrib["value"] for choice in control]
    assert offered == list(NAMES)
    assert control.attrib["toName"] == picture.attrib["name"]
    root = tmp_path if given.copied else Path("/")  # LOCAL_FILES_DOCUMENT_ROOT
    for row, task in zip(rows, tasks, strict=True):
        address = urllib.parse.urlsplit(task["data"][picture.attrib["value"].removeprefix("$")])
        assert address.path == "/data/local-files/"
        assert (root / urllib.parse.parse_qs(address.query)["d"][0]).is_file()
        (prediction,) = task["predictions"]
        (result,) = prediction["result"]
        assert (result["from_name"], result["to_name"]) == (control.attrib["name"], picture.attrib["name"])
        assert result["value"]["choices"] == [NAMES[row["prediction"]]]
        assert prediction["score"] == pytest.approx(row["confidence"])
        assert task["data"]["regrad_entropy"] == pytest.approx(row["score"])
        assert (task["data"]["regrad_id"], task["data"]["regrad_source"]) == (row["id"], row["source"])


def test_in_a_store_an_image_is_its_uri() -> None:
    about = About("regrad", NAMES, "model", "s3://bucket/to-label-label-studio")
    for place, copied, expected in (
        ("images/a.png", True, "s3://bucket/to-label-label-studio/images/a.png"),
        ("s3://bucket/in/a b.png", False, "s3://bucket/in/a b.png"),
    ):
        entry = Entry("id", "source", 0, "a", place, copied, 0, 0, 1, "one", 0.5, 1.0)
        assert _address(entry, about) == expected


def test_exports_are_read() -> None:
    def task(*annotations: dict, **data: str) -> dict:
        return {"id": 1, "data": {"image": "s3://b/a.png", **data}, "annotations": [*annotations]}

    def choice(*names: str, cancelled: bool = False) -> dict:
        return {"was_cancelled": cancelled, "result": [{"type": "choices", "value": {"choices": [*names]}}]}

    export = [
        task(choice("cat"), choice("dog"), regrad_id="1", regrad_source="s"),
        task(choice("cat", cancelled=True), regrad_id="2"),
        task({"result": []}),
        task({"result": [{"type": "rectanglelabels", "value": {"x": 1}}]}),
        {"id": 5, "data": {"image": "/data/local-files/?d=data/a%20b.png"}, "predictions": [choice("cat")]},
    ]
    assert read_label_studio(export) == [
        Returned("1", "s", None, True, "cat"),
        Returned("1", "s", None, True, "dog"),
        Returned("2", None, None, False),
        Returned(None, None, "s3://b/a.png", False),
        Returned(None, None, "s3://b/a.png", True),
        Returned(None, None, "/data/a b.png", False),
    ]
    short = [{"id": 9, "image": "x.png", "regrad_id": "1", "label": "cat", "annotation_id": 3}]
    assert read_label_studio(short) == [Returned("1", None, None, True, "cat")]
    del short[0]["label"]
    assert read_label_studio(short) == [Returned("1", None, None, False)]
    assert read_label_studio([]) is None
    assert read_label_studio([{"file_name": "x"}]) is None
