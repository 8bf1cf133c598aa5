"""What images and classes are called when they are handed over."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from regrad.handover import entries
from regrad.runs.scored import Run
from tests.handover.conftest import STRANGE
from tests.shards import NAMES


def table(names: list[str], sources: list[str]) -> pa.Table:
    return pa.table({"id": pa.chunked_array([names]), "source": pa.chunked_array([sources])})


def test_no_two_images_share_a_name_and_none_leaves_its_folder() -> None:
    names = [*STRANGE, "", ".", "..", "con", "A.PNG", "a.png", "é", "e\u0301", "a\nb", "\\\\udcff.png"]
    rows = table(names * 2, ["s3://b/one.tar"] * len(names) + ["s3://b/two.tar"] * len(names))
    stems = entries.stems(rows)
    assert len({stem.casefold() for stem in stems}) == len(stems)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}-[0-9a-f]{32}", stem) for stem in stems)
    assert stems[0].startswith("escape-")


def test_a_name_depends_on_the_image_alone_and_stays_what_it_is() -> None:
    rows = table(["a/cat.png", "b", "c"], ["s3://b/one.tar", "x", "s3://b/one.tar"])
    stems = entries.stems(rows)
    assert entries.stems(rows.take([2, 0])) == [stems[2], stems[0]]
    # Of files that are out there, and will come back.
    assert stems[0] == "cat-aea0e5c8a8a5864c170b912a2c4353fc"


def test_a_name_is_told_from_others() -> None:
    (stem,) = entries.stems(table(["cat.png"], ["s"]))
    told = re.compile(entries.OWN_FILE)
    for file in (stem, f"{stem}.png", f"images/{stem}.jpeg", f"C:\\x\\{stem}.png"):
        assert told.search(file)["digest"] == stem[-32:]
    for file in ("cat.png", f"{stem}.png/other.png", f"{stem}0.png", "0123.png"):
        assert not told.search(file)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"classes": 3, "class_names": ["crane", "cat", "crane"]}, ("crane (0)", "cat", "crane (2)")),
        ({"classes": 2, "class_names": ["LABEL_0", "LABEL_1"]}, ("0", "1")),
        ({"classes": 2, "class_names": None}, ("0", "1")),
    ],
)
def test_every_class_has_a_name_of_its_own(model: dict, expected: tuple[str, ...]) -> None:
    assert entries.named_classes(Run("run", "out", {"model": model}, ("regrad",))) == expected


def test_labels_have_names() -> None:
    assert [entries.label_name(label, NAMES) for label in (3, None, 10, -1)] == ["three", None, "10", "-1"]
