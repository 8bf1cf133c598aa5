"""CVAT: annotations of images as XML, version 1.1, and the labels of the task that they are for.

Source: CVAT's page on its XML annotation format; its raw label constructor. A task's frames are matched by the names of
their files.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from regrad.errors import UsageError
from regrad.handover.entries import About, Entry
from regrad.handover.forms import PREDICTION, Add, Form, Returned, still_predicted
from regrad.handover.writing import finite_or_none, indented, text_into

AUTOMATIC = "auto"  # the source of what a model has annotated, also once somebody has changed its label
_CONFIDENCE = "confidence"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0
_SHAPES = ("tag", "box", "polygon", "polyline", "points", "cuboid", "ellipse", "mask", "skeleton")


@contextlib.contextmanager
def xml_listing(file: IO[bytes], about: About) -> Iterator[Add]:
    """``annotations.xml``: a ``tag`` an image, the prediction; attributes are itself, its confidence and the score."""
    frame = 0
    with text_into(file) as text:
        text.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        text.write(_meta(about))

        def add(entry: Entry) -> None:
            nonlocal frame
            predicted, name = _plain(entry.predicted), entry.place.rpartition("/")[2]
            told = {
                PREDICTION: predicted,
                _CONFIDENCE: finite_or_none(entry.confidence, 7),
                about.score: finite_or_none(entry.score),
            }
            attributes = "".join(
                f"      <attribute name={quoteattr(name)}>{'' if value is None else escape(str(value))}</attribute>\n"
                for name, value in told.items()
            )
            text.write(
                f'  <image id="{frame}" name="{name}" width="{entry.width}" height="{entry.height}">\n'
                f'    <tag label={quoteattr(predicted)} source="{AUTOMATIC}">\n{attributes}    </tag>\n'
                "  </image>\n"
            )
            frame += 1

        yield add
        text.write("</annotations>\n")


def _meta(about: About) -> str:
    attributes = "".join(
        f"<attribute><name>{escape(name)}</name><mutable>False</mutable><input_type>text</input_type>"
        "<default_value></default_value><values></values></attribute>"
        for name in (PREDICTION, _CONFIDENCE, about.score)
    )
    kind = f"<type>tag</type><attributes>{attributes}</attributes>"
    labels = "".join(f"        <label><name>{escape(_plain(name))}</name>{kind}</label>\n" for name in about.classes)
    return (
        "  <meta>\n    <task>\n      <name>regrad</name>\n      <mode>annotation</mode>\n"
        f"      <labels>\n{labels}      </labels>\n    </task>\n  </meta>\n"
    )


def raw_labels(about: About) -> dict[str, bytes]:
    """``task-labels.json``: what the task's labels are to be, for the constructor's tab *Raw*."""
    own = {"mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    attributes = [{"name": name, **own} for name in (PREDICTION, _CONFIDENCE, about.score)]
    labels = [{"name": _plain(name), "type": "tag", "attributes": attributes} for name in about.classes]
    return {"task-labels.json": indented(labels)}


def _plain(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)


def read_cvat(content: bytes) -> list[Returned]:
    """What annotations say. A tag that still is what was predicted is no label.

    Raises:
        UsageError: not XML, or none of CVAT's images.
    """
    if b"<!ENTITY" in content:  # which may stand for more than any memory holds
        raise UsageError("an XML file with entities of its own, which no export of CVAT has")
    returned: list[Returned] = []
    told: list[tuple[bool, str | None]] = []
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(content), ("start", "end")):  # noqa: S314  # see above
            if event == "start" and element.tag == "image":
                told = []
            elif event == "end" and element.tag in _SHAPES:
                told.append((not _is_predicted(element), element.get("label")))
            elif event == "end" and element.tag == "image":
                returned += _of_image(element.attrib["name"], told)
                element.clear()
    except ElementTree.ParseError as error:
        raise UsageError(f"not readable as XML: {error}") from error
    if not returned:
        raise UsageError("an XML file without images: export the task as `CVAT for images 1.1`")
    return returned


def _is_predicted(element: ElementTree.Element) -> bool:
    attributes = {attribute.get("name"): attribute.text for attribute in element.findall("attribute")}
    return still_predicted(attributes, element.get("label"))


def _of_image(name: str, told: list[tuple[bool, str | None]]) -> list[Returned]:
    returned = [Returned(None, None, name, labelled, label, not labelled) for labelled, label in told]
    return returned or [Returned(None, None, name, False)]


CVAT = Form("cvat", "annotations.xml", xml_listing, measured=True, beside=raw_labels)
