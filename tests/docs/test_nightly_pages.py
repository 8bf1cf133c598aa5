"""The commands of docs/nightly.md, docs/filtering.md and docs/selecting.md, in their order, on a real S3 server."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
import safetensors.torch

from regrad.__main__ import main
from regrad.cluster import here
from tests.data import ROOT
from tests.services import Bucket
from tests.shards import build, digits, write_parquet


def commands(page: str) -> list[list[str]]:
    """Each indented `regrad ...` of a page, continued lines joined."""
    text = (ROOT / "docs" / page).read_text().replace("\\\n", " ")
    found = re.findall(r"^    regrad (.*?)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


@pytest.fixture
def prepared(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """What the pages take for granted: images known and new, a model, a run, a list of labelled images."""
    monkeypatch.chdir(tmp_path)
    # Of Ray the tasks alone: workers take seconds to start, and tests/commands has them.
    monkeypatch.setattr(here, "_is_in_a_session", lambda: False)
    for name, rows in {"known": digits(300), "incoming": digits(600)[300:]}.items():
        bucket.put(write_parquet(tmp_path / f"{name}.parquet", rows), f"{name}/0.parquet")
    weights = tmp_path / "model.safetensors"
    safetensors.torch.save_file(build()[0].state_dict(), weights)
    bucket.put(str(weights), "model.safetensors")
    (tmp_path / "labelled.csv").write_text("id,label\n0/0000.png,0\n")
    run(
        bucket,
        "score",
        "s3://bucket/incoming",
        "--model",
        "tests.shards:build",
        "--output",
        "s3://bucket/scores",
    )
    return bucket


def run(bucket: Bucket, *arguments: str) -> int:
    """The command, in this process, on the bucket of the test."""
    spelled = [
        argument.replace("s3://bucket", bucket.uri).replace("my_package.my_model:build", "tests.shards:build")
        for argument in arguments
    ]
    return main(spelled)


@pytest.mark.usefixtures("ray_session")
def test_every_command_does_what_its_page_says(prepared: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    for page in ("nightly.md", "filtering.md", "selecting.md"):
        found = commands(page)
        assert len(found) >= 2
        for command in found:
            assert run(prepared, *command) == 0, f"{command}: {capsys.readouterr()}"
    held = prepared.folder
    assert len(pyarrow.parquet.read_table(held / "audit/history.parquet")) == 1
    (page_of_night,) = held.glob("audit/nights/*/audit.html")
    assert "All 3 gates hold." in page_of_night.read_text()
    (shard,) = (held / "filtered/shards").iterdir()
    assert (
        len(pyarrow.parquet.read_table(shard)) == len(pyarrow.parquet.read_table(held / "filtered/keep.parquet")) == 285
    )
    assert len(pyarrow.csv.read_csv("to-label.csv")) == 100
