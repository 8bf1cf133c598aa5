"""Inputs on Hugging Face's hub, of which a stand-in answers: what is read, what is told, and what is noticed."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.errors import RegradError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import RunOutcome, execute, score_here
from regrad.reading.inputs import list_inputs
from regrad.reading.parquet import ParquetReader
from regrad.storage import retry
from tests.hub import REPOSITORY, Hub
from tests.shards import NAMES, digits

DATASET = f"hf://datasets/{REPOSITORY}"
IMAGES = [image for _, image, _ in digits(2)]
PICTURES = ["pictures/large/0.png", "pictures/small/1.png"]
TOKEN = "hf_of_somebody_who_may"


def shard(first: int, count: int = 4) -> bytes:
    """Digits as the datasets library writes them: structs of bytes and path, and the names of the classes."""
    rows = digits(first + count)[first:]
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES[::-1], "_type": "ClassLabel"}}
    images = [{"bytes": image, "path": name} for name, image, _ in rows]
    content = pa.table({"image": images, "label": [9 - label for *_, label in rows]})
    content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = pa.BufferOutputStream()
    pa.parquet.write_table(content, file)
    return bytes(file.getvalue())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A repository of three shards, a page and two images."""
    files = {f"data/train-{number}.parquet": shard(4 * number) for number in range(3)}
    with Hub(files | dict(zip(PICTURES, IMAGES, strict=True)) | {"README.md": b"# Pictures"}).listening() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("regrad.storage.hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        monkeypatch.setattr("regrad.storage.hub.constants.HF_HUB_ETAG_TIMEOUT", 0.3)
        yield hub
        retry.take_counts()


def score(output: Path, *arguments: str) -> RunOutcome:
    model = ("--model", "tests.shards:build_named", "--scores", "entropy")
    return execute(prepare(parse([*arguments, *model, "--output", str(output)], "score", None)), score_here)


def test_what_changed_is_scored_again_and_nothing_else_is_read(hub: Hub, tmp_path: Path) -> None:
    inputs = f"{DATASET}/data/train-*.parquet"
    assert score(tmp_path / "out", inputs).this_run["rows_scored"] == 12
    scored = table.read(str(tmp_path / "out")).to_pylist()
    assert {row["id"]: row["label"] for row in scored} == {name: label for name, _, label in digits(12)}
    assert Counter(row["source"] for row in scored) == {f"{DATASET}/data/train-{number}.parquet": 4 for number in "012"}
    hub.requests.clear()
    assert score(tmp_path / "out", inputs).this_run["rows_in"] == 0
    assert hub.asked("GET", "/resolve/") == 0
    assert len(hub.requests) == 7  # whatever the number of shards, but for the pages of the list
    before = hub.revisions["main"]
    hub.revisions |= {"v1": before, "main": before | {"data/train-1.parquet": shard(20)}}
    assert score(tmp_path / "out", inputs).this_run["rows_scored"] == 4
    assert {name for name in hub.requests if name.startswith("GET") and "/resolve/" in name} == {
        f"GET /datasets/{REPOSITORY}/resolve/main/data/train-1.parquet"
    }
    score(tmp_path / "v1", f"{DATASET}@v1/data")
    assert set(table.read(str(tmp_path / "v1"))["id"].to_pylist()) == {name for name, *_ in digits(12)}


@pytest.mark.parametrize(
    ("revision", "place", "there"),
    [
        ("", "", ["data/train-0.parquet", "data/train-1.parquet", "data/train-2.parquet"]),
        ("", "/data/train-{1..2}.parquet", ["data/train-1.parquet", "data/train-2.parquet"]),
        ("@refs/convert/parquet", "/data/*[02].parquet", ["data/train-0.parquet", "data/train-2.parquet"]),
        ("@refs%2Fconvert%2Fparquet", "/pictures", ["pictures"]),
    ],
)
def test_a_repository_is_listed_page_by_page(hub: Hub, revision: str, place: str, there: list[str]) -> None:
    hub.revisions = {"refs/convert/parquet" if revision else "main": hub.revisions["main"]}
    listing = list_inputs([f"{DATASET}{revision}{place}"])
    assert [source.uri for source in listing.sources] == [f"{DATASET}{revision}/{name}" for name in there]
    assert listing.unidentified == []


def test_a_file_is_what_it_is_now_in_every_thread(hub: Hub) -> None:
    uri = f"{DATASET}/data/train-0.parquet"
    reader = ParquetReader(uri)
    planned = list_inputs([DATASET]).sources[0].identity_of(0, None)
    assert len(list(reader.rows())) == 4
    assert reader.identity() == storage.identity(uri) == storage.read_identified(uri)[1]
    before = storage.identity(uri)
    hub.revisions["main"]["data/train-0.parquet"] = shard(20)
    with ThreadPoolExecutor() as pool:
        assert before not in (reader.identity(), pool.submit(storage.identity, uri).result())
    assert list_inputs([DATASET]).sources[0].identity_of(0, None) != planned
    assert storage.read_bytes(uri) == shard(20)


def test_an_image_takes_one_request_which_identifies_it(hub: Hub) -> None:
    (folder,) = list_inputs([f"{DATASET}/pictures"]).sources
    hub.requests.clear()
    reader = folder.open()
    assert [sample.image for sample in reader.rows()] == IMAGES
    assert reader.identity() == folder.identity_of(0, 2)
    asked = [request for request in hub.requests if "/elsewhere/" not in request]
    assert sorted(asked) == [f"GET /datasets/{REPOSITORY}/resolve/main/{name}" for name in PICTURES]
    for name in PICTURES:
        before = hub.revisions["main"][name]
        hub.revisions["main"][name] = digits(3)[2][1]
        list(reader.rows())
        assert reader.identity() != folder.identity_of(0, 2)
        hub.revisions["main"][name] = before


@pytest.mark.parametrize(
    ("place", "token", "told"),
    [
        (f"{DATASET}/data", None, "no such file or folder.*; check the repository's name, and HF_TOKEN: a private"),
        (
            f"{DATASET}/data",
            "hf_of_somebody_else",
            "no such file or folder.*; check the repository's name, and HF_TOKE",
        ),
        ("hf://datasets/owner/none/data", TOKEN, "no such file or folder.*; check the repository's name, and HF_TOKEN"),
        (f"{DATASET}@v9/data", TOKEN, "no such file or folder.*; check the revision, which is what follows the @$"),
        (f"{DATASET}/data/train-9.parquet", TOKEN, "no such file or folder, and no object under this name$"),
        (f"{DATASET}/README.md", TOKEN, r"README.md: not a \.tar"),
    ],
)
def test_what_cannot_be_found_is_told_with_what_to_do(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, place: str, token: str | None, told: str
) -> None:
    hub.token = TOKEN
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(RegradError, match=told) as caught:
        list_inputs([place])
    assert str(caught.value).startswith(f"{place}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_token_opens_a_private_repository_and_is_not_shown(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(list_inputs([DATASET]).sources) == 3
    assert storage.mask(f"Bearer {TOKEN} is wrong") == "Bearer *** is wrong"


def test_what_may_pass_is_tried_again_and_counted(hub: Hub) -> None:
    number = iter(range(10**6))
    faults: dict[int, Any] = {1: 429, 4: 503, 6: "hang", 9: 500}
    hub.fault = lambda method, path: faults.get(next(number))
    retry.take_counts()
    assert [source.rows for source in list_inputs([f"{DATASET}/data"]).sources] == [4, 4, 4]
    assert retry.take_counts() == {"429": 1, "503": 1, "timeout": 1, "500": 1}


@pytest.mark.parametrize("headers", [{"RateLimit": '"resolvers";r=0;t=1'}, {"Retry-After": "1"}])
def test_whoever_asked_too_often_waits_as_long_as_the_hub_says(
    hub: Hub, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retry.PATIENCE_VARIABLE, "0.5")
    began = time.monotonic()
    hub.headers = headers
    hub.fault = lambda method, path: 429 if time.monotonic() - began < 0.9 else None
    assert [source.rows for source in list_inputs([f"{DATASET}/data"]).sources] == [4, 4, 4]
    assert retry.take_counts() == {"429": 1}


def test_a_range_that_came_short_is_asked_for_again(hub: Hub) -> None:
    short = iter(["short"])
    hub.fault = lambda method, path: next(short, None) if "/elsewhere/" in path else None
    retry.take_counts()
    assert len(list(ParquetReader(f"{DATASET}/data/train-0.parquet").rows())) == 4
    assert retry.take_counts() == {"truncated body": 1}


@pytest.mark.parametrize(
    ("fault", "told"),
    [(429, "429 Too Many Requests"), ("hang", "ReadTimeout: timed out"), (403, "403 Forbidden; check")],
)
@pytest.mark.parametrize("kind", ["/tree/", "/paths-info/", "/resolve/", "/elsewhere/"])
def test_what_does_not_pass_ends_in_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, fault: int | str, told: str, kind: str
) -> None:
    monkeypatch.setenv(retry.PATIENCE_VARIABLE, "0.1")
    hub.fault = lambda method, path: fault if kind in path else None
    with pytest.raises(RegradError, match=f"cannot .*: {told}") as caught:
        list_inputs([f"{DATASET}/data"])
    assert "secret" not in str(caught.value)
    assert "AWS" not in str(caught.value)
    retry.call(lambda: None)


def test_without_the_client_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "regrad.storage.hub", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delattr("regrad.storage.hub", raising=False)
    with pytest.raises(RegradError, match=r"hf://datasets/a/b: cannot open .*; pip install 'regrad\[hf\]'"):
        storage.filesystem("hf://datasets/a/b")
