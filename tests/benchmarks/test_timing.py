"""The benchmark on a network of no size: what it measures is there, scaled and refused where it should be."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch

from regrad.benchmarks import cases, contenders, render, timing
from regrad.benchmarks.cases import Case
from tests.shards import digits, write_parquet

CPU = torch.device("cpu")
TINY = Case("tiny", "tests.shards:build", 3, samples=1)


@pytest.fixture(autouse=True)
def little_garbage() -> None:
    """Before each time it is collected, which is not to look at all that the tests hold."""
    gc.freeze()


def quiet(line: str) -> None:
    """Nobody watches."""


def test_rows_hold_ratios_memory_and_errors() -> None:
    names = ("exact, all layers", "sketch 64", "reference", "pytorch-ood GradNorm")
    wanted = [item for item in contenders.CONTENDERS if item.name in names]
    found = timing.measure(TINY, wanted, 3, CPU, quiet)
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == set(names)
    for row in rows.values():
        assert row["cannot"] is None
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert rows["exact, all layers"]["error"]["max"] < 1e-4
    assert 1e-4 < rows["sketch 64"]["error"]["max"] < 0.5
    assert rows["reference"]["error"] is None
    assert rows["reference"]["images"] == 1
    assert found["forward_seconds_per_image"] > 0


def test_many_classes_are_scaled_from_few() -> None:
    row = timing.Row("any", "", 1)
    seconds = [0.5, 1.0]
    times = [{("any", 2): 3.0, ("any", 6): 7.0, ("other", 2): 9.0}, {("any", 2): 6.0, ("any", 6): 14.0}]
    timing._fill(row, times, seconds, 100)
    assert row.ratio == pytest.approx(2 + 1 * 100 * 2 + 0)  # 6 x forwards at 2 classes and 2 x for each more
    wanted = [item for item in contenders.CONTENDERS if item.name == "reference"]
    many = timing.measure(cases.replace(TINY, classes=50), wanted, 1, CPU, quiet, errors=False)
    assert many["classes"] == 50
    assert many["rows"][0]["scaled_from"] == (1, 3)
    assert "scaled from C = 1 and 3" in render.table(many)


def test_who_cannot_do_it_is_shown_with_the_reason() -> None:
    def refuses(network: torch.nn.Module, inputs: torch.Tensor, samples: int) -> contenders.Run:
        raise ImportError("No module named 'elsewhere'")

    found = timing.measure(TINY, [contenders.Contender("peer", refuses)], 1, CPU, quiet)
    assert found["rows"][0]["cannot"] == "ImportError: No module named 'elsewhere'"
    assert "cannot: ImportError: No module named 'elsewhere'" in render.table(found)
    assert "| peer | - |" in render.markdown(found)


def test_a_precision_that_the_device_lacks_has_an_error_and_no_time() -> None:
    wanted = [item for item in contenders.CONTENDERS if item.name in ("exact 1e-3, tf32", "exact 1e-3")]
    found = timing.measure(TINY, wanted, 1, CPU, quiet)
    timed, emulated = found["rows"]
    assert timed["ratio"] > 0
    assert (emulated["ratio"], emulated["peak_mb"], emulated["cannot"]) == (None, None, None)
    assert 0 < emulated["error"]["max"] < 1e-2
    assert emulated["error"] != timed["error"]
    assert "| exact 1e-3, tf32 | - | emulated |" in render.markdown(found)


def test_memory_that_is_taken_is_seen() -> None:
    assert 350 < timing.peak(lambda: torch.ones(100_000_000).sum(), CPU) < 500


def test_pictures_come_from_shards_where_there_are_some(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "in.parquet", digits(5))
    case = cases.replace(TINY, images=(path,))
    copies = cases.copies_of(case, case.classifier(), CPU)
    assert copies.shape[:2] == (3, 2)
    assert not torch.equal(copies, cases.copies_of(TINY, TINY.classifier(), CPU))


def test_another_number_of_classes_changes_the_head_alone() -> None:
    own, other = TINY.classifier(), cases.replace(TINY, classes=33).classifier()
    assert (other.num_classes, other.mean, other.channels) == (33, own.mean, own.channels)
    assert own.num_classes == 10


def test_fewer_copies_make_room_for_more_images() -> None:
    case = Case("any", "tests.shards:build", 4, samples=10).with_samples(1)
    assert (case.samples, case.batch) == (1, 22)


def test_sweeps_are_drawn() -> None:
    wanted = [item for item in contenders.CONTENDERS if item.name in ("exact, all layers", "sketch 8")]
    found = [timing.measure(TINY.with_samples(n), wanted, 1, CPU, quiet, errors=False) for n in (0, 1)]
    svg = render.plot({"samples": found})
    assert svg.startswith(b"<?xml")
    assert svg.count(b"sketch 8") >= 1
