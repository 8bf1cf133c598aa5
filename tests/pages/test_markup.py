"""Templates that need nothing else, escaped, and how values are printed."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from regrad.pages import markup
from regrad.pages.thumbnails import TOO_LATE, Thumbnail

HOSTILE = "<script>alert('x')</script> & \"quoted\""


def preview(**more: Any) -> str:
    """The smallest of the pages."""
    values: dict[str, Any] = {"rule": "r", "score": "regrad", "headline": ["head"], "sheets": [], "data": {}}
    return markup.fill("regrad.filter", "preview", **values | {"provenance": []} | more)


def test_only_its_own_two_scripts_may_run() -> None:
    html = preview()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    hashes = {f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}" for script in scripts}
    (policy,) = re.findall(r"Content-Security-Policy\" content=\"(.*?)\"", html)
    allowed = set(re.findall(r"sha256-[\w+/=]+", policy))
    assert hashes == allowed
    assert "default-src 'none'" in policy


def test_what_comes_from_data_is_escaped() -> None:
    html = preview(rule=HOSTILE, headline=[HOSTILE], provenance=[("run", [("a", HOSTILE)])])
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert") >= 3


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(Exception, match="undefined"):
        markup.fill("regrad.filter", "preview", rule="r")


def test_every_page_has_the_style_and_needs_nothing_from_outside() -> None:
    html = preview()
    assert markup.stylesheet().strip() in html
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']https?:", html)


@pytest.mark.parametrize(
    ("share", "decimals", "figures"),
    [
        (None, "–", "–"),
        (0.0, "0.00", "0.0"),
        (0.98079, "98.08", "98"),
        (0.996, "99.60", "100"),
        (1.0, "100.00", "100"),
        (0.00012, "0.01", "0.012"),
    ],
)
def test_shares_in_percent(share: float | None, decimals: str, figures: str) -> None:
    assert markup.two_decimals(share) == decimals
    assert markup.two_figures(share) == figures


def test_long_texts_lose_their_middle() -> None:
    assert markup.short("abcdefghij", 10) == "abcdefghij"
    assert markup.short("abcdefghijk", 10) == "abcd…hijk"
    assert len(markup.short("x" * 1000)) <= 200


def test_nested_values_become_dotted_keys() -> None:
    told = {"a": {"b": 1, "c": {}}, "d": [], "e": [1, "x"], "f": [{"g": 1}], "h": None, "i": False}
    assert markup.flatten(told) == [
        ("a.b", "1"),
        ("a.c", "–"),
        ("d", "–"),
        ("e", "1, x"),
        ("f", "[{'g': 1}]"),
        ("h", "–"),
        ("i", "False"),
    ]


def test_pictures_that_came_too_late_are_counted() -> None:
    late, there = Thumbnail(None, problem=TOO_LATE), Thumbnail("data:")
    assert markup.late_pictures({"a": [there], "b": [Thumbnail(None, problem="gone")]}) == ""
    assert markup.late_pictures({"a": [late, there], "b": [late]}) == "2 pictures"
