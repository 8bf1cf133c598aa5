"""COCO, by its own library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regrad.handover.coco import read_coco
from regrad.handover.forms import Returned
from regrad.runs.scored import Run
from tests.handover.conftest import HandOver, lying
from tests.shards import NAMES


@pytest.mark.parametrize("images", ["inside", "files"])
def test_pycocotools_loads_it(
    images: str, request: pytest.FixtureRequest, hand_over: HandOver, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pycocotools.coco import COCO

    rows, given = hand_over(request.getfixturevalue(images), "coco", tmp_path / "out")
    loaded = COCO(str(tmp_path / "out/annotations.json"))
    assert len(loaded.getImgIds()) == given.images == len(rows)
    names = {category["id"]: category["name"] for category in loaded.loadCats(loaded.getCatIds())}
    assert list(names.values()) == list(NAMES)
    for row, image in zip(rows, loaded.loadImgs(loaded.getImgIds()), strict=True):
        content = (tmp_path / "out" / image["file_name"]).read_bytes()  # an absolute path stands for itself
        size = [8, 12] if content == lying() else [8, 8]
        assert [image["width"], image["height"]] == size
        (annotation,) = loaded.loadAnns(loaded.getAnnIds(imgIds=image["id"]))
        assert names[annotation["category_id"]] == NAMES[row["prediction"]]
        assert annotation["score"] == pytest.approx(row["confidence"])
        predicted = {"prediction": NAMES[row["prediction"]]}
        assert annotation["attributes"] == predicted | {"entropy": pytest.approx(row["score"])}
        assert annotation["bbox"] == [0, 0, *size]


def test_a_detection_is_no_label() -> None:
    document = {
        "images": [{"id": place, "file_name": f"{place}.png"} for place in (7, 8, 9, 10)],
        "categories": [{"id": 4, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"image_id": 7, "category_id": 4},
            {"image_id": 7, "category_id": 5},
            {"image_id": 8, "category_id": 5, "score": 0.5},
            {"image_id": 10, "category_id": 5, "score": 0.5, "attributes": {"prediction": "cat"}},
        ],
    }
    assert read_coco(json.loads(json.dumps(document))) == [
        Returned(None, None, "7.png", True, "cat"),
        Returned(None, None, "7.png", True, "dog"),
        Returned(None, None, "8.png", False, "dog", predicted=True),
        Returned(None, None, "9.png", False),
        Returned(None, None, "10.png", True, "dog"),
    ]
    assert read_coco({"images": [], "annotations": []}) is None
    assert read_coco([]) is None


def test_an_empty_list_is_whole(inside: Run, tmp_path: Path) -> None:
    from regrad.handover.give import giving

    with giving(inside, "coco", "entropy", str(tmp_path / "out")):
        pass
    document = json.loads((tmp_path / "out/annotations.json").read_text())
    assert (document["images"], document["annotations"]) == ([], [])
