"""How often drift is found: on made-up runs of which it is known how much of it there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from regrad.errors import UsageError
from regrad.experiments import power
from regrad.experiments.power import TESTS, draw_night, hold_embeddings, tell_power
from regrad.runs.embeddings import EmbeddingRows, embedding_rows
from regrad.runs.scored import Run, load_run

CLASSES = np.arange(240) % 4


@pytest.fixture
def runs(write_run: Any) -> dict[str, str]:
    """The same images as they are, and moved."""
    rng = np.random.default_rng(0)
    vectors = 3 * rng.standard_normal((4, 6))[CLASSES] + rng.standard_normal((240, 6))
    given = {"predictions": CLASSES.tolist(), "labels": CLASSES.tolist()}
    return {
        name: write_run("images", {"regrad": rng.random(240)}, folder=name, embeddings=vectors + by, **given)
        for name, by in (("plain", 0.0), ("moved", 1.5))
    }


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, list[float]]:
    assert tell_power([*arguments, "--repetitions", "8", "--permutations", "39"]) == 0
    rows = [line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {name.strip(): float(value) for name, value in rows}


def test_what_has_changed_is_found_and_what_has_not_is_not(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    same = told(capsys, runs["plain"], "--sizes", "60")
    assert same.pop("images") == 60
    assert [*same] == [f"{test}, {level}" for test in TESTS for level in ("0.05", "0.01")]
    assert max(same.values()) <= 0.5
    moved = told(capsys, runs["plain"], runs["moved"], "--sizes", "60")
    assert (moved["classifier, 0.05"], moved["MMD, 0.05"], moved["predicted classes, 0.05"]) == (1, 1, 0)
    missing = told(capsys, runs["plain"], "--sizes", "60", "--without", "2")
    assert missing["classes: shares, 0.05"] == missing["predicted classes, 0.05"] == 1


def test_no_image_is_on_both_sides_or_twice(runs: dict[str, str]) -> None:
    known, moved = (hold_embeddings(load_run(name, runs[name]), "regrad") for name in ("plain", "moved"))
    baseline, night = draw_night(known, moved, 100, 0.3, None, np.random.default_rng(0))
    names = [*baseline.ids, *night.ids]
    assert len({*names}) == len(names) == 200
    places = {name: row for row, name in enumerate(known.ids)}
    rows = np.array([places[name] for name in night.ids])
    by = night.vectors.astype(float) - known.vectors[rows]
    assert np.isclose(by.mean(1), 1.5, atol=0.01).sum() == 30
    assert (by[:70] == 0).all()
    assert night.predictions.tolist() == known.predictions[rows].tolist()
    without = draw_night(known, None, 80, 1.0, 3, np.random.default_rng(0))
    assert [(side.labels == 3).any() for side in without] == [True, False]
    partly = draw_night(known, None, 80, 1.0, 3, np.random.default_rng(0), left=0.5)
    assert 0 < (partly[1].labels == 3).sum() < (partly[0].labels == 3).sum()
    with pytest.raises(UsageError, match="121 images are to be drawn, and there are 119 left"):
        draw_night(known, None, 121, 1.0, None, np.random.default_rng(0))


def test_embeddings_stand_beside_the_scores_of_their_image(
    runs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run("plain", runs["plain"])
    held = hold_embeddings(run, "regrad")

    def backwards(run: Run) -> Iterator[EmbeddingRows]:
        for some in reversed([*embedding_rows(run)]):
            yield EmbeddingRows(some.known_by.take(np.arange(len(some.vectors))[::-1]), some.vectors[::-1])

    monkeypatch.setattr(power, "embedding_rows", backwards)
    assert hold_embeddings(run, "regrad").vectors.tolist() == held.vectors.tolist()
    assert held.ids.tolist() == sorted(held.ids)
