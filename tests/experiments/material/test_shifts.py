"""Shifts: what is done to images, how nights are drawn with them, and what is kept of each draw."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from regrad.experiments.material import shifts
from regrad.experiments.material.image_sets import IMAGE_SETS
from regrad.experiments.material.packs import png
from regrad.experiments.material.shifts import CHANGES, NIGHTS, NOTHING, SHIFTS, changed, draw_shifted
from regrad.experiments.power import Drawable

CLASSES = np.arange(400) % 4


def drawable(name: str, labels: npt.NDArray[np.int64], value: float) -> Drawable:
    ids = np.array([f"{name}/{row:04}" for row in range(len(labels))])
    vectors = np.full((len(labels), 3), value, np.float16)
    return Drawable(ids, vectors, labels, labels, np.zeros(len(labels)))


def pixels(data: bytes) -> npt.NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)


def test_images_are_changed_under_their_ids() -> None:
    noise = np.random.default_rng(0).integers(20, 200, (32, 32, 3)).astype(np.uint8)
    rows = [("a", png(Image.fromarray(noise)), 3), ("b", png(Image.fromarray(noise[::-1])), 4)]
    of = {change: changed(change, rows) for change in CHANGES}
    assert {tuple((key, label) for key, _, label in made) for made in of.values()} == {(("a", 3), ("b", 4))}
    before = noise.astype(np.int64)
    for change, factor in (("brighter-3", 1.03), ("brighter-10", 1.1)):
        assert np.abs(pixels(of[change][0][1]) - factor * before).max() <= 1
    assert 0.5 < pixels(of["blurred"][0][1]).std() / before.std() < 0.95
    assert Image.open(io.BytesIO(of["jpeg-75"][0][1])).format == "JPEG"
    assert 1 < np.abs(pixels(of["jpeg-75"][0][1]) - before).mean() < 40


def test_every_shift_has_its_image_set() -> None:
    for nights in NIGHTS:
        named = {shift.image_set(nights.known) for shift in SHIFTS.values()} - {None}
        assert named <= IMAGE_SETS.keys()
        assert {f"{nights.known}-{change}" for change in CHANGES} < named
        assert nights.draws(NOTHING) > nights.draws("a-class")
        assert 2 * nights.images <= 0.9 * nights.held  # a side lacks one of ten classes at most


def test_a_night_has_as_many_other_images_as_its_shift_says() -> None:
    known, others = drawable("known", CLASSES, 0.0), drawable("others", CLASSES, 1.0)
    for name, count in (("svhn-1", 1), ("svhn-5", 5), ("svhn-10", 10), ("c100-5", 5)):
        _, night = draw_shifted(known, others, 100, SHIFTS[name], 0)
        assert (night.vectors[:, 0] == 1).sum() == count
    baseline, night = draw_shifted(known, drawable("known", CLASSES, 1.0), 100, SHIFTS["blurred"], 0)
    assert (night.vectors == 1).all()
    assert not np.isin(night.ids, baseline.ids).any()


def test_another_class_is_missing_each_time_and_the_baseline_is_that_of_all_shifts() -> None:
    known = drawable("known", CLASSES, 0.0)
    drawn = {name: [draw_shifted(known, None, 100, SHIFTS[name], number) for number in range(4)] for name in SHIFTS}
    for number in range(4):
        assert len({tuple(of_shift[number][0].ids) for of_shift in drawn.values()}) == 1
        counts = {name: np.bincount(drawn[name][number][1].labels, minlength=4) for name in drawn}
        assert counts["a-class"][number] == 0
        assert 8 <= counts["half-a-class"][number] <= 20  # 14 of 100, where the others have 28 or 29
        assert counts[NOTHING].min() > 15
        assert counts["a-class"].sum() == counts["half-a-class"].sum() == 100
    assert len({tuple(baseline.ids) for baseline, _ in drawn[NOTHING]}) == 4


def test_draws_are_kept_for_what_they_are_of_alone(tmp_path: Path) -> None:
    file = shifts.draws_file(str(tmp_path), 200, "blurred", "someone")
    assert shifts.kept_draws(file, {"held": 3}) == []
    shifts.keep_draws(file, {"held": 3}, [[0.5, 0.1]])
    assert shifts.kept_draws(file, {"held": 3}) == [[0.5, 0.1]]
    assert shifts.kept_draws(file, {"held": 4}) == []
    assert shifts.kept_draws(shifts.draws_file(str(tmp_path), 200, "blurred", "another"), {"held": 3}) == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_draw_is_the_same_again(number: int) -> None:
    known = drawable("known", CLASSES, 0.0)
    first, again = (draw_shifted(known, None, 50, SHIFTS["half-a-class"], number) for _ in range(2))
    assert [side.ids.tolist() for side in first] == [side.ids.tolist() for side in again]
