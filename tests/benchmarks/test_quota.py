"""A share of the cores: a control group with its settings, that is gone afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from regrad.benchmarks import quota


@pytest.mark.parametrize(
    ("version", "settings"),
    [
        (2, {"cpu.max": "50000 100000", "cpu.weight": "10000"}),
        (1, {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000", "cpu.shares": "262144"}),
    ],
)
def test_it_is_a_group_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(quota, "_CGROUP", tmp_path)
    (tmp_path / "cpu").mkdir()
    if version == 2:
        (tmp_path / "cgroup.controllers").touch()
    with quota.quota(None) as none:
        assert none is None
    written = {}
    with pytest.raises(OSError, match="not empty"), quota.quota(0.5) as group:  # noqa: PT012 - a real one is empty
        assert group is not None
        written = {path.name: path.read_text() for path in group.iterdir()}
    assert written == settings


def test_a_command_is_in_its_group_before_it_begins(tmp_path: Path) -> None:
    told = tmp_path / "told"
    subprocess.run([*quota.within(tmp_path), "sh", "-c", 'echo $$ >"$0"', str(told)], check=True)
    assert (tmp_path / "cgroup.procs").read_text() == told.read_text()
    assert quota.within(None) == []
