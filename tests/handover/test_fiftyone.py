"""FiftyOne: against a schema of its labels, and its importer's rule where images are, from its documentation."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from regrad.handover.fiftyone import read_fiftyone
from regrad.handover.forms import Returned
from tests.handover.conftest import HandOver
from tests.shards import NAMES

TARGET = {
    "oneOf": [
        {"type": "null"},
        {
            "type": "object",
            "required": ["label"],
            "additionalProperties": False,
            "properties": {
                "label": {"type": "integer", "minimum": 0},
                "confidence": {"type": ["number", "null"]},
                "attributes": {"type": "object"},
            },
        },
    ]
}
SCHEMA = {
    "type": "object",
    "required": ["classes", "labels"],
    "additionalProperties": False,
    "properties": {
        "classes": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "labels": {"type": "object", "additionalProperties": TARGET},
    },
}


@pytest.mark.parametrize("images", ["inside", "files"])
def test_its_importer_would_find_every_image_and_class(
    images: str, request: pytest.FixtureRequest, hand_over: HandOver, tmp_path: Path
) -> None:
    rows, given = hand_over(request.getfixturevalue(images), "fiftyone", tmp_path / "out")
    document = json.loads((tmp_path / "out/labels.json").read_text())
    jsonschema.validate(document, SCHEMA)
    below = {path.stem: path for path in (tmp_path / "out/data").glob("*")}
    assert len(below) == given.copied == {"inside": 25, "files": 0}[images]
    for row, (key, target) in zip(rows, document["labels"].items(), strict=True):
        path = Path(key) if Path(key).is_absolute() else below[key]
        assert path.is_file()
        assert document["classes"][target["label"]] == NAMES[row["prediction"]]
        assert target["confidence"] == pytest.approx(row["confidence"])
        predicted = {"prediction": NAMES[row["prediction"]]}
        assert target["attributes"] == predicted | {"entropy": pytest.approx(row["score"])}


def test_what_it_exports_is_read() -> None:
    document = {
        "classes": ["cat", "dog"],
        "labels": {
            "a": 1,
            "b": None,
            "c": {"label": 0, "confidence": 0.5},
            "d": {"label": 0, "confidence": None},
            "e": [0, 1],
            "f": "bird",
            "g": {"label": 1, "confidence": 0.5, "attributes": {"prediction": "cat"}},
            "h": {"label": 0, "confidence": 0.5, "attributes": {"prediction": "cat"}},
        },
    }
    assert read_fiftyone(document) == [
        Returned(None, None, "a", True, "dog"),
        Returned(None, None, "b", False),
        Returned(None, None, "c", False, "cat", predicted=True),
        Returned(None, None, "d", True, "cat"),
        Returned(None, None, "e", True, "cat"),
        Returned(None, None, "e", True, "dog"),
        Returned(None, None, "f", True, "bird"),
        Returned(None, None, "g", True, "dog"),
        Returned(None, None, "h", False, "cat", predicted=True),
    ]
    named = read_fiftyone({"classes": None, "labels": {"a": "cat"}})
    assert named == [Returned(None, None, "a", True, "cat")]
    assert read_fiftyone({"labels": ["a"]}) is None
