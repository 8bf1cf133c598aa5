"""How a job is followed, and how its end is read; the real thing is in tests/commands/test_submit.py."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from regrad.cli import Stopped, signals_noted
from regrad.cluster import submit
from regrad.cluster.package import Package
from regrad.errors import RegradError, UsageError


@pytest.mark.parametrize(
    ("status", "own", "code"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 4, 4),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("STOPPED", None, 143),
        ("SUCCEEDED", None, 0),
    ],
)
def test_the_exit_code_is_the_jobs_own(status: str, own: int | None, code: int) -> None:
    info: Any = SimpleNamespace(status=JobStatus(status), driver_exit_code=own)
    assert submit.exit_code(info) == code


class Client:
    """A job server that answers what it is told to, one thing after the other."""

    def __init__(self, *answers: Any):
        self.answers = list(answers)

    def _answer(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit_job(self, **job: Any) -> Any:
        return self._answer()

    def get_job_info(self, job: str) -> Any:
        answer = self._answer()
        return SimpleNamespace(status=JobStatus(answer), driver_exit_code=0)

    def get_job_logs(self, job: str) -> str:
        return "one\ntwo\nthree\n"[: 14 - 4 * len(self.answers)]


def test_a_job_is_followed_through_a_silence_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_POLL_SECONDS", 0.0)
    shown: list[str] = []
    client: Any = Client("RUNNING", ConnectionError("gone"), RuntimeError("status code 500"), "SUCCEEDED")
    client.answers[1:2] = [submit.RequestException("gone")]
    info = submit.follow(client, "job", shown.append)
    assert info.status == JobStatus.SUCCEEDED
    assert "".join(shown) == "one\ntwo\nthree\n"


def test_a_cluster_that_has_only_just_started_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(submit, "_POLL_SECONDS", 0.0)
    package = Package(tmp_path / "working-dir.zip", files=1, size=2, packed=1, largest="README.md 2e-06 MB")
    early = RuntimeError("status code 500: No available agent to submit job, please try again later.")
    client: Any = Client(early, early, "raysubmit_1")
    assert submit.submit(client, "true", package, {}, None) == "raysubmit_1"
    broken: Any = Client(RuntimeError("status code 500: out of order"), "raysubmit_2")
    with pytest.raises(RegradError, match=r"did not take the job.*out of order"):
        submit.submit(broken, "true", package, {}, None)


def test_a_server_that_stays_silent_or_does_not_know_the_job_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(submit, "_PATIENCE_SECONDS", 0.0)
    silent: Any = Client(submit.RequestException("gone"))
    with pytest.raises(RegradError, match=r"has not answered for 0 s .*follow it with --follow job"):
        submit.follow(silent, "job", print)
    unknown: Any = Client(RuntimeError("Request failed with status code 404: Job x does not exist"))
    with pytest.raises(UsageError, match="the cluster knows no job job"):
        submit.follow(unknown, "job", print)


def test_a_signal_that_was_noted_is_raised_between_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_POLL_SECONDS", 0.0)
    client: Any = Client("RUNNING", "RUNNING")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(Stopped, match="SIGTERM"), signals_noted() as noted:
        submit.follow(client, "job", lambda text: os.kill(os.getpid(), signal.SIGTERM), noted)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL  # a second one ends the process
    assert len(client.answers) == 1
    for number, handler in before.items():
        signal.signal(number, handler)


def test_variables_are_taken_from_here_or_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert submit.environment(["AWS_REGION", "A=b=c"]) == {"AWS_REGION": "eu-west-1", "A": "b=c"}
    with pytest.raises(UsageError, match="--env NOTHING_HERE: not set here"):
        submit.environment(["NOTHING_HERE"])


def test_without_an_address_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no cluster: give --address"):
        submit.job_client(None)
