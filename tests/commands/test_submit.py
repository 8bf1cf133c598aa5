"""`regrad submit` against a cluster as `ray start` makes it: a head, a node, token authentication."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from regrad import table
from regrad.cluster import metrics
from regrad.commands.submit import main
from tests.data import ROOT
from tests.installed import Installed
from tests.services import RayCluster
from tests.shards import digits, write_parquet, write_tar

MODEL = ("--model", "tests.shards:build", "--scores", "entropy")


def submit(cluster: RayCluster, *arguments: Any, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "regrad", "submit", "--address", cluster.address, *map(str, arguments)]
    settings = {**os.environ, "RAY_ADDRESS": "http://127.0.0.1:9", **cluster.environment, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def score(*arguments: Any, program: tuple[Any, ...] = (sys.executable, "jobs/score.py")) -> tuple[Any, ...]:
    return ("--", *program, *arguments)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_exit_codes_come_through(tmp_path: Path, ray_cluster: RayCluster, installed: Installed) -> None:
    source = write_tar(tmp_path / "in.tar", [*digits(), ("bad.png", b"no image", 1)])
    # Four CPUs may be had for workers: two of two CPUs do not fit on one node.
    run = (source, *MODEL, "--num-workers", "2", "--unit-rows", "10", "--output")
    code, out, err = ended(submit(ray_cluster, *score(*run, tmp_path / "out", "--max-quarantined", "1")))
    assert code == 0, out + err
    assert "holds 60 scores and 1 quarantined rows" in out
    assert re.search(r"^sending \.: \d+ files, .* MB, packed .* MB; the largest: ", err)
    assert err.splitlines()[-1].endswith(": SUCCEEDED, exit code 0")
    content = json.loads((tmp_path / "out/run.json").read_text())
    assert (content["status"], content["exit_code"], content["counts"]["rows_scored"]) == ("done", 0, 60)
    assert table.read(str(tmp_path / "out")).num_rows == 60

    command = (installed.folder / "bin/regrad", "score")  # where the nodes have it
    too_many, wrong = (
        submit(ray_cluster, *score(*run, tmp_path / "out", program=command)),
        submit(ray_cluster, *score(*run, tmp_path / "wrong", "--sigma", "-1")),
    )
    code, out, err = ended(too_many)
    assert code == 4, out + err
    assert json.loads((tmp_path / "out/run.json").read_text())["exit_code"] == 4
    code, out, err = ended(wrong)
    assert code == 2, out + err
    assert "error: --sigma '-1': must be" in out
    assert not (tmp_path / "wrong").exists()


def test_ctrl_c_stops_a_run_that_showed_its_metrics(tmp_path: Path, ray_cluster: RayCluster) -> None:
    rows = [(f"{row}", image, label) for row, (_, image, label) in enumerate([*digits(), ("", b"bad", 0)] * 400)]
    source = write_parquet(tmp_path / "in.parquet", rows)
    settings = ("--model", "tests.shards:build_slow", "--scores", "entropy", "--unit-rows", "100", "--num-workers", "1")
    process = submit(ray_cluster, *score(source, *settings, "--output", tmp_path / "out"))
    end, samples = time.monotonic() + 200, list[Any]()
    while not metrics.exported() <= {sample.name for sample in samples}:
        assert process.poll() is None, ended(process)
        assert time.monotonic() < end, {sample.name for sample in samples}
        time.sleep(0.5)
        found = [sample for url in ray_cluster.metrics for sample in scrape(url)]
        samples = [sample for sample in found if sample.labels.get("output") == str(tmp_path / "out")]
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    found = re.search(r"submitted (\w+)", err)
    assert found
    assert f"{found[1]}: STOPPED; what was committed stays" in err
    again, _, told = ended(submit(ray_cluster, "--follow", found[1]))
    assert again == 143
    assert f"{found[1]}: STOPPED, exit code 143: " in told
    content = json.loads((tmp_path / "out/run.json").read_text())
    assert (content["status"], content["exit_code"]) == ("interrupted", 143)

    images = total(samples, "ray_regrad_images_total", "outcome")
    assert images["scored"] >= 60 > images["quarantined"] >= 1
    seconds = total(samples, "ray_regrad_worker_seconds_total", "state")
    assert {metrics.LOADING, metrics.READING, metrics.SCORING} <= seconds.keys()
    assert total(samples, "ray_regrad_unit_seconds_count", "output")[str(tmp_path / "out")] >= 1


def scrape(url: str) -> list[Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        ours = "\n".join(line for line in answer.read().decode().splitlines() if "ray_regrad_" in line)
    return [sample for family in text_string_to_metric_families(f"{ours}\n") for sample in family.samples]


def total(samples: list[Any], name: str, label: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in samples:
        if sample.name == name:
            found[sample.labels[label]] = found.get(sample.labels[label], 0.0) + sample.value
    return found


def test_an_interrupt_can_leave_the_job_running(ray_cluster: RayCluster) -> None:
    command = "import time; print('begun', flush=True); time.sleep(8)"
    process = submit(ray_cluster, "--on-interrupt", "detach", "--", sys.executable, "-c", command)
    assert process.stdout is not None
    assert any(line == "begun\n" for line in process.stdout)
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    found = re.search(r"SIGINT: (\w+) goes on; follow it with: regrad submit --follow (\w+)", err)
    assert found
    again, out, told = ended(submit(ray_cluster, "--follow", found[1]))
    assert (again, told.splitlines()[-1]) == (0, f"{found[1]}: SUCCEEDED, exit code 0")
    assert "begun" in out


def test_detached_with_variables_of_its_own(ray_cluster: RayCluster) -> None:
    command = "import os; raise SystemExit(int(os.environ['CODE']))"
    arguments = ("--detach", "--env", "CODE=3", "--driver-cpus", "1", "--", sys.executable, "-c", command)
    code, out, err = ended(submit(ray_cluster, *arguments))
    assert (code, out) == (0, "")
    found = re.search(r"follow it with: regrad submit --follow (\w+)", err)
    assert found
    assert ended(submit(ray_cluster, "--follow", found[1]))[0] == 3


def test_a_wrong_token_is_one_line(ray_cluster: RayCluster) -> None:
    code, out, err = ended(submit(ray_cluster, "--", "true", RAY_AUTH_TOKEN="wrong"))
    assert (code, out) == (2, "")
    assert "wants another token: set RAY_AUTH_MODE=token" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--address", "http://127.0.0.2:9", "--", "true"), 1, "no job server at http://127.0.0.2:9"),
        (("--address", "http://127.0.0.2:9"), 2, "give either a command behind `--` or --follow JOB"),
        (("--follow", "job", "--", "true"), 2, "give either a command behind `--` or --follow JOB"),
        (("--mistyped", "--", "true"), 2, "--help lists the options"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # which the job sets
    assert main([*arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
