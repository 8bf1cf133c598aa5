"""Images through the score job: rows in the order of the images, and runs that go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from regrad import table
from regrad.experiments.material import image_sets, models
from regrad.experiments.measured import scoring
from regrad.experiments.measured.scoring import Setting, Study, scored
from regrad.pipeline.prepare import Job
from tests.experiments.digits import write_packs

SETTING = Setting("small", ("entropy",), {"samples": "0"})


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """An untrained network for MNIST, digits for MNIST and for Fashion-MNIST, shards of eight images."""
    write_packs(tmp_path / "data", mnist_train=slice(0, 60), mnist_test=slice(60, 200), fmnist_test=slice(200, 300))
    recipe = models.Recipe("mnist-train.parquet", epochs=1, limit=30)
    small = models.Model("small", "regrad.networks:mnist_cnn", "mnist-train.parquet", recipe=recipe)
    monkeypatch.setitem(models.MODELS, "small", small)
    monkeypatch.setattr(image_sets, "SHARD_ROWS", 8)
    return Study(str(tmp_path / "data"), str(tmp_path / "out"), images=20, seeds=1)


def test_the_known_set_comes_first_and_images_in_their_order(study: Study) -> None:
    told = scored(study, "small", 0, ["mnist", "fmnist", "svhn"], SETTING)
    assert list(told) == ["mnist", "fmnist"]  # no pack of the third
    rows = table.read(study.place("scores", "small", "seed-0", "small"))
    held = {(row["source"], row["row"]): row["entropy"] for row in rows.to_pylist()}
    for name, columns in told.items():
        assert columns.keys() == {"label", "prediction", "confidence", "entropy"}
        shards = image_sets.shards(name, study.packs, study.place("images"), study.images)
        expected = [
            held[shard, row] for shard in shards for row in range(pyarrow.parquet.read_metadata(shard).num_rows)
        ]
        np.testing.assert_array_equal(columns["entropy"], expected[: study.images])  # shards are whole
        assert len(columns["entropy"]) == 20


def test_what_is_there_is_taken_without_computing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Study(study.data, study.output, images=20, seeds=1, compute=False)
    assert scored(idle, "small", 0, ["mnist"], SETTING) == {}
    first = scored(study, "small", 0, ["mnist"], SETTING)
    monkeypatch.setattr(scoring, "execute", lambda *_: pytest.fail("scored again"))
    again = scored(study, "small", 0, ["mnist"], SETTING)
    held = scored(idle, "small", 0, ["mnist"], SETTING)
    for told in (again, held):
        np.testing.assert_array_equal(told["mnist"]["entropy"], first["mnist"]["entropy"])


def test_rows_up_to_the_first_that_is_missing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    real = scoring.score_here

    def all_but_the_second_shard(job: Job) -> Iterator[Any]:
        first, second, third = job.plan.pending
        assert first.source < second.source < third.source
        yield from real(replace(job, plan=replace(job.plan, pending=(first, third))))
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "score_here", all_but_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        scored(study, "small", 0, ["mnist"], SETTING)
    monkeypatch.setattr(scoring, "score_here", real)
    idle = Study(study.data, study.output, images=20, seeds=1, compute=False)
    part = scored(idle, "small", 0, ["mnist"], SETTING)
    assert {len(column) for column in part["mnist"].values()} == {8}
    whole = scored(study, "small", 0, ["mnist"], SETTING)
    np.testing.assert_array_equal(part["mnist"]["entropy"], whole["mnist"]["entropy"][:8])


def test_more_images_are_added_to_what_is_there(study: Study) -> None:
    first = scored(study, "small", 0, ["mnist"], SETTING)
    more = Study(study.data, study.output, images=30, seeds=1)
    told = scored(more, "small", 0, ["mnist"], SETTING)
    np.testing.assert_array_equal(told["mnist"]["entropy"][:20], first["mnist"]["entropy"])
    assert len(told["mnist"]["entropy"]) == 30


def test_a_study_says_where_its_scoring_goes_on(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(scoring, "execute", lambda job, score_units: asked.append(score_units))
    for on_ray in (False, True):
        scored(Study(study.data, study.output, images=20, seeds=1, on_ray=on_ray), "small", 0, ["mnist"], SETTING)
    assert asked == [scoring.score_here, scoring.score_on_ray]
    said = capsys.readouterr().err
    assert "scoring " in said
    assert "--scores entropy --seed 0 --samples 0" in said
