"""Which images are labelled by now: by every way that a list may tell an image, and how many it could not tell."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pytest

from regrad.errors import UsageError
from regrad.handover.entries import stems
from regrad.handover.labelled import Labelled, labels_given
from regrad.runs.scored import Run
from tests.handover.conftest import rows_of

ROWS = pa.table(
    {
        "id": ["a/1.png", "a/2.png", "a/3.png", "a/1.png"],
        "source": ["/data/in", "/data/in", "/data/in", "s3://b/x.tar"],
    }
)


def labelled(path: Path, *lines: str) -> Labelled:
    path.write_text("\n".join(lines) + "\n")
    return Labelled([str(path)])


def test_every_way_to_tell_an_image(tmp_path: Path) -> None:
    own = stems(ROWS)
    for name, lines, expected in (
        ("id", ("id", "a/1.png"), [True, False, False, True]),
        ("both", ("id,source", "a/1.png,/data/in"), [True, False, False, False]),
        ("relative", ("file", "a/2.png"), [False, True, False, False]),
        ("path", ("file", "/data/in/a/3.png"), [False, False, True, False]),
        ("uri", ("file", "s3://b/x.tar/a/1.png"), [False, False, False, True]),
        ("copy", ("file", f"images/{own[3]}.png"), [False, False, False, True]),
        ("stem", ("file", own[0]), [True, False, False, False]),
        ("another's", ("file", own[0][:-1] + ("0" if own[0][-1] != "0" else "1")), [False] * 4),
        ("both ways", ("id,source", "a/1.png,s3://b/x.tar", "a/2.png,"), [False, True, False, True]),
    ):
        found = labelled(tmp_path / name, *lines)
        assert found.contains(ROWS).tolist() == expected, name
        assert found.contains(ROWS.slice(2, 2)).tolist() == expected[2:], name
        assert ("does not have" in found.summary()) != any(expected), name


def test_no_list_leaves_nothing_out() -> None:
    assert Labelled().contains(ROWS).tolist() == [False] * 4
    assert len(Labelled()) == 0


def test_what_it_could_not_tell_and_what_it_told_twice(tmp_path: Path) -> None:
    given = labelled(
        tmp_path / "labels.csv",
        "id,source,label",
        *("a/1.png,/data/in,cat", "a/1.png,/data/in,dog", "a/2.png,/data/in,cat", "a/2.png,/data/in,cat"),
        *("a/3.png,/data/in,", "nowhere,/data/in,cat", ",,"),
    )
    assert given.contains(ROWS.slice(0, 2)).tolist() == [True, True]
    assert given.contains(ROWS.slice(2)).tolist() == [False, False]
    assert given.summary() == (
        f"--labelled {tmp_path}/labels.csv (CSV): 3 labelled images, 1 image without a label, 1 that the run does not "
        "have, 2 labelled more than once, 1 of them differently"
    )


def test_predictions_are_labels_where_that_is_said(tmp_path: Path) -> None:
    target = {"label": 0, "confidence": 0.5}
    document = {"classes": ["cat"], "labels": {"a/1.png": target, "a/2.png": 0, "a/3.png": None}}
    (tmp_path / "labels.json").write_text(json.dumps(document))
    assert Labelled([str(tmp_path / "labels.json")]).contains(ROWS).tolist() == [False, True, False, False]
    accepted = Labelled([str(tmp_path / "labels.json")], predictions=True)
    assert accepted.contains(ROWS).tolist() == [True, True, False, True]
    assert accepted.without == 1


def test_several_lists_are_one(tmp_path: Path) -> None:
    for name, line in (("a.csv", "a/1.png,s3://b/x.tar,cat"), ("b.csv", "a/2.png,/data/in,cat")):
        (tmp_path / name).write_text(f"id,source,label\n{line}\na/1.png,/data/in,{name}\n")
    both = Labelled([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert both.contains(ROWS).tolist() == [True, True, False, True]
    assert both.summary() == (
        f"--labelled {tmp_path}/a.csv (CSV), {tmp_path}/b.csv (CSV): 3 labelled images, 1 labelled more than once, "
        "1 of them differently"
    )


def test_labels_become_classes_of_the_model(inside: Run, tmp_path: Path) -> None:
    rows = rows_of(inside).sort_by([("source", "ascending"), ("row", "ascending")])
    ids, sources = (rows[name].to_pylist() for name in ("id", "source"))
    given = ["three", "cow", "7", "two", "two"]
    places = [0, 5, 11, 20, 20]
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "source", "label"])
        writer.writerows([ids[place], sources[place], label] for place, label in zip(places, given, strict=True))
        writer.writerows([ids[9], sources[9], label] for label in ("one", "two"))
    told = labels_given(inside, Labelled([str(tmp_path / "labels.csv")])).sort_by(
        [("source", "ascending"), ("row", "ascending")]
    )
    assert told.column_names == ["id", "source", "row", "label", "class"]
    assert told["id"].to_pylist() == [ids[place] for place in (0, 5, 9, 11, 20)]
    assert told["row"].to_pylist() == [rows["row"][place].as_py() for place in (0, 5, 9, 11, 20)]
    assert told["label"].to_pylist() == ["three", "cow", None, "7", "two"]
    assert told["class"].to_pylist() == [3, None, None, 7, 2]
    assert len(labels_given(inside, Labelled())) == 0


def test_what_cannot_be_read_is_refused_by_its_flag(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^--labelled {tmp_path}/none\.csv: no such file"):
        Labelled([str(tmp_path / "none.csv")])
