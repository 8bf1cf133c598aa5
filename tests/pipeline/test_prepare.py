"""Before the first image: arguments, estimates, and what a job is told. Refusals and resumption: test_run.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from regrad.errors import UsageError
from regrad.ledger import commit
from regrad.pipeline import prepare as module
from regrad.pipeline.options import Options, parse
from regrad.pipeline.prepare import expected_images, model_arguments, plan_again, prepare, scorer_arguments
from regrad.pipeline.run import execute, score_here
from regrad.settings.scoring import SCORER
from tests.shards import build, digits, write_folder, write_parquet, write_tar

MODEL = ("--model", "tests.shards:build", "--samples", "2")


def options(*arguments: Any) -> Options:
    return parse([*map(str, arguments), *MODEL], "score", None)


def test_a_local_file_is_named_so_that_every_worker_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = model_arguments(options("in", "--output", "out", "--weights", "w.safetensors", "--image-size", "8x9"))
    assert given["spec"] == "tests.shards:build"
    assert (given["weights"], given["image_size"]) == (str(tmp_path / "w.safetensors"), [8, 9])
    assert model_arguments(options("in", "--output", "out"))["weights"] is None
    far = model_arguments(options("in", "--output", "out", "--weights", "s3://bucket/w"))
    assert far["weights"] == "s3://bucket/w"
    temperatures = {"c.json": str(tmp_path / "c.json"), "s3://bucket/c.json": "s3://bucket/c.json", "2": 2.0}
    for flag, wanted in temperatures.items():
        assert model_arguments(options("in", "--output", "out", "--temperature", flag))["temperature"] == wanted


def test_the_order_of_scores_means_nothing() -> None:
    orders = ("entropy,regrad", "regrad,entropy")
    first, second = (scorer_arguments(options("in", "--output", "o", "--scores", order)) for order in orders)
    assert first == second
    assert first.keys() == {option.key for option in SCORER}


def test_a_job_is_told_all_that_a_worker_needs(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(40))
    safetensors.torch.save_file(build()[0].state_dict(), tmp_path / "w.safetensors")
    arguments = (source, "--output", tmp_path / "out", "--weights", tmp_path / "w.safetensors", "--unit-rows", 25)
    job = prepare(options(*arguments, "--batch-size", 7, "--max-pixels", 999))
    task = job.task
    assert (task.output, task.batch_size, task.max_pixels) == (str(tmp_path / "out"), 7, 999)
    assert task.fingerprint == job.classifier.fingerprint
    assert task.scorer["plan"] == job.scorer.plan
    assert task.provenance["model"] == {"spec": "tests.shards:build", "fingerprint": task.fingerprint}
    assert task.provenance["config"] == job.run["config"]
    assert [unit.rows for unit in job.plan.pending] == [25, 15]
    assert not (tmp_path / "out").exists()  # nothing is written


def test_a_plan_is_taken_over_from_the_output_and_made_again_for_what_has_changed(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    arguments = (source, "--output", tmp_path / "out", "--scores", "regrad")
    first = prepare(options(*arguments))
    execute(first, score_here)
    again = prepare(options(*arguments))
    assert again.scorer.plan == first.scorer.plan
    assert again.plan.pending == ()
    assert again.counts["rows_scored"] == 20
    write_parquet(tmp_path / "in.parquet", digits(22))
    plan = plan_again(again, again.committed).plan
    assert [unit.rows for unit in plan.pending] == [22]
    assert set(plan.obsolete) == again.committed


def test_where_nothing_is_left_to_score_no_engine_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    arguments = options(source, "--output", tmp_path / "out", "--scores", "regrad", "--embeddings")
    first = prepare(arguments)
    execute(first, score_here)

    def build_one(*_: Any, **__: Any) -> None:
        raise UsageError("an engine is built")

    with monkeypatch.context() as without:
        without.setattr(module, "Scorer", build_one)
        again = prepare(arguments)
        assert execute(again, score_here).exit_code == 0
        with pytest.raises(UsageError, match="an engine is built"):
            prepare(replace(arguments, inputs=(*arguments.inputs, write_parquet(tmp_path / "b.parquet", digits(3)))))
    assert again.run["plan"] == again.task.scorer["plan"] == first.scorer.plan
    assert again.run["model"] == first.run["model"]
    assert again.run["model"]["embedding_width"] == first.scorer.embedding_width
    asked = prepare(arguments)
    assert asked.scorer.plan == first.scorer.plan
    assert asked.scorer is asked.scorer  # built once


def test_units_that_another_output_holds_are_left_alone(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    arguments = (source, "--output", tmp_path / "out", "--unit-rows", 10, "--scores", "entropy")
    first, second = prepare(options(*arguments)).plan.pending
    job = prepare(options(*arguments), commit.Ledger(str(tmp_path / "another"), [first.key]))
    assert [unit.key for unit in job.plan.pending] == [second.key]
    assert plan_again(job, set()).plan.pending == job.plan.pending


def test_how_many_images_are_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def expected(*inputs: str, thorough: bool = False) -> tuple[int, bool]:
        asked = options(*inputs, "--output", tmp_path / "out", "--scores", "entropy")
        return expected_images(prepare(asked).plan.pending, thorough=thorough)

    table = write_parquet(tmp_path / "a.parquet", digits(30))
    folder = write_folder(tmp_path / "folder", digits(12))
    tars = [write_tar(tmp_path / f"{number}.tar", digits(10 + 10 * number)) for number in range(3)]
    assert expected(table, folder) == (42, True)
    about, exact = expected(table, *tars)
    assert not exact
    assert abs(about - 90) <= 12
    assert expected(table, *tars, thorough=True) == (90, True)
    monkeypatch.setattr(module, "_COUNTED", 2)
    assert not expected(table, *tars, thorough=True)[1]  # too many to count


def test_an_input_without_an_image_is_refused(tmp_path: Path) -> None:
    empty = write_tar(tmp_path / "empty.tar", [])
    with pytest.raises(UsageError, match=r"empty\.tar: no image in the input"):
        prepare(options(empty, "--output", tmp_path / "out"))
    prepare(options(empty, write_tar(tmp_path / "a.tar", digits(1)), "--output", tmp_path / "out"))
