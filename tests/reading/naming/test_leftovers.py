from collections import Counter

import pytest

from regrad.reading.naming.leftovers import OTHER, by_reason, in_words, outputs, why_left, why_no_data, why_tools


@pytest.mark.parametrize(
    "path",
    [
        ".ipynb_checkpoints/0-checkpoint.png",
        "cat/.thumbnails/1.png",
        "deep/.git/objects/a.parquet",
        "_SUCCESS",
        "_delta_log/0.checkpoint.parquet",
        "_tmp-1-a.png",
        "x/_metadata",
        ".part-0.parquet.crc",
    ],
)
def test_hidden_at_any_depth(path: str) -> None:
    assert why_left(path) == "hidden"


@pytest.mark.parametrize(
    "path", ["__MACOSX/a.png", "cat/._1.jpg", "Thumbs.db", "a/.DS_Store", "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"]
)
def test_left_by_tools(path: str) -> None:
    assert why_left(path) == why_tools(path) == "left by a desktop or an archiver"


@pytest.mark.parametrize("path", ["_MG_0001.JPG", "day/_DSC1.jpg", "cat/1.png", "x.tar/0.png", "a.b/c_d.parquet"])
def test_what_may_be_data(path: str) -> None:
    assert why_left(path) is None


def test_outputs_are_told_by_what_is_in_them() -> None:
    run = ["old/run.json", "old/ledger/1.json", "old/scores/part-1.parquet"]
    kept = ["kept/filter.json", "kept/ledger/2.json", "kept/shards/a.tar"]
    assert outputs([*run, *kept, "run.json", "ledger/3.json"]) == ["kept/", "old/"]
    folded = ["night/run.json", "night/ledger/snapshot-00000001-00000003-0123456789abcdef.parquet"]
    assert outputs(folded) == ["night/"]
    assert outputs(["mine/run.json", "mine/a.png", "other/ledger/1.json", "mine/ledger/snapshot.parquet"]) == []


def test_reasons_are_bounded_and_told_in_one_line() -> None:
    skipped = by_reason(why_no_data(f"x.e{number}") for number in range(60))
    assert (len(skipped), skipped.total(), skipped[OTHER]) == (51, 60, 10)
    assert in_words(Counter({"hidden": 2, why_no_data("README"): 1})) == "3: 2 hidden, 1 no extension"
