"""Hugging Face, by its own loader; and CSV, by pandas."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from regrad.runs.scored import Run
from tests.handover.conftest import HandOver
from tests.shards import NAMES


def test_load_dataset_reads_it(
    inside: Run, hand_over: HandOver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    rows, _ = hand_over(inside, "huggingface", tmp_path / "out")
    folder, cache = str(tmp_path / "out"), str(tmp_path / "cache")
    loaded = datasets.load_dataset("imagefolder", data_dir=folder, split="train", cache_dir=cache)
    assert loaded.column_names == ["image", "id", "source", "row", "label", "prediction", "confidence", "entropy"]
    assert len(loaded) == len(rows)
    for row, sample in zip(rows, loaded, strict=True):
        assert sample["image"].size == ((8, 12) if row["id"] == "lying" else (8, 8))
        assert (sample["id"], sample["source"], sample["row"]) == (row["id"], row["source"], row["row"])
        assert (sample["prediction"], sample["label"]) == (NAMES[row["prediction"]], NAMES[row["label"]])
        assert sample["entropy"] == pytest.approx(row["score"])


@pytest.mark.parametrize("images", ["inside", "files"])
def test_pandas_reads_the_csv(images: str, request: pytest.FixtureRequest, hand_over: HandOver, tmp_path: Path) -> None:
    rows, _ = hand_over(request.getfixturevalue(images), "csv", tmp_path / "out")
    frame = pandas.read_csv(tmp_path / "out/images.csv")
    assert [*frame] == ["file", "id", "source", "row", "label", "prediction", "confidence", "entropy"]
    assert frame["id"].tolist() == [row["id"] for row in rows]
    assert frame["prediction"].tolist() == [NAMES[row["prediction"]] for row in rows]
    assert frame["entropy"].tolist() == pytest.approx([row["score"] for row in rows])
    assert all((tmp_path / "out" / file).is_file() for file in frame["file"])
