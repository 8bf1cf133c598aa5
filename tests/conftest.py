"""Fixtures that several folders of tests share."""

from __future__ import annotations

import gc
import os

# Before torch is imported: its threads wait instead of spinning, and where tests run side by side each has one core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from regrad import table
from regrad.cli import loading
from regrad.maps import layout
from tests.browser import browser
from tests.installed import installed
from tests.outputs import commit_rows
from tests.own_run import own_run
from tests.services import bucket, end_lasting, ray_cluster, ray_session, s3_server
from tests.side_by_side import SideBySide, group, rank

# fixtures for every test
__all__ = ["browser", "bucket", "installed", "own_run", "ray_cluster", "ray_session", "s3_server"]

WriteRun = Callable[..., str]


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is fetched once a machine lies in a folder of the tests."""
    os.environ["REGRAD_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def workers_as_others() -> None:
    """Ray lets its workers give way to every other process, on a busy machine for minutes."""
    os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """What a group of files shares ends with it."""
    yield
    if nextitem is None or group_of(nextitem) != group_of(item):
        end_lasting()


def group_of(item: pytest.Item) -> str:
    """What the item's file is run together with."""
    return group(item.nodeid.partition("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    """Of ``pytest --numprocesses 3``."""
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first."""
    items.sort(key=lambda item: (rank(file := item.nodeid.partition("::")[0]), group(file)))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """All that is imported and collected stays: the collector need not look at a million objects again and again."""
    with loading():
        return (yield)


def pytest_collection_finish() -> None:
    """Nor later."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Libraries say so when what they made is not taken down at the end."""
    gc.unfreeze()


def png(seed: int, size: int = 8) -> bytes:
    """A random grey picture as a PNG file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, "L").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Writes what `regrad score` leaves behind: a shard of pictures, ``run.json`` and a score table in two parts.

    A ``folder`` other than ``name`` gives the same images another run.
    """

    def write(
        name: str,
        scores: dict[str, Any],
        labels: Any = None,
        predictions: Any = None,
        folder: str = "",
        logits: Any = None,
        sets: Any = None,
        probabilities: Any = None,
        embeddings: Any = None,
        **run: Any,
    ) -> str:
        count = len(next(iter(scores.values())))
        shard = tmp_path / f"{name}.parquet"
        pa.parquet.write_table(pa.table({"image": [png(row) for row in range(count)]}), shard)
        output = tmp_path / "runs" / (folder or name)
        columns = {
            "id": [f"{name}/{row:04}" for row in range(count)],
            "source": [str(shard)] * count,
            "row": range(count),
            "label": [None] * count if labels is None else labels,
            "prediction": [row % 10 for row in range(count)] if predictions is None else predictions,
            "confidence": [0.5] * count,
            "nll": [None] * count if labels is None else [None if label is None else 0.7 for label in labels],
            "digest": [f"{row:032x}" for row in range(count)],
            **scores,
        }
        columns |= {} if probabilities is None else predicted(probabilities, columns["label"])
        schema = table.score_schema(list(scores), {"logits": logits is not None, "coverage": sets is not None}, 10)
        columns |= {} if logits is None else {"logits": logits}
        columns |= {} if sets is None else {"prediction_set": sets}
        rows = pa.table({key: list(values) for key, values in columns.items()}, schema=schema)
        output.mkdir(parents=True)
        for part, begin in enumerate((0, count // 3)):
            piece = rows.slice(begin, count // 3 if part == 0 else None)
            seen = None if embeddings is None else embedded(piece, np.asarray(embeddings)[begin:])
            commit_rows(str(output), str(part), piece, embeddings=seen)
        info = run_json() | run
        if embeddings is not None:
            info["model"] = info["model"] | {"embedding_width": np.asarray(embeddings).shape[1]}
        info["config"] = info["config"] | ({} if sets is None else {"coverage": 0.9})
        (output / "run.json").write_text(json.dumps(info))
        return str(output)

    return write


@pytest.fixture
def plain_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps need no library, and a point lies at the first two numbers of its embedding: it shows whose that is."""
    monkeypatch.setattr(layout, "installed", lambda: True)
    monkeypatch.setattr(layout, "lay_out", lambda vectors: vectors[:, :2].astype(np.float64))


def embedded(rows: pa.Table, vectors: np.ndarray) -> pa.Table:
    """What ``OUT/embeddings/`` holds of ``rows``: the first of ``vectors`` (n or more, d)."""
    width = vectors.shape[1]
    flat = pa.array(vectors[: len(rows)].astype(np.float16).ravel())
    columns = {name: rows[name] for name in ("id", "source", "row", "digest")}
    columns |= {"pixels": rows["digest"], "perceptual_hash": np.zeros(len(rows), np.uint64)}
    columns |= {table.EMBEDDING: pa.FixedSizeListArray.from_arrays(flat, width)}
    return pa.table(columns, schema=table.embedding_schema(width))


def predicted(probabilities: np.ndarray, labels: Any) -> dict[str, Any]:
    """The columns that follow from (n, C) probabilities and the labels."""
    known = [label is not None and 0 <= label < probabilities.shape[1] for label in labels]
    own = [row[label] if there else None for row, label, there in zip(probabilities, labels, known, strict=True)]
    return {
        "prediction": probabilities.argmax(1).tolist(),
        "confidence": probabilities.max(1).tolist(),
        "nll": [None if p is None else -float(np.log(p)) for p in own],
    }


def run_json() -> dict[str, Any]:
    """As much of ``run.json`` as a report reads."""
    return {
        "schema_version": table.SCHEMA_VERSION,
        "regrad_version": "0.1.0",
        "status": "done",
        "model": {"spec": "tests:network", "network": "f" * 64, "classes": 10, "class_names": None},
        "config": {"weights": None, "sigma": 0.02, "samples": 10, "transform": None, "image_column": None},
        "counts": {"rows_in": 0, "rows_scored": 0, "rows_quarantined": 0},
    }
