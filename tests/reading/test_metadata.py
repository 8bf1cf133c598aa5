import dataclasses
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad.errors import RegradError
from regrad.networks import CIFAR10_CLASSES
from regrad.reading.folder import list_folder
from regrad.reading.inputs import list_inputs
from regrad.reading.metadata import labels_of_folder
from regrad.reading.naming.classes import UNKNOWN, Classes
from regrad.reading.samples import DEFAULT_COLUMNS, Columns
from tests.services import Bucket
from tests.shards import digits, write_folder

CIFAR = Classes.of(10, CIFAR10_CLASSES)
FILES = ("train/a.png", "train/b.png", "c.png")


def folder(place: Path, tables: dict[str, bytes | str], files: Iterable[str] = FILES) -> str:
    """Pictures of these names, with tables beside them."""
    uri = write_folder(place, [(name, digits(1)[0][1], None) for name in files])
    for name, content in tables.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return uri


def labelled(uri: str, columns: Columns = DEFAULT_COLUMNS, classes: Classes = CIFAR) -> tuple[dict[str, Any], str]:
    """Each file's label as a run would have it, and what is said of where they come from."""
    listing = list_inputs([uri], columns).labelled(classes)
    (source,) = listing.sources
    labels = dict(zip(source.files, source.labels, strict=True))
    assert list_folder(uri, dataclasses.replace(columns, classes=classes)).labels == source.labels
    assert [sample.label for sample in source.open().rows()] == list(labels.values())
    return labels, " ".join(listing.notes).removeprefix(f"{source.uri}: ")


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def jsonl(*rows: Any) -> str:
    return "\n".join(map(json.dumps, rows))


ROWS = [{"file_name": "train/a.png", "label": "cat"}, {"file_name": "train\\b.png", "label": 5}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "file_name,label\ntrain/a.png,cat\ntrain\\b.png,5\n"),
        ("metadata.csv", '\ufefflabel,"file_name"\r\nCat,"train/a.png"\r\n5.0,./train/b.png'),
        ("metadata.jsonl", jsonl(*ROWS)),
        ("metadata.jsonl", "\r\n".join(map(json.dumps, ROWS)) + '\n\n{"text": "\u2028"}\n{"file_name": 7, "label": 2}'),
        ("metadata.parquet", parquet(file_name=["train/a.png", "train/b.png"], label=["cat", "dog"], x=[1, 2])),
        ("train/metadata.csv", "file_name,label\na.png,3\nb.png,dog\n"),
    ],
)
def test_labels_are_what_a_table_says(tmp_path: Path, name: str, content: bytes | str) -> None:
    uri = folder(tmp_path / "a", {name: content})
    labels, told = labelled(uri)
    assert labels == {"c.png": None, "train/a.png": 3, "train/b.png": 5}
    assert told == f"labels are column 'label' of {name}; no row there for 1 of 3 images"
    assert list_inputs([uri], Columns(classes=CIFAR)).left_out == {}
    assert list(list_inputs([uri]).left_out) == [f"{uri}/{name}"]  # no model, no labels


def test_tables_of_several_folders_count_together(tmp_path: Path) -> None:
    csv = "file_name,label\na.png,cat\n"
    uri = folder(tmp_path / "a", {"x/metadata.csv": csv, "y/metadata.csv": csv}, ("x/a.png", "y/a.png", "z/a.png"))
    labels, told = labelled(uri)
    assert labels == {"x/a.png": 3, "y/a.png": 3, "z/a.png": None}
    assert "column 'label' of x/metadata.csv and y/metadata.csv; no row" in told


def test_what_a_table_does_not_tell_is_said(tmp_path: Path) -> None:
    csv = "file_name,label\na.png,cat\na.png,dog\nb.png,cow\nc.png,\nd.png\ne.png,bird\ne.png,bird\nf.png,ant\n"
    uri = folder(tmp_path / "a", {"metadata.csv": csv}, [f"{name}.png" for name in "abcdef"])
    labels, told = labelled(uri)
    assert labels == {"a.png": None, "b.png": None, "c.png": None, "d.png": None, "e.png": 2, "f.png": None}
    assert told == (
        "labels are column 'label' of metadata.csv; no row there for 1 of 6 images; several labels there, and none "
        "here, for 1 of 6 images; the model has no class called ant or cow"
    )


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    uri = folder(tmp_path / "a", {"metadata.csv": "path,breed,file_name\nc.png,cat,x\n"}, ("c.png",))
    assert labelled(uri, Columns(id="path", label="breed"))[0] == {"c.png": 3}
    assert labelled(uri, Columns(label="breed"))[0] == {"c.png": None}  # by file_name
    uri = folder(tmp_path / "b", {"metadata.csv": "breed,file_name\ncat,c.png\n"}, ("c.png",))
    assert labelled(uri, Columns(id="elsewhere", label="breed"))[0] == {"c.png": 3}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "metadata.csv",
            "file_name,text\na.png,cat",
            "has no column 'label' (file_name and text), and tells no labels",
        ),
        ("metadata.csv", "", "has no column 'file_name', and tells no labels"),
        ("metadata.csv", b"file_name,label\n\xff.png,1", "cannot be read: UnicodeDecodeError"),
        ("metadata.jsonl", jsonl({"label": 3}), "has no column 'file_name' (label), and tells no labels"),
        ("metadata.jsonl", jsonl({"file_name": "dog/a.png", "label": 3}) + '\n{"fi', "line 2 is no JSON object"),
        ("metadata.jsonl", jsonl(["dog/a.png", 3]), "line 1 is no JSON object"),
        ("metadata.parquet", parquet(file_name=["dog/a.png"], text=["x"]), "has no column 'label'"),
    ],
)
def test_without_a_sound_table_the_sub_folders_count(tmp_path: Path, name: str, content: bytes | str, why: str) -> None:
    uri = folder(tmp_path / "a", {name: content}, ("dog/a.png",))
    labels, told = labelled(uri)
    assert labels == {"dog/a.png": 5}
    assert "names of its sub-folders" in told
    assert why in told
    assert list(list_inputs([uri], Columns(classes=CIFAR)).left_out) == [f"{uri}/{name}"]


def test_a_column_that_no_table_has_is_said(tmp_path: Path) -> None:
    uri = folder(tmp_path / "a", {"labels.csv": "file_name,label\na.png,cat"}, ("dog/a.png", "dog/b.png"))
    labels, told = labelled(uri, Columns(label="label"))
    assert set(labels.values()) == {5}
    assert "no metadata.csv, .jsonl or .parquet beside the images has the column 'label'" in told
    assert "metadata" not in labelled(uri)[1]


def test_a_table_that_cannot_be_opened_ends_nothing(tmp_path: Path) -> None:
    uri = folder(tmp_path / "a", {}, ("dog/a.png",))
    os.mkfifo(tmp_path / "a/metadata.csv")
    assert "metadata.csv cannot be read: not a regular file" in labelled(uri)[1]
    (tmp_path / "a/metadata.csv").unlink()
    gone = labels_of_folder(uri, ("dog/a.png",), ("metadata.csv",), Columns(), CIFAR)[0]
    assert gone.of_files == (5,)
    assert "metadata.csv cannot be read: the file is gone" in gone.told


def test_a_folder_that_is_called_like_a_signature_ends_nothing(tmp_path: Path) -> None:
    csv = "file_name,label\na.png,cat\n"
    files = ("x/a.png", "y?token=abc&w=1/a.png")
    here = folder(tmp_path / "a", {"x/metadata.csv": csv, "y?token=abc&w=1/metadata.csv": csv}, files)
    assert list_inputs([here], Columns(classes=CIFAR)).sources[0].labels == (3, 3)
    fsspec.filesystem("memory").put(here, "/signed", recursive=True)  # as of every store but those of S3 and the hub
    listing = list_inputs(["memory://signed"], Columns(classes=CIFAR))
    assert listing.sources[0].labels == (3, None)
    assert "y?token=abc&w=1/metadata.csv cannot be read: " in listing.notes[0]


def test_a_store_that_fails_is_no_table_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(uri: str, read_ahead: int | None = None) -> io.BytesIO:
        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise TimeoutError("the store went away")

        return File(b"file_name,label")

    uri = folder(tmp_path / "a", {"metadata.csv": "file_name,label\n"})
    monkeypatch.setattr("regrad.storage.open_file", failing)
    with pytest.raises(RegradError, match=r"metadata\.csv: cannot read: TimeoutError: the store went away"):
        labels_of_folder(uri, FILES, ("metadata.csv",), DEFAULT_COLUMNS, CIFAR)


def test_folders_may_say_a_label(tmp_path: Path) -> None:
    files = ("label=3/a.png", "label=hot%20dog/b.png", "label=dog/c.png", "d.png")
    labels, told = labelled(folder(tmp_path / "a", {}, files))
    assert labels == {"label=3/a.png": 3, "label=hot%20dog/b.png": None, "label=dog/c.png": 5, "d.png": None}
    assert told == "labels are what its sub-folders say of 'label'; the model has no class called hot dog"
    assert labelled(folder(tmp_path / "b", {}, ("y=3/a.png",)), Columns(label="y"))[0] == {"y=3/a.png": 3}


def test_in_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put(folder(tmp_path / "a", {"metadata.jsonl": jsonl(*ROWS)}), "images")
    assert labelled(uri)[0] == {"c.png": None, "train/a.png": 3, "train/b.png": 5}
    assert list_inputs([uri], Columns(classes=CIFAR)).left_out == {}


def test_of_an_unknown_model_no_table_is_read() -> None:
    labels, read = labels_of_folder("/nowhere", ("a.png",), ("metadata.csv",), Columns(), UNKNOWN)
    assert (labels.of_files, labels.told, read) == ((None,), "", ())


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_labels_are_those_of_hugging_face_s_own_loader(tmp_path: Path, name: str) -> None:
    rows = [{"file_name": f"{'x/' * (n % 2)}{n}.png", "label": CIFAR10_CLASSES[n]} for n in range(6)]
    csv = "file_name,label\n" + "\n".join(f"{row['file_name']},{row['label']}" for row in rows)
    content = csv if name == "metadata.csv" else jsonl(*rows)
    uri = folder(tmp_path / "a", {name: content}, [row["file_name"] for row in rows])
    theirs = datasets.load_dataset("imagefolder", data_dir=uri, split="train", cache_dir=str(tmp_path / "cache"))
    images = theirs.cast_column("image", datasets.Image(decode=False))
    wanted = {os.path.relpath(row["image"]["path"], uri): CIFAR10_CLASSES.index(row["label"]) for row in images}
    assert labelled(uri)[0] == wanted
