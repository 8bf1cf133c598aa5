"""COCO: the JSON of its object detection, where a class of a whole image is a box around all of it.

Source: COCO's page on its data format; of results, that ``score`` is a detection's confidence.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import IO, Any

from regrad import storage
from regrad.handover.entries import About, Entry
from regrad.handover.forms import PREDICTION, Add, Form, Returned, anywhere, still_predicted
from regrad.handover.writing import finite_or_none, growing, one_line, text_into

_PARTS = ("images", "annotations", "categories")


@contextlib.contextmanager
def coco_listing(file: IO[bytes], about: About) -> Iterator[Add]:
    """``annotations.json``: images and categories by number from 1 on; an annotation an image, the prediction, with its
    confidence as ``score``, itself and the REGrad score among its ``attributes``.
    """
    categories = [{"id": place, "name": name} for place, name in enumerate(about.classes, 1)]
    info = {"description": f"handed over by regrad, predictions of {about.model}"}
    begin = f'{{"info": {one_line(info)},\n"licenses": [],\n"categories": {one_line(categories)},\n"images": ['
    number = 0
    with tempfile.TemporaryFile() as apart:  # two long arrays, and one file to write in order
        with (
            text_into(file) as text,
            text_into(apart) as later,
            growing(text, begin, "],\n") as write_image,
            growing(later, '"annotations": [', "]}\n") as write_annotation,
        ):

            def add(entry: Entry) -> None:
                nonlocal number
                number += 1
                size = {"width": entry.width, "height": entry.height}
                there = {} if storage.is_path(entry.place) else {"coco_url": entry.place}
                write_image(one_line({"id": number, "file_name": entry.place, **size, **there}))
                annotation = {
                    "id": number,
                    "image_id": number,
                    "category_id": entry.prediction + 1,
                    "bbox": [0, 0, entry.width, entry.height],
                    "area": entry.width * entry.height,
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": finite_or_none(entry.confidence, 7),
                    "attributes": {PREDICTION: entry.predicted, about.score: finite_or_none(entry.score)},
                }
                write_annotation(one_line(annotation))

            yield add
        apart.seek(0)
        shutil.copyfileobj(apart, file)


def read_coco(document: Any) -> list[Returned] | None:
    """What annotations say; None where ``document`` is none.

    One with a ``score`` is a detection, and no label, unless it is another than was predicted.
    """
    if not (isinstance(document, Mapping) and all(isinstance(document.get(part), list) for part in _PARTS)):
        return None
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    told = defaultdict(list)
    for annotation in document["annotations"]:
        name, sure = names.get(annotation.get("category_id")), annotation.get("score") is not None
        predicted = sure and still_predicted(annotation.get("attributes"), name, otherwise=True)
        told[annotation["image_id"]].append((not predicted, name, predicted))
    return [
        Returned(None, None, image["file_name"], *each)
        for image in document["images"]
        for each in told[image["id"]] or [(False, None, False)]
    ]


COCO = Form("coco", "annotations.json", coco_listing, refers=anywhere, measured=True)
