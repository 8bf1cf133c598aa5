"""`regrad duplicates`: what it says and writes, with embeddings and without."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from regrad.__main__ import main
from regrad.commands.lists import duplicates
from tests.shards import digits, write_parquet

Folder = Callable[[str], str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two runs with embeddings, of which ``new`` has three images of ``old``, and the same without."""
    place = tmp_path_factory.mktemp("command")
    images = digits(60)
    for name, rows in {"old": images[:40], "new": images[37:]}.items():
        source = write_parquet(place / f"{name}.parquet", rows)
        flags = ["--model", "tests.shards:build", "--scores", "entropy", "--ray-address", "none"]
        assert main(["score", source, *flags, "--embeddings", "--output", str(place / name)]) == 0
        assert main(["score", source, *flags, "--output", str(place / f"plain-{name}")]) == 0
    return lambda name: str(place / name)


def test_it_tells_what_is_in_both(folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, out = folder("old"), folder("new"), str(tmp_path / "out")
    assert main(["duplicates", old, new, "--threshold", "0.999", "--distance", "0", "--output", out]) == 0
    said = capsys.readouterr().out
    assert said == (
        "63 images: 3 more than one of each, in 3 clusters of at most 2\n"
        "6 with the bytes of another, 0 with its pixels, 0 that look like it, "
        "0 alike at 0.999 or more by the whitened cosine\n"
        f"3 of the 40 images of {old} are in {new} too\n"
        f"3 of the 23 images of {new} are in {old} too\n"
        f"{out}/duplicates.parquet\n{out}/duplicates.html\n"
    )
    assert Path(out, "duplicates.html").read_text().count("<img ") == 2 * 6  # all clusters on both sheets
    rows = pyarrow.parquet.read_table(f"{out}/duplicates.parquet").to_pylist()
    wanted = [name for name, *_ in digits(40)[37:]]
    assert [row["id"] for row in rows] == [name for name in wanted for _ in range(2)]
    assert [row["run"] for row in rows] == [old, new] * 3
    assert [row["cluster"] for row in rows] == [0, 0, 1, 1, 2, 2]


def test_without_embeddings_it_looks_for_the_same_bytes_and_says_so(
    folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [folder("old"), folder("plain-new")]
    assert main(["duplicates", *runs, "--output", str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert f"the same bytes alone are looked for: {runs[1]} kept no embeddings (score it with --embeddings)" in told.err
    assert told.out.startswith(
        "63 images: 3 more than one of each, in 3 clusters of at most 2\n6 with the bytes of another\n"
    )
    assert main(["duplicates", *runs, "--exact", "--output", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "environment", "near", "address", "in_output"),
    [
        ([], None, True, "none", False),
        ([], "10.0.0.1:6379", True, "10.0.0.1:6379", True),
        (["--ray-address", "none"], "10.0.0.1:6379", True, "none", False),
        (["--ray-address", "local"], None, True, "local", False),
        (["--ray-address", "ray://head:1"], None, True, "ray://head:1", True),
        ([], "10.0.0.1:6379", False, "none", False),
    ],
)
def test_where_it_is_done(
    flags: list[str],
    environment: str | None,
    near: bool,
    address: str,
    in_output: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without Ray unless a cluster is named; what its machines share lies in the output. The same bytes need none."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    asked: list[Any] = []
    each = object()
    monkeypatch.setattr(duplicates, "carrying_out", lambda *how: asked.append(how) or contextlib.nullcontext(each))
    args = duplicates.parser().parse_args(["RUN", "--output", "OUT", "--num-workers", "3", *flags])
    with duplicates.means(args, "OUT", near) as means:
        assert means.each is each
        assert means.folder == ("OUT" if in_output else None)
    assert asked == [(address, 3, False)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threshold", "0.9"], "--threshold: .*plain-new kept no embeddings"),
        (["--exact", "--threshold", "0.9"], "--exact: takes no --threshold"),
        (["--cosine", "plain"], "--cosine: .*plain-new kept no embeddings"),
        (["--distance", "8"], "--distance 8: 7 bits at most, since unrelated pictures have more"),
        (["--threshold", "1.5"], "is not a number above 0 and below 1"),
    ],
)
def test_wrong_usage(
    folder: Folder, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["duplicates", folder("old"), folder("plain-new"), *flags, "--output", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()
