"""What every form promises."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from regrad.handover import FORMATS
from regrad.handover.forms import Returned, told_in
from regrad.handover.give import MARK
from regrad.handover.known import FORMS
from regrad.handover.labelled import Labelled
from regrad.runs.scored import Run
from tests.handover.conftest import HandOver, rows_of


def test_the_names_of_forms_are_told_without_loading_them() -> None:
    assert tuple(FORMS) == FORMATS
    assert all(form.name == name for name, form in FORMS.items())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("images", ["inside", "files"])
def test_what_is_handed_over_comes_back(
    form: str, images: str, request: pytest.FixtureRequest, hand_over: HandOver, tmp_path: Path
) -> None:
    """Not labelled, as it was written; and where it has a place for predictions, with these accepted, every image."""
    run: Run = request.getfixturevalue(images)
    rows, given = hand_over(run, form, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()} - {MARK, FORMS[form].list_name}
    assert {FORMS[form].images} & written == ({FORMS[form].images} if given.copied else set())
    assert json.loads((tmp_path / "out" / MARK).read_text())["status"] == "done"
    back = Labelled([str(tmp_path / "out" / FORMS[form].list_name)])
    known = form in ("csv", "huggingface") and images == "inside"  # which have the labels of the dataset
    assert back.contains(rows_of(run)).all() == known
    assert (len(back), back.without) == ((len(rows), 0) if known else (0, len(rows)))
    if form in ("coco", "cvat", "fiftyone"):
        accepted = Labelled([str(tmp_path / "out" / FORMS[form].list_name)], predictions=True)
        assert accepted.contains(rows_of(run)).all()
        assert "does not have" not in accepted.summary()


@pytest.mark.parametrize("form", FORMATS)
def test_a_score_that_is_no_number_is_no_number_there_either(inside: Run, form: str, tmp_path: Path) -> None:
    from regrad.handover.give import giving

    rows = rows_of(inside).slice(0, 2)
    rows = rows.set_column(rows.column_names.index("score"), "score", [[math.nan, None]])
    with giving(inside, form, "entropy", str(tmp_path / "out")) as giver:
        giver.take(rows)
    text = (tmp_path / "out" / FORMS[form].list_name).read_text()
    assert "NaN" not in text
    assert "1 image" not in Labelled([str(tmp_path / "out" / FORMS[form].list_name)]).summary()


def test_a_record_tells_its_image_by_what_it_has() -> None:
    assert told_in({"regrad_id": "1", "id": 7, "source": "s"}, True, "cat") == Returned("1", "s", None, True, "cat")
    assert told_in({"id": 7}, False, None) == Returned("7", None, None, False)
    assert told_in({"file_name": "a.png"}, True, "cat") == Returned(None, None, "a.png", True, "cat")
    assert told_in({}, True, "cat", "b.png") == Returned(None, None, "b.png", True, "cat")
