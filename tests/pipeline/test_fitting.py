"""What scores need of training data: fitted once for an output, kept there, and part of its configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrad import table
from regrad.errors import UsageError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.run import execute, score_here
from tests.pipeline.test_run import ARGUMENTS, run_json
from tests.shards import digits, write_parquet

FITTED_SCORES = {"posterior": "laplace", "statistics": "knn"}
of_each_fit = pytest.mark.parametrize("name", FITTED_SCORES)


def fitting_job(tmp_path: Path, name: str, fit_data: str, *more: str) -> Job:
    source = str(tmp_path / "in.parquet")
    if not Path(source).exists():
        write_parquet(tmp_path / "in.parquet", digits(20))
    arguments = [*ARGUMENTS[:2], "--scores", FITTED_SCORES[name], "--fit-data", fit_data, *more]
    return prepare(parse([source, "--output", str(tmp_path / "out"), *arguments], "", None))


@of_each_fit
def test_what_scores_need_of_training_data_is_fitted_once_and_kept(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = write_parquet(tmp_path / "train.parquet", digits(40))
    fitting_job(tmp_path, name, training, "--dry-run")
    assert not (tmp_path / "out").exists()
    first = execute(fitting_job(tmp_path, name, training), score_here)
    assert (first.exit_code, first.counts["rows_scored"]) == (0, 20)
    assert min(table.read(str(tmp_path / "out"))[FITTED_SCORES[name]].to_pylist()) > 0
    assert len(list((tmp_path / "out").glob(f"{name}-*.safetensors"))) == 1
    assert len(run_json(tmp_path / "out")["plan"][name]) == 16
    for place in ("regrad.scores.draws.posterior.fit", "regrad.pipeline.fitting.fit_statistics"):
        monkeypatch.setattr(place, lambda *_: pytest.fail("fitted again"))
    assert fitting_job(tmp_path, name, training).plan.pending == ()


@of_each_fit
def test_other_training_data_are_another_configuration(tmp_path: Path, name: str) -> None:
    training = write_parquet(tmp_path / "train.parquet", digits(40))
    execute(fitting_job(tmp_path, name, training), score_here)
    write_parquet(tmp_path / "train.parquet", digits(50))
    with pytest.raises(UsageError, match=rf"another configuration: what --fit-data holds \({name}"):
        fitting_job(tmp_path, name, training)
    assert len(fitting_job(tmp_path, name, training, "--replace").plan.pending) == 1


@of_each_fit
def test_scores_without_usable_training_data_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"--scores {FITTED_SCORES[name]}: needs --fit-data"):
        fitting_job(tmp_path, name, "")
    wrong = [(key, image, 99) for key, image, _ in digits(5)]
    with pytest.raises(UsageError, match=r"wrong\.parquet: 5 of 5 labels are missing or outside 0\.\.9"):
        fitting_job(tmp_path, name, write_parquet(tmp_path / "wrong.parquet", wrong))


def test_another_structure_of_the_posterior_is_fitted_anew(tmp_path: Path) -> None:
    training = write_parquet(tmp_path / "train.parquet", digits(40))
    for structure in ("last", "all"):
        job = fitting_job(tmp_path, "posterior", training, "--fit-structure", structure, "--replace")
        assert execute(job, score_here).exit_code == 0
    assert len(list((tmp_path / "out").glob("posterior-*.safetensors"))) == 2
