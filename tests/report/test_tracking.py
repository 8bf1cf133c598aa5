"""A report in MLflow, on a store in a folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from regrad.commands import report
from regrad.errors import UsageError
from regrad.report import tracking
from tests.conftest import WriteRun


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    mlflow = pytest.importorskip("mlflow")  # seconds, which a worker that does not run these need not wait
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    return uri


def test_numbers_and_page_become_a_run(tmp_path: Path, write_run: WriteRun, store: str) -> None:
    dice = np.random.default_rng(0)
    known = write_run("known", {"regrad": dice.normal(size=120)}, labels=[row % 10 for row in range(120)])
    unknown = write_run("odd", {"regrad": dice.normal(2, size=60)})
    arguments = ["--id", known, "--ood", f"far away!={unknown}", "--output", str(tmp_path / "report"), "--top", "2"]
    assert report.main([*arguments, "--reference", known, "--mlflow", "night"]) == 0
    import mlflow

    client = mlflow.MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("night").experiment_id])
    numbers = json.loads((tmp_path / "report/report.json").read_text())
    separation = numbers["scores"]["regrad"]["ood"]["far away!"]
    assert run.data.metrics["regrad.ood.far away_.auroc"] == separation["auroc"]
    assert run.data.metrics["id.accuracy"] == numbers["id"]["accuracy"] == 1
    assert run.data.metrics["doubtful.share"] == numbers["doubtful"]["share"] == 0
    assert run.data.metrics["accuracy_estimate.accuracy"] == numbers["accuracy_estimate"]["accuracy"] == 1
    assert run.data.metrics["flagged.in-distribution"] == numbers["rates"]["in-distribution"]["share"]
    assert not any(name.startswith("regrad.curves") for name in run.data.metrics)
    assert run.data.params["model.spec"] == "tests:network"
    assert run.data.params["sigma"] == "0.02"
    assert sorted(item.path for item in client.list_artifacts(run.info.run_id)) == ["report.html", "report.json"]
    page = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.html")
    assert page == (tmp_path / "report/report.html").read_text()


def test_a_folder_without_a_report_is_named(tmp_path: Path, store: str) -> None:
    with pytest.raises(UsageError, match=r"report\.json: no such file; give the --output of regrad report"):
        tracking.log_report(str(tmp_path), "night")
