"""Label Studio: tasks with pre-annotations, and the labelling configuration that they are made for.

Source: Label Studio's guides to the task format, to importing pre-annotated data, and to local storage.
"""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any
from xml.sax.saxutils import quoteattr

from regrad import storage
from regrad.handover.entries import About, Entry
from regrad.handover.forms import Add, Form, Returned, anywhere, told_in
from regrad.handover.writing import finite_or_none, growing, one_line, text_into

CONTROL, OBJECT = "label", "image"  # what the configuration calls the choice and the picture
LOCAL = "/data/local-files/?d="  # what Label Studio serves its document root by


@contextlib.contextmanager
def tasks_listing(file: IO[bytes], about: About) -> Iterator[Add]:
    """``tasks.json``: an array of tasks. The prediction is a choice, its confidence the prediction's score; the REGrad
    score goes with the data, where the Data Manager sorts by it.
    """
    with text_into(file) as text, growing(text, "[", "]\n") as write:

        def add(entry: Entry) -> None:
            choice = {"from_name": CONTROL, "to_name": OBJECT, "type": "choices"}
            prediction = {
                "model_version": about.model,
                "score": finite_or_none(entry.confidence, 7),
                "result": [choice | {"value": {"choices": [entry.predicted]}}],
            }
            known = {
                OBJECT: _address(entry, about),
                "regrad_id": entry.id,
                "regrad_source": entry.source,
                f"regrad_{about.score}": finite_or_none(entry.score),
            }
            write(one_line({"data": known, "predictions": [prediction]}))

        yield add


def _address(entry: Entry, about: About) -> str:
    """How Label Studio finds an image: a store by its URI; here below its document root, which is that of copies the
    folder that the hand-over's own lies in, and ``/`` for files where they are.
    """
    place = storage.join(about.folder, entry.place) if entry.copied else entry.place
    if not storage.is_path(place):
        return place
    below = storage.join(about.folder.rstrip("/").rpartition("/")[2], entry.place) if entry.copied else place
    return LOCAL + urllib.parse.quote(below.lstrip("/"))


def labelling_configuration(about: About) -> dict[str, bytes]:
    """``config.xml``: one picture, one choice among the classes."""
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in about.classes)
    picture = f'  <Image name="{OBJECT}" value="${OBJECT}"/>\n'
    control = f'  <Choices name="{CONTROL}" toName="{OBJECT}" choice="single" showInline="true">\n'
    text = f"<View>\n{picture}{control}{choices}  </Choices>\n</View>\n"
    return {"config.xml": text.encode()}


def read_label_studio(document: Any) -> list[Returned] | None:
    """What an export says, as JSON or JSON-MIN; None where ``document`` is neither. Predictions are no labels, and
    skipped tasks have none.
    """
    if not (isinstance(document, list) and document and all(isinstance(task, Mapping) for task in document)):
        return None
    if all(isinstance(task.get("data"), Mapping) for task in document):
        return [told for task in document for told in _of_task(task)]
    if all("annotation_id" in task or "annotator" in task for task in document):
        return [told_in(task, bool(task.get(CONTROL)), _text(task.get(CONTROL)), _file(task)) for task in document]
    return None


def _of_task(task: Mapping[str, Any]) -> Iterator[Returned]:
    file = _file(task["data"])
    annotations = [each for each in task.get("annotations") or () if not each.get("was_cancelled")]
    results = [each["result"] for each in annotations if each.get("result")]
    for regions in results:
        yield told_in(task["data"], True, _chosen(regions), file)
    if not results:
        yield told_in(task["data"], False, None, file)


def _chosen(regions: Sequence[Mapping[str, Any]]) -> str | None:
    chosen = [name for region in regions for name in region.get("value", {}).get("choices", ())]
    return str(chosen[0]) if len(chosen) == 1 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _file(known: Mapping[str, Any]) -> str | None:
    """The image, as a path where it is one below Label Studio's document root."""
    address = _text(known.get(OBJECT))
    _, local, below = (address or "").partition(LOCAL)
    return f"/{urllib.parse.unquote(below)}" if local else address


LABEL_STUDIO = Form("label-studio", "tasks.json", tasks_listing, refers=anywhere, beside=labelling_configuration)
