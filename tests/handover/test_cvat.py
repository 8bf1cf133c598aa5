"""CVAT: against a schema of its XML and of its labels, written down from its documentation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from lxml import etree

from regrad.errors import UsageError
from regrad.handover.cvat import read_cvat
from regrad.handover.entries import About, Entry
from regrad.handover.forms import Returned
from regrad.handover.known import FORMS
from regrad.runs.scored import Run
from tests.handover.conftest import HandOver
from tests.shards import NAMES

# Of "XML annotation format", version 1.1: what annotations of images have, shapes left out.
SCHEMA = """
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:element name="annotations"><xs:complexType><xs:sequence>
    <xs:element name="version" fixed="1.1"/>
    <xs:element name="meta"><xs:complexType><xs:sequence><xs:element name="task"><xs:complexType><xs:all>
      <xs:element name="name" type="xs:string"/>
      <xs:element name="mode" type="xs:string" fixed="annotation"/>
      <xs:element name="labels"><xs:complexType><xs:sequence>
        <xs:element name="label" maxOccurs="unbounded"><xs:complexType><xs:all>
          <xs:element name="name" type="xs:string"/>
          <xs:element name="type" type="xs:string" fixed="tag"/>
          <xs:element name="attributes"><xs:complexType><xs:sequence>
            <xs:element name="attribute" maxOccurs="unbounded"><xs:complexType><xs:all>
              <xs:element name="name" type="xs:string"/>
              <xs:element name="mutable"><xs:simpleType><xs:restriction base="xs:string">
                <xs:enumeration value="True"/><xs:enumeration value="False"/>
              </xs:restriction></xs:simpleType></xs:element>
              <xs:element name="input_type"><xs:simpleType><xs:restriction base="xs:string">
                <xs:enumeration value="select"/><xs:enumeration value="checkbox"/><xs:enumeration value="radio"/>
                <xs:enumeration value="number"/><xs:enumeration value="text"/>
              </xs:restriction></xs:simpleType></xs:element>
              <xs:element name="default_value" type="xs:string"/>
              <xs:element name="values" type="xs:string"/>
            </xs:all></xs:complexType></xs:element>
          </xs:sequence></xs:complexType></xs:element>
        </xs:all></xs:complexType></xs:element>
      </xs:sequence></xs:complexType></xs:element>
    </xs:all></xs:complexType></xs:element></xs:sequence></xs:complexType></xs:element>
    <xs:element name="image" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
      <xs:sequence><xs:element name="tag" minOccurs="0" maxOccurs="unbounded"><xs:complexType>
        <xs:sequence><xs:element name="attribute" minOccurs="0" maxOccurs="unbounded"><xs:complexType><xs:simpleContent>
          <xs:extension base="xs:string"><xs:attribute name="name" type="xs:string" use="required"/></xs:extension>
        </xs:simpleContent></xs:complexType></xs:element></xs:sequence>
        <xs:attribute name="label" type="xs:string" use="required"/>
        <xs:attribute name="source" type="xs:string"/>
      </xs:complexType></xs:element></xs:sequence>
      <xs:attribute name="id" type="xs:nonNegativeInteger" use="required"/>
      <xs:attribute name="name" type="xs:string" use="required"/>
      <xs:attribute name="width" type="xs:positiveInteger" use="required"/>
      <xs:attribute name="height" type="xs:positiveInteger" use="required"/>
    </xs:complexType></xs:element>
  </xs:sequence></xs:complexType>
  <xs:unique name="frames"><xs:selector xpath="image"/><xs:field xpath="@id"/></xs:unique>
  <xs:unique name="names"><xs:selector xpath="image"/><xs:field xpath="@name"/></xs:unique>
  </xs:element>
</xs:schema>
"""
# What the raw label constructor takes.
LABELS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["name", "attributes"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "type": {"enum": ["any", "tag", "rectangle", "polygon", "polyline", "points"]},
            "attributes": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "mutable", "input_type", "values"],
                    "additionalProperties": False,
                    "properties": {
                        "name": {"type": "string", "minLength": 1},
                        "mutable": {"type": "boolean"},
                        "input_type": {"enum": ["select", "checkbox", "radio", "number", "text"]},
                        "default_value": {"type": "string"},
                        "values": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    },
                },
            },
        },
    },
}


def valid(content: bytes) -> ElementTree.Element:
    etree.XMLSchema(etree.fromstring(SCHEMA)).assertValid(etree.fromstring(content))
    return ElementTree.fromstring(content)


@pytest.mark.parametrize("images", ["inside", "files"])
def test_it_is_what_cvat_documents(
    images: str, request: pytest.FixtureRequest, hand_over: HandOver, tmp_path: Path
) -> None:
    rows, _ = hand_over(request.getfixturevalue(images), "cvat", tmp_path / "out")
    document = valid((tmp_path / "out/annotations.xml").read_bytes())
    named = [element.text for element in document.findall("meta/task/labels/label/name")]
    assert named == list(NAMES)
    for row, image in zip(rows, document.findall("image"), strict=True):
        assert (tmp_path / "out/images" / image.attrib["name"]).is_file()  # frames go by the names of files
        (tag,) = image.findall("tag")
        assert (tag.attrib["label"], tag.attrib["source"]) == (NAMES[row["prediction"]], "auto")
        attributes = {each.get("name"): each.text or "" for each in tag.findall("attribute")}
        assert attributes.keys() == {"prediction", "confidence", "entropy"}
        assert attributes["prediction"] == tag.attrib["label"]
        assert float(attributes["confidence"]) == pytest.approx(row["confidence"], rel=1e-6)
        assert float(attributes["entropy"]) == pytest.approx(row["score"])
    labels = json.loads((tmp_path / "out/task-labels.json").read_text())
    jsonschema.validate(labels, LABELS)
    assert [label["name"] for label in labels] == named
    assert {each["name"] for each in labels[0]["attributes"]} == attributes.keys()


def test_names_that_xml_does_not_take_are_written_so_that_it_does() -> None:
    about = About("regrad", ("a<b>&\"'", "bell\x07"), "model", "folder")
    entry = Entry("id", "source", 0, "stem", "images/stem.png", True, 3, 4, 0, about.classes[0], 0.5, float("nan"))
    sink = io.BytesIO()
    with FORMS["cvat"].listing(sink, about) as add:
        add(entry)
    document = valid(sink.getvalue())
    assert [element.text for element in document.findall("meta/task/labels/label/name")] == ["a<b>&\"'", "bell\ufffd"]
    assert document.findall("image/tag")[0].attrib["label"] == "a<b>&\"'"
    assert [each.text for each in document.findall("image/tag/attribute")] == ["a<b>&\"'", "0.5", None]


def test_what_is_told_and_what_is_predicted() -> None:
    content = b"""<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta/>
    <image id="0" name="a.png"><tag label="cat" source="manual"/><box label="dog" xtl="1"/></image>
    <image id="1" name="b.png"><tag label="cat" source="auto"><attribute name="prediction">cat</attribute></tag></image>
    <image id="2" name="c.png"></image>
    <image id="3" name="d.png"><tag label="dog" source="auto"><attribute name="prediction">cat</attribute></tag></image>
    <image id="4" name="e.png"><tag label="dog" source="auto"><attribute name="prediction"></attribute></tag></image>
    </annotations>"""
    assert read_cvat(content) == [
        Returned(None, None, "a.png", True, "cat"),
        Returned(None, None, "a.png", True, "dog"),
        Returned(None, None, "b.png", False, "cat", predicted=True),
        Returned(None, None, "c.png", False),
        # CVAT lets the source of a tag stand when another label is given to it, and resets its attributes or not.
        Returned(None, None, "d.png", True, "dog"),
        Returned(None, None, "e.png", True, "dog"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotations><image name='a'>", "not readable as XML: .*line 1"),
        (b"<html></html>", "without images: export the task as `CVAT for images 1.1`"),
        (b"<!DOCTYPE x [<!ENTITY a 'aaaa'>]><x>&a;</x>", "with entities of its own"),
    ],
)
def test_what_is_no_export_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_cvat(content)


def test_frames_are_numbered_over_all_that_is_taken(
    inside: Run, hand_over: HandOver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regrad.handover.give._ROWS", 5)
    hand_over(inside, "cvat", tmp_path / "out")
    frames = [
        int(image.attrib["id"]) for image in valid((tmp_path / "out/annotations.xml").read_bytes()).findall("image")
    ]
    assert frames == list(range(25))
