"""The comparison's page: every number in it, everything from data as text, nothing from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad import storage
from regrad.compare import comparison, page
from regrad.pages.markup import two_decimals
from regrad.pages.thumbnails import TOO_LATE, Thumbnail
from regrad.runs import scored
from tests.report.test_page import HOSTILE, Elements

RNG = np.random.default_rng(1)
SCORES = {"regrad": RNG.normal(0, 1, 40), "max_probability": RNG.normal(0, 1, 40)}


def build(write_run: Any, text: str = "plain", top: int = 8) -> dict[str, Any]:
    """A comparison in which every name that can come from outside is ``text``."""
    model = {"spec": "tests:network", "network": "f" * 64, "classes": 10, "class_names": [text] * 10}
    config = {"weights": text, "sigma": 0.02}
    sides = []
    for side in range(2):
        values = {name: score + RNG.normal(0, 0.5, 40) * side for name, score in SCORES.items()}
        output = write_run("digits", values, labels=[row % 10 for row in range(40)], model=model, config=config)
        sides.append(scored.load_run("AB"[side], output))
        Path(output).rename(f"{output}-{side}-{len(text)}")
        sides[-1] = scored.load_run("AB"[side], f"{output}-{side}-{len(text)}")
    sides[1].info["config"]["sigma"] = text
    ood = [(named(sides[0], text), named(sides[1], text))]
    report = comparison.compare(sides[0], sides[1], ood, "quantile=0.9", top)
    for rows in report["moved"].values():
        for row in rows:
            row["id"] = row["source"] = text
    return storage.published(report)


def named(run: scored.Run, name: str) -> scored.Run:
    return scored.Run(name, run.output, run.info, run.scores)


def pictures(report: dict[str, Any], **more: Any) -> dict[str, list[Thumbnail]]:
    picture = Thumbnail(**({"uri": "data:image/webp;base64,AAAA", "width": 8, "height": 8} | more))
    return {key: [picture] * len(rows) for key, rows in report["moved"].items()}


def test_every_number_is_on_the_page(write_run: Any) -> None:
    report = build(write_run)
    elements = Elements(page.render(report, pictures(report)))
    for found in report["scores"].values():
        for side in "ab":
            assert two_decimals(found["flagged"][side]) in elements.text
            for metric in found["errors"].values():
                assert two_decimals(metric[side]) in elements.text
        assert f"{found['rank_correlation']['value']:.4g}" in elements.text
    for side in "ab":
        assert two_decimals(report["labels"]["accuracy"][side]) in elements.text
        assert report[side]["uri"] in elements.text
    assert "config.sigma" in elements.text
    assert len(elements.all("img")) == sum(map(len, report["moved"].values())) == 8
    assert all("rank" in (image["alt"] or "") for image in elements.all("img"))


def test_the_page_needs_nothing_from_outside_and_runs_only_its_own_scripts(write_run: Any) -> None:
    elements = Elements(page.render(build(write_run), {}))
    policy = next(m["content"] or "" for m in elements.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert policy.count("'sha256-") == 2
    for _, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text(write_run: Any, text: str) -> None:
    report = build(write_run, text)
    html = page.render(report, pictures(report, uri=None, problem=text))
    elements, plain = Elements(html), build(write_run)
    expected = Elements(page.render(plain, pictures(plain, uri=None, problem="gone")))
    assert text[:20] in elements.text
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert {tag for tag, _ in elements.found} == {tag for tag, _ in expected.found}
    assert len(html) < 6_000_000


def test_credentials_are_on_neither_page_nor_json(write_run: Any) -> None:
    report = build(write_run, "s3://key:secret@bucket/file?X-Amz-Signature=abc")
    for text in (json.dumps(report), page.render(report, pictures(report))):
        assert "secret" not in text
        assert "Signature=abc" not in text


def test_pictures_that_came_too_late_are_said(write_run: Any) -> None:
    report = build(write_run)
    text = Elements(page.render(report, pictures(report, uri=None, problem=TOO_LATE))).text
    assert "8 pictures had not arrived" in text
    assert "made without thumbnails" in Elements(page.render(report, {})).text


def test_a_difference_is_bold_where_its_interval_leaves_out_zero(write_run: Any) -> None:
    report = build(write_run)
    for entry in report["scores"].values():
        for metric in (*entry["errors"].values(), entry["flagged"], *entry["difference"].values()):
            metric["interval"] = [-1.0, 1.0]
    for metric in (
        *report["ood"]["plain"]["scores"].values(),
        *(report["labels"][key] for key in ("accuracy", "ece", "nll")),
    ):
        metric["interval"] = [-1.0, 1.0]
    report["labels"]["accuracy"] |= {"difference": 0.0123, "interval": [0.01, 0.02]}
    elements = Elements(page.render(report, {}))
    assert [cell.get("class") for cell in elements.all("td")].count("sure") == 1
    assert "+1.23" in elements.text
    assert "+1 to +2" in elements.text
