"""The page: self-contained, escaped, and with every number and picture in it."""

from __future__ import annotations

import itertools
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from regrad.report import numbers, page
from regrad.report.thumbnails import Thumbnail

HOSTILE = ["<script>alert(1)</script>", '"><img onerror=alert(1) src=x>', "</style><b>", "x" * 10_000, "שלום 🙂"]
RNG = np.random.default_rng(1)


class Elements(HTMLParser):
    """Every element with its attributes, and all text outside of <style>."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def build(write_run: Any, sets: dict[str, str], top: int = 4, class_names: list[str] | None = None) -> dict[str, Any]:
    model = {"spec": "tests:network", "network": "f" * 64, "classes": 10, "class_names": class_names}
    scores = {"regrad": RNG.normal(0, 1, 30), "max_probability": RNG.normal(0, 1, 30)}
    labels = [row % 10 for row in range(30)]
    known = numbers.load(numbers.ID_NAME, write_run("id", scores, labels=labels, model=model))
    unknown = []
    for name, folder in sets.items():
        values = {score: RNG.normal(1, 1, 20) for score in scores}
        unknown.append(numbers.load(name, write_run(folder, values, model=model)))
    return numbers.published(numbers.summarise(known, unknown, top=top))


def pictures(report: dict[str, Any]) -> dict[str, list[Thumbnail]]:
    return {
        name: [Thumbnail("data:image/webp;base64,AAAA", 8, 8) for _ in rows]
        for name, rows in report["most_uncertain"].items()
    }


def test_every_number_is_on_the_page(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos", "drawings": "drawings"})
    text = Elements(page.render(report, pictures(report))).text
    for numbers_of_score in report["scores"].values():
        for separation in numbers_of_score["ood"].values():
            for key in ("auroc", "aupr_ood", "aupr_id", "fpr95"):
                assert f"{100 * separation[key]:.2f}" in text
    assert f"{100 * report['id']['accuracy']:.2f}" in text
    for sentence in report["headline"]:
        assert sentence.replace(" %", "\u00a0%").replace("≥ ", "≥\u00a0") in text
    assert "f" * 64 in text


def test_scores_are_ranked_by_auroc(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos"})
    for score, value in (("regrad", 0.6), ("max_probability", 0.9)):
        report["scores"][score]["ood"]["photos"]["auroc"] = value
    text = Elements(page.render(report, {})).text
    assert text.index("90.00") < text.index("60.00")


def test_the_page_needs_nothing_from_outside(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos"})
    html = page.render(report, pictures(report))
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert tag not in ("script", "iframe", "object", "embed")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in html
    assert "url(" not in html
    policy = next(m["content"] for m in elements.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_pictures_have_alt_texts_and_charts_have_labels(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos"})
    elements = Elements(page.render(report, pictures(report)))
    assert len(elements.all("img")) == 8
    rows = itertools.chain.from_iterable(report["most_uncertain"].values())
    for attributes, row in zip(elements.all("img"), rows, strict=True):
        assert row["id"] in (attributes["alt"] or "")
    charts = [attributes for attributes in elements.all("svg") if attributes.get("class") == "chart"]
    assert len(charts) == 2
    assert all("photos" in (attributes["aria-label"] or "") for attributes in charts)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(write_run: Any, text: str) -> None:
    report = build(write_run, {text: "photos"}, class_names=[text] * 10)
    plain = build(lambda name, *a, **k: write_run(f"plain-{name}", *a, **k), {"photos": "p"}, class_names=["c"] * 10)
    for rows in report["most_uncertain"].values():
        for row in rows:
            row["id"] = row["source"] = text
    report["runs"][numbers.ID_NAME]["config"]["weights"] = text
    sheets = {name: [Thumbnail(None, problem=text) for _ in rows] for name, rows in report["most_uncertain"].items()}
    html = page.render(report, sheets)
    elements = Elements(html)
    assert text in elements.text
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    placeholders = {name: [Thumbnail(None, problem="gone") for _ in rows] for name, rows in sheets.items()}
    placeholders["photos"] = placeholders.pop(text)
    assert {tag for tag, _ in elements.found} == {tag for tag, _ in Elements(page.render(plain, placeholders)).found}


def test_missing_pictures_and_names_are_said(write_run: Any) -> None:
    report = build(write_run, {}, class_names=["zero", "one"] + ["more"] * 8)
    report["most_uncertain"][numbers.ID_NAME][0]["prediction"] = 1
    text = Elements(page.render(report, {})).text
    assert "no picture: no thumbnail was made" in text
    assert "predicted one" in text


def test_a_report_without_unknown_images_has_the_distribution_alone(write_run: Any) -> None:
    report = build(write_run, {})
    elements = Elements(page.render(report, pictures(report)))
    assert "AUROC" not in elements.text
    assert len([a for a in elements.all("svg") if a.get("class") == "chart"]) == 2


def test_light_and_dark_and_phones_are_provided_for(write_run: Any) -> None:
    html = page.render(build(write_run, {}), {})
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
