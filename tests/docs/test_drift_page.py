"""The commands of docs/drift.md, in their order, on a real S3 server: of digits, and of nights that they allow."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from regrad.__main__ import main
from regrad.cluster import here
from regrad.experiments.power import LEVELS, TESTS, tell_power
from tests.data import ROOT
from tests.services import Bucket
from tests.shards import digits, write_parquet

POWER = ["python", "-m", "regrad.experiments.power"]
#: What the page asks for, and what the digits have images for.
SIZES = {"200": "30", "1000": "40"}


def page_commands() -> list[list[str]]:
    """Each indented command of the page, continued lines joined."""
    text = (ROOT / "docs/drift.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^    ((?:regrad|python) .*?)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


@pytest.fixture
def prepared(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """What the page takes for granted: images known and new, and runs of known and of shifted ones with embeddings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(here, "_is_in_a_session", lambda: False)  # no worker starts, see tests/commands
    rows = digits(600)
    order = np.random.default_rng(0).permutation(len(rows))  # so that both have digits of every writer
    for name, places in {"known": order[:300], "incoming": order[300:]}.items():
        some = [rows[place] for place in places]
        bucket.put(write_parquet(tmp_path / f"{name}.parquet", some), f"{name}/0.parquet")
    for name in ("known", "shifted"):
        output = f"{bucket.uri}/scores/{name}"
        model = ["--model", "tests.shards:build", "--scores", "max_probability", "--embeddings"]
        assert main(["score", f"{bucket.uri}/known", *model, "--output", output]) == 0
    return bucket


def spelled(word: str, bucket: Bucket) -> str:
    return {"SPEC": "tests.shards:build", **SIZES}.get(word, word.replace("s3://bucket", bucket.uri))


@pytest.mark.usefixtures("ray_session")
def test_every_command_does_what_the_page_says(prepared: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [[spelled(word, prepared) for word in command] for command in page_commands()]
    kinds = [command[1] if command[0] == "regrad" else "power" for command in asked]
    assert kinds.count("audit") >= 2
    assert kinds.count("power") >= 3
    assert kinds.count("reproduce") >= 1
    for command, kind in zip(asked, kinds, strict=True):
        if kind == "power":
            assert command[:3] == POWER
            assert tell_power([*command[3:], "--repetitions", "2", "--permutations", "19"]) == 0, command
            rows = capsys.readouterr().out.splitlines()
            assert len(rows) == 1 + len(TESTS) * len(LEVELS)
            assert {float(cell) for row in rows[1:] for cell in row.rsplit(maxsplit=1)[1:]} <= {0, 0.5, 1}
        else:
            without_data = ["--no-compute", "--data", "nowhere"] if kind == "reproduce" else []
            assert main([*command[1:], *without_data]) == 0, f"{command}: {capsys.readouterr()}"
            told = capsys.readouterr().out
            assert kind != "reproduce" or "not measured here" in told
    (night,) = prepared.folder.glob("seen-audit/nights/*/audit.json")
    content = json.loads(night.read_text())
    assert content["embedding_drift"]["sampled"] == {"baseline": 300, "night": 300}
    assert [gate["metric"] for gate in content["gates"]] == ["embedding_auroc"]
