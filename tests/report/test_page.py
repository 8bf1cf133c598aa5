"""The page: self-contained, escaped, and with every number and picture in it."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad import storage
from regrad.pages.thumbnails import Thumbnail, limit
from regrad.report import numbers, page
from regrad.runs import scored

HOSTILE = ["<script>alert(1)</script>", '"><img onerror=alert(1) src=x>', "</style><b>", "x" * 10_000, "שלום 🙂"]
RNG = np.random.default_rng(1)


class Elements(HTMLParser):
    """Every element with its attributes, and all text outside of <style> and <script>."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._style = tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def build(write_run: Any, sets: dict[str, str], top: int = 4, class_names: list[str] | None = None) -> dict[str, Any]:
    model = {"spec": "tests:network", "network": "f" * 64, "classes": 10, "class_names": class_names}
    scores = {"regrad": RNG.normal(0, 1, 30), "max_probability": RNG.normal(0, 1, 30)}
    labels = [row % 10 for row in range(30)]
    known = scored.load_run(scored.ID_NAME, write_run("id", scores, labels=labels, model=model))
    unknown = []
    for name, folder in sets.items():
        values = {score: RNG.normal(1, 1, 20) for score in scores}
        unknown.append(scored.load_run(name, write_run(folder, values, model=model)))
    return storage.published(numbers.summarise(known, unknown, known.output + "-report", top=top)[0])


def pictures(report: dict[str, Any]) -> dict[str, list[Thumbnail]]:
    return {
        name: [Thumbnail("data:image/webp;base64,AAAA", 8, 8) for _ in rows]
        for name, rows in report["pictures"].items()
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
        assert sentence.replace(" %", "\u00a0%").replace(" > ", "\u00a0>\u00a0") in text
    assert "f" * 64 in text


def test_scores_are_ranked_by_auroc(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos"})
    for score, value in (("regrad", 0.6), ("max_probability", 0.9)):
        report["scores"][score]["ood"]["photos"]["auroc"] = value
    text = Elements(page.render(report, {})).text
    assert text.index("90.00") < text.index("60.00")


def test_the_best_at_errors_stands_first_and_others_have_their_distance_to_it(write_run: Any) -> None:
    scores = {name: RNG.normal(0, 1, 30) for name in ("regrad", "max_probability")}
    labels, predictions = [row % 10 for row in range(30)], [row % 7 for row in range(30)]
    run = scored.load_run(scored.ID_NAME, write_run("id", scores, labels=labels, predictions=predictions))
    report = storage.published(numbers.summarise(run, [], run.output + "-report")[0])
    best, (other, behind) = report["best_at_errors"]["score"], *report["best_at_errors"]["behind"].items()
    rows = re.findall(r"<tr[^>]*>\s*<th scope=\"row\">.*?</tr>", page.render(report, {}), re.DOTALL)
    texts = [re.sub(r"<wbr>|\s+", "", Elements(row).text) for row in rows]
    places = [next(place for place, text in enumerate(texts) if text.startswith(name)) for name in (best, other)]
    assert places[1] == places[0] + 1
    assert 'class="best"' in rows[places[0]]
    assert 'class="best"' not in rows[places[1]]
    low, high = behind["interval"]
    assert f"{100 * behind['difference']:.2f}{100 * low:.2f}to{100 * high:.2f}" in texts[places[1]].replace("−", "-")


def test_doubtful_labels_are_a_table_and_a_sheet(write_run: Any) -> None:
    p = np.full((30, 10), 0.01) + 0.9 * np.eye(10)[np.arange(30) % 10]
    labels = [(row + (row < 5)) % 10 for row in range(30)]
    model = {"spec": "m", "network": "f" * 64, "classes": 10, "class_names": [*HOSTILE, *"abcde"]}
    run = write_run("id", {"regrad": RNG.normal(0, 1, 30)}, labels=labels, probabilities=p, model=model)
    known = scored.load_run(scored.ID_NAME, run)
    report = storage.published(numbers.summarise(known, [], known.output + "-report", top=12)[0])
    assert report["doubtful"]["doubtful"] == 5
    html = page.render(report, pictures(report))
    elements = Elements(html)
    assert "The network contradicts 5 of 30 labels" in elements.text
    (card,) = re.findall(r"<h3>Doubtful labels</h3>(.*?)</table>", html, re.DOTALL)
    assert len(re.findall("<tr><th", card)) == 1 + 5  # the heading, and five pairs
    own = [float(item["data-own"]) for item in elements.all("li") if item.get("data-own")]
    assert own == pytest.approx([0.01] * 4)  # a third of the pictures
    (option,) = [item for item in elements.all("option") if (item.get("value") or "").endswith("-doubtful")]
    assert option["value"] == "0-doubtful"
    plain = storage.published(numbers.summarise(known, [], known.output + "-report", top=0)[0])
    assert "data-own" not in page.render(plain, {})
    nothing = page.render(plain | {"doubtful": None, "headline": [""]}, {})
    assert "Doubtful labels" not in nothing
    assert "doubtful.csv" not in nothing


def test_the_figure_of_the_page_is_that_of_the_measured_table() -> None:
    told = (Path(__file__).parents[2] / "docs/tables/probes.md").read_text("utf-8")
    near, pairs = page.NEAR_BY_ERRORS["near"], page.NEAR_BY_ERRORS["pairs"]
    whole = told[told.index("**All networks**") :]
    assert f" {pairs} pairs" in whole[: whole.index("\n")]
    assert whole.splitlines()[2].startswith("|  | pairs within one point, %, all |")
    assert f"| Errors | {100 * near / pairs:.2f} |" in whole


def test_the_page_needs_nothing_from_outside(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos"})
    html = page.render(report, pictures(report))
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert tag not in ("iframe", "object", "embed", "link") or (attributes.get("href") or "").startswith("data:")
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))
        assert not any(name.startswith("on") for name in attributes)


def test_only_the_two_scripts_of_the_page_may_run(write_run: Any) -> None:
    html = page.render(build(write_run, {}), {})
    policy = next(
        m["content"] or "" for m in Elements(html).all("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert policy.endswith("script-src " + " ".join(f"'sha256-{digest}'" for digest in digests))


def test_pictures_have_alt_texts_and_plots_have_labels(write_run: Any) -> None:
    report = build(write_run, {"photos": "photos"})
    elements = Elements(page.render(report, pictures(report)))
    assert len(elements.all("img")) == 8
    rows = itertools.chain.from_iterable(report["pictures"].values())
    for attributes, row in zip(elements.all("img"), rows, strict=True):
        assert row["id"] in (attributes["alt"] or "")
    plots = [attributes for attributes in elements.all("div") if attributes.get("class") == "plot"]
    kinds = [attributes["data-plot"] for attributes in plots]
    assert kinds == ["distribution", "roc", "pr", "reliability", "risk", "lift"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in plots)


def test_a_page_of_2000_thumbnails_is_under_25_mb(write_run: Any) -> None:
    report = build(write_run, {})
    rows = report["pictures"][scored.ID_NAME]
    report["pictures"][scored.ID_NAME] = [rows[0] | {"id": f"{'k' * 100}-{number}"} for number in range(2000)]
    thumbnail = Thumbnail("data:image/webp;base64," + "A" * (limit(2000) - 23), 160, 160)
    html = page.render(report, {scored.ID_NAME: [thumbnail] * 2000})
    assert html.count("<img") == 2000
    assert 18_000_000 < len(html.encode()) < 25_000_000


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(write_run: Any, text: str) -> None:
    report = build(write_run, {text: "photos"}, class_names=[text] * 10)
    plain = build(lambda name, *a, **k: write_run(f"plain-{name}", *a, **k), {"photos": "p"}, class_names=["c"] * 10)
    for rows in report["pictures"].values():
        for row in rows:
            row["id"] = row["source"] = text
    report["runs"][scored.ID_NAME]["config"]["weights"] = text
    sheets = {name: [Thumbnail(None, problem=text) for _ in rows] for name, rows in report["pictures"].items()}
    html = page.render(report, sheets)
    elements = Elements(html)
    assert text in elements.text
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    placeholders = {name: [Thumbnail(None, problem="gone") for _ in rows] for name, rows in sheets.items()}
    placeholders["photos"] = placeholders.pop(text)
    assert {tag for tag, _ in elements.found} == {tag for tag, _ in Elements(page.render(plain, placeholders)).found}


def test_long_names_are_shortened_wherever_they_repeat(write_run: Any) -> None:
    report = build(write_run, {}, top=20)
    for row in report["pictures"][scored.ID_NAME]:
        row["id"] = row["source"] = "n" * 10_000
    plain = len(page.render(build(lambda name, *a, **k: write_run(f"p-{name}", *a, **k), {}, top=20), {}))
    assert len(page.render(report, {})) < plain + 20 * 1500


def test_missing_pictures_and_names_are_said(write_run: Any) -> None:
    report = build(write_run, {}, class_names=["zero", "one"] + ["more"] * 8)
    report["pictures"][scored.ID_NAME][0]["prediction"] = 1
    gone = {scored.ID_NAME: [Thumbnail(None, problem="not in its source any more")] * 4}
    text = Elements(page.render(report, gone)).text
    assert "no picture: not in its source any more" in text
    assert "predicted one" in text


def test_a_page_without_thumbnails_lists_the_images(write_run: Any) -> None:
    report = build(write_run, {})
    elements = Elements(page.render(report, {}))
    assert not elements.all("img")
    assert "made without thumbnails" in elements.text
    assert "no picture" not in elements.text
    assert all(row["id"] in elements.text for row in report["pictures"][scored.ID_NAME])


def test_a_report_without_unknown_images_has_no_rates_of_catching_them(write_run: Any) -> None:
    report = build(write_run, {})
    elements = Elements(page.render(report, pictures(report)))
    assert "FPR95" not in elements.text
    assert not [a for a in elements.all("div") if a.get("data-plot") in ("roc", "pr")]
    assert "Most uncertain: this run" in elements.text


def test_without_labels_and_unknown_images_no_score_can_be_judged(write_run: Any) -> None:
    known = scored.load_run(scored.ID_NAME, write_run("id", {"regrad": RNG.normal(0, 1, 30)}))
    summary, _ = numbers.summarise(known, [], known.output + "-report")
    elements = Elements(page.render(storage.published(summary), {}))
    assert "How far each score can be trusted" not in elements.text
    assert "No labels:" in elements.text
    assert [a["data-plot"] for a in elements.all("div") if a.get("class") == "plot"] == ["distribution"]


def test_classes_and_shards_are_listed_worst_first(write_run: Any) -> None:
    report = build(write_run, {}, class_names=[f"class-{number}" for number in range(10)])
    text = Elements(page.render(report, {})).text
    text = text[text.index("By predicted class") :]
    ranked = [f"class-{entry['class']}" for entry in report["rates"][scored.ID_NAME]["classes"]]
    places = [text.index(name) for name in ranked]
    assert places == sorted(places)
    assert "id.parquet" in text
