"""Runs whose images are handed over: inside of a tar and a Parquet file, and as files of their own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from regrad.handover.give import Given, giving
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.runs import scored
from tests.shards import digits, write_folder, write_parquet, write_tar

#: Ids that are no names of files, or another one's.
STRANGE = [
    "../../escape.png",
    "/etc/passwd",
    "a/b.png",
    "a_b.png",
    "A/B.png",
    "naïve 'q' & <x>, y.png",
    "x" * 300,
    "...",
]
COLUMNS = ["id", "source", "row", "label", "prediction", "confidence", "digest", "entropy"]
HandOver = Callable[[scored.Run, str, Path], tuple[list[dict], Given]]


def score(inputs: str, output: Path) -> scored.Run:
    """Scored by a network whose classes have names."""
    settings = ["--model", "tests.shards:build_named", "--scores", "entropy", "--samples", "0"]
    execute(prepare(parse([inputs, *settings, "--output", str(output)], "score", None)), score_here)
    return scored.load_run("run", str(output))


def lying() -> bytes:
    """A JPEG of 12 x 8 pixels that stands upright as 8 x 12."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def inside(tmp_path_factory: pytest.TempPathFactory) -> scored.Run:
    """25 images inside of two sources, 8 of them with strange ids."""
    folder = tmp_path_factory.mktemp("inside")
    strange = [(name, image, label) for name, (_, image, label) in zip(STRANGE, digits(8), strict=True)]
    write_parquet(folder / "in/a.parquet", [*strange, ("lying", lying(), 3), *digits(15)[8:]])
    write_tar(folder / "in/b.tar", digits(24)[15:])
    return score(str(folder / "in"), folder / "run")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> scored.Run:
    """12 images, each a file of its own."""
    folder = tmp_path_factory.mktemp("files")
    write_folder(folder / "in", [("sub folder/lying.jpg", lying(), 3), *digits(11)])
    return score(str(folder / "in"), folder / "run")


def rows_of(run: scored.Run) -> pa.Table:
    """All rows, as a giver takes them."""
    names = ["score" if name == "entropy" else name for name in COLUMNS]
    return pa.concat_tables(run.tables(COLUMNS)).rename_columns(names)


@pytest.fixture
def hand_over() -> HandOver:
    """Hands over every image of a run; gives the rows, and what was."""

    def hand(run: scored.Run, form: str, folder: Path) -> tuple[list[dict], Given]:
        rows = rows_of(run)
        with giving(run, form, "entropy", str(folder)) as giver:
            giver.take(rows)
        return rows.to_pylist(), giver.given

    return hand
