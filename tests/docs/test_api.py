"""The API pages build from the docstrings, and without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import ROOT

pytest.importorskip("pdoc")


def test_the_api_pages_build(tmp_path: Path) -> None:
    command = [sys.executable, "docs/build_api.py", str(tmp_path), "--no-source"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "warn" not in built.stderr.lower()
    modules = [path.relative_to(ROOT) for path in (ROOT / "regrad").rglob("*.py")]
    for module in modules:
        parts = module.with_suffix("").parts
        name = "/".join(parts[:-1] if parts[-1] == "__init__" else parts)
        assert (tmp_path / f"{name}.html").exists(), name
    assert "tells which images a pre-trained classifier does not understand" in (tmp_path / "regrad.html").read_text()
