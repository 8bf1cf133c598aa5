"""One function over many items on a real Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrad.cluster.carry import carrying_out
from regrad.cluster.tasks import each
from regrad.errors import RegradError, UsageError


def work(item: dict[str, Any]) -> dict[str, Any]:
    """What an item asks for: a number, an error, or the end of its process, once or always."""
    if item.get("die") == "always" or (item.get("die") == "once" and not os.path.exists(item["mark"])):
        Path(item["mark"]).write_text("died")
        os._exit(1)
    if "raise" in item:
        raise {"usage": UsageError, "failure": RegradError, "fault": KeyError}[item["raise"]]("because")
    return {
        "number": item["number"] ** 2,
        "seen": os.environ.get("REGRAD_TESTS"),
        "notify": os.environ.get("REGRAD_NOTIFY"),
    }


def test_without_a_cluster_one_item_comes_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrad.cluster.tasks.connected", lambda *_: pytest.fail("asked for Ray"))
    seen: list[int] = []

    def note(item: dict[str, int]) -> dict[str, int]:
        seen.append(item["number"])
        return {"double": 2 * item["number"]}

    results = each(note, [{"number": number} for number in range(3)], "none")
    assert next(results) == {"double": 0}
    assert seen == [0]
    assert [*results] == [{"double": 2}, {"double": 4}]


@pytest.mark.usefixtures("ray_session")
def test_every_item_is_worked_on_once_though_a_worker_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAD_TESTS", "here")
    monkeypatch.setenv("REGRAD_NOTIFY", "https://host/secret")
    items = [{"source": str(number), "number": number} for number in range(12)]
    items[3] |= {"die": "once", "mark": str(tmp_path / "mark")}
    found = list(each(work, items, workers=3))
    assert sorted(item["number"] for item in found) == [number**2 for number in range(12)]
    assert {(item["seen"], item["notify"]) for item in found} == {("here", None)}


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("kind", "error"), [("usage", UsageError), ("failure", RegradError), ("fault", RegradError)])
def test_an_error_arrives_as_itself(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="because"):
        list(each(work, [{"source": "x", "raise": kind}]))


def test_nothing_to_do_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrad.cluster.tasks.connected", None)
    assert list(each(work, [])) == []


def test_several_calls_are_in_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    @contextlib.contextmanager
    def connected(*how: Any) -> Iterator[None]:
        told.append(how)
        yield
        told.append("ended")

    monkeypatch.setattr("regrad.cluster.sessions.connected", connected)
    monkeypatch.setattr("regrad.cluster.tasks.each", lambda *of, **how: told.append((of, how)))
    with carrying_out("somewhere", 3, True) as call:
        call(work, [])
        call(work, [{}])
    how = {"address": "somewhere", "workers": 3, "verbose": True}
    assert told == [("somewhere", 3, True), ((work, []), how), ((work, [{}]), how), "ended"]


def test_without_a_cluster_they_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrad.cluster.sessions.connected", lambda *_: pytest.fail("asked for Ray"))
    monkeypatch.setattr("regrad.cluster.tasks.each", lambda *_, **__: pytest.fail("asked for Ray"))
    with carrying_out("none") as call:
        assert next(call(work, [{"number": 3}]))["number"] == 9
