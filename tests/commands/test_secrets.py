"""Credentials are used and never shown: not in what a job prints, writes, or leaves behind on Ray's side."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import s3fs

import regrad.commands.report
import regrad.commands.score
from regrad.pipeline.run import score_here
from tests.own_run import SESSION_TOKEN, OwnRun
from tests.services import Bucket
from tests.shards import digits, write_tar

MODEL = ("--model", "tests.shards:build", "--scores", "entropy")
SIGNATURE = "f00dfeedf00dfeed"
SECRETS = ("tests-secret", "tests-key", SESSION_TOKEN, SIGNATURE, "hunter2hunter2")


@pytest.fixture(autouse=True)
def session_token(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)


def leaks(texts: Iterable[tuple[str, bytes]]) -> list[str]:
    return [f"{secret} in {name}" for name, text in texts for secret in SECRETS if secret.encode() in text]


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under ``folder``, of Parquet also the metadata and the columns, which are compressed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        yield str(path), path.read_bytes()
        if path.suffix == ".parquet":
            content = pyarrow.parquet.read_table(path)
            yield f"{path}: footer", str(content.schema.metadata).encode()
            yield f"{path}: rows", str(content.to_pylist()).encode()


def test_a_talkative_run_keeps_its_secrets(
    tmp_path: Path, own_run: OwnRun, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert own_run.code == 4, (own_run.folder / "err").read_text()
    for name, value in own_run.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    assert regrad.commands.report.main(["--id", own_run.output, "--output", str(tmp_path / "report")]) == 0
    s3fs.S3FileSystem.clear_instance_cache()
    logs = list(files(own_run.logs))
    assert any("worker-" in name for name, _ in logs)
    written = [*files(own_run.folder), *files(own_run.objects), *files(tmp_path)]
    assert {"out", "err", "run.json", "report.html"} <= {os.path.basename(name) for name, _ in written}
    assert leaks([("report", "".join(capfd.readouterr()).encode()), *written, *logs]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("s3://tests-key:tests-secret@{name}/in.tar", "--output", "{tmp}/out"),
        ("{in}", "--output", "s3://tests-key:tests-secret@{name}/out"),
        ("{in}", "--output", "{tmp}/out", "--weights", "s3://tests-key:tests-secret@{name}/w.safetensors"),
        ("{in}", "--output", "{tmp}/out", "--fit-data", "s3://tests-key:tests-secret@{name}/fit.tar"),
        ("{in}", "--output", "{tmp}/out", "--config", "s3://tests-key:tests-secret@{name}/c.yaml"),
        ("{in}", "--output", "{tmp}/out", "--sigma", "s3://tests-key:tests-secret@{name}/"),
        ("{in}", "--output", "{tmp}/out", "--mistyped", "s3://tests-key:tests-secret@{name}/"),
        ("{in}?X-Amz-Signature={signature}", "--output", "{tmp}/out"),
        ("https://{name}.example/in.tar?X-Amz-Signature={signature}", "--output", "{tmp}/out"),
        ("http://user:hunter2hunter2@127.0.0.1:9/in.tar", "--output", "{tmp}/out"),
        ("http://127.0.0.1:9/in.tar?key=hunter2hunter2", "--output", "{tmp}/out"),
        ("s3://no-such-bucket/in.tar", "--output", "{tmp}/out"),
        ("{in}", "--output", "s3://no-such-bucket/out"),
    ],
)
def test_failures_keep_secrets(
    tmp_path: Path,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setattr(regrad.commands.score, "score_where_it_pays", score_here)
    monkeypatch.setenv("REGRAD_STORAGE_PATIENCE", "0")
    source = bucket.put(write_tar(tmp_path / "in.tar", digits(10)), "in.tar")
    known: dict[str, Any] = {"name": bucket.uri.removeprefix("s3://"), "tmp": tmp_path, "in": source}
    filled = [argument.format(**known, signature=SIGNATURE) for argument in arguments]
    code = regrad.commands.score.main([*filled, *MODEL, "--verbose"])
    printed = capfd.readouterr()
    assert leaks([("stdout", printed.out.encode()), ("stderr", printed.err.encode()), *files(tmp_path)]) == []
    assert leaks(files(bucket.folder)) == []
    if "fit-data" not in str(arguments):  # which nothing looks at unless a score asks for it
        assert code in (1, 2)
        assert printed.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_a_wrong_key_is_named_and_not_shown(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    source = bucket.put(write_tar(tmp_path / "in.tar", digits(10)), "in.tar")
    monkeypatch.setenv(name, "hunter2hunter2")
    code = regrad.commands.score.main([source, "--output", f"{bucket.uri}/out", *MODEL, "--verbose"])
    error = capfd.readouterr().err
    assert code == 1
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error.splitlines()[-1]
    assert leaks([("stderr", error.encode())]) == []
