"""The page in a real browser: no error, no request, filters that filter, plots that are drawn."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regrad import storage
from regrad.compare import comparison
from regrad.compare import page as comparison_page
from regrad.maps.chart import draw_map
from regrad.metrics.wilson import share_interval
from regrad.pages.thumbnails import Thumbnail, shrink
from regrad.report import numbers, page
from regrad.runs import scored
from tests.browser import needs_chromium, opened

pytestmark = [pytest.mark.system, needs_chromium, pytest.mark.usefixtures("plain_maps")]

RNG = np.random.default_rng(0)
HOSTILE = ['<script>document.title="owned"</script>', '"><img onerror=alert(1) src=x>', "שלום 🙂", "x" * 10_000]
CARD = "#sheet li:visible"
AT_ONCE = 200
POINTS = 600


def picture(number: int) -> Thumbnail:
    """A coloured square."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (number * 7 % 256, number * 13 % 256, number * 29 % 256)).save(buffer, "PNG")
    return shrink(buffer.getvalue())


def write_report(write_run: Any, tmp_path: Path, top: int) -> Path:
    """A report of twice ``top`` pictures with names that would be markup if they were not escaped."""
    labels = (np.arange(1200) % 10).tolist()
    model = {"spec": "tests:network", "network": "f" * 64, "classes": 10, "class_names": (HOSTILE * 3)[:10]}
    make = {"known": (1200, 0.0, labels), HOSTILE[0]: (1300, 1.5, None)}
    loaded = []
    for number, (count, shift, given) in enumerate(make.values()):
        scores = {"regrad": RNG.lognormal(shift, 1, count), "entropy": RNG.normal(shift, 1, count)}
        p = RNG.dirichlet(np.ones(10), count)
        places = RNG.uniform([number, 0], [number + 1, 1], (count, 2))  # the second set lies to the right of the first
        output = write_run(f"run-{number}", scores, given, probabilities=p, model=model, embeddings=places)
        loaded.append(scored.load_run(scored.ID_NAME if number == 0 else HOSTILE[0], output))
    summary, rule = numbers.summarise(loaded[0], loaded[1:], str(tmp_path / "out"), top=top)
    drawn = draw_map(loaded, rule, POINTS)
    assert drawn is not None
    report = storage.published(summary | {"map": drawn.numbers})
    report["pictures"][scored.ID_NAME][0]["id"] = HOSTILE[1]
    pictures = {name: [picture(number) for number in range(len(rows))] for name, rows in report["pictures"].items()}
    path = tmp_path / "report.html"
    on_map = {name: [picture(row["row"]) for row in rows] for name, rows in drawn.wanted.items()}
    path.write_text(page.render(report, pictures, drawn, on_map))
    assert path.stat().st_size < 25_000_000
    return path


def test_the_page_in_a_browser(browser: Any, write_run: Any, tmp_path: Path) -> None:
    problems: list[str] = []
    report_file = write_report(write_run, tmp_path, top=1000)
    tab = opened(browser, report_file, problems, viewport={"width": 1280, "height": 900})
    assert tab.title().startswith("regrad report")
    assert tab.locator(".plot svg.main-svg").count() >= 6

    # Contact sheets: a view, a class, an order, a name; as many at once as a browser lays out in no time.
    shown = scores(tab)
    assert len(shown) == AT_ONCE
    assert shown == sorted(shown, reverse=True)
    tab.click("#more")
    assert len(scores(tab)) == 2 * AT_ONCE
    assert scores(tab) == sorted(scores(tab), reverse=True)
    assert tab.locator("#sheet img").count() == 2 * AT_ONCE
    tab.select_option("[name=view]", "0-errors")
    assert set(tab.locator(CARD + " .wrong").all_text_contents()) == {"wrong"}
    assert scores(tab) == sorted(scores(tab))
    tab.select_option("[name=view]", "0-doubtful")
    assert tab.locator("[name=sort]").input_value() == "own"
    own = tab.eval_on_selector_all(CARD, "cards => cards.map(card => Number(card.dataset.own))")
    assert own == sorted(own)
    assert 0 < own[0] < own[-1] < 1
    tab.select_option("[name=view]", "")
    assert tab.locator("#count").inner_text() == "2000 of 2000 pictures"
    assert tab.locator("#more").inner_text() == "Show 200 more of 1800"
    tab.select_option("[name=class]", "3")
    classes = tab.eval_on_selector_all(CARD, "cards => cards.map(card => card.dataset.class)")
    assert set(classes) == {"3"}
    tab.select_option("[name=class]", "")
    tab.select_option("[name=source]", "1")
    assert tab.locator("#count").inner_text() == "1000 of 2000 pictures"
    tab.select_option("[name=source]", "")
    tab.fill("[name=find]", "onerror")
    assert tab.locator(CARD).count() == 1
    assert tab.locator("#more").is_hidden()
    tab.fill("[name=find]", "no such id")
    assert tab.locator("#nothing").is_visible()
    tab.fill("[name=find]", "")

    # Plots follow the choice of score.
    tab.select_option("[name=score]", "entropy")
    distribution = tab.locator("[data-plot=distribution]")
    wait_until(tab, lambda: "entropy" in (distribution.text_content() or ""))

    # The keyboard reaches the filters.
    tab.focus("nav a:last-child")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.name") == "view"

    use_the_map(tab)
    assert tab.title().startswith("regrad report")  # no name became a script
    assert_error_bars(tab)
    before = plot_widths(tab)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert max(plot_widths(tab)) <= 300 < min(before)  # two of them side by side on paper
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    wait_until(tab, lambda: plot_widths(tab) == before)
    tab.pdf(path=str(tmp_path / "print.pdf"))
    assert (tmp_path / "print.pdf").stat().st_size > 10_000
    assert problems == []


def use_the_map(tab: Any) -> None:
    """A box, a lasso, a button and the keyboard select what they should; the list and the CSV have just that."""
    told = tab.evaluate("data.map")
    points = list(zip(told["x"], told["y"], strict=True))
    canvas = tab.locator("#chart .beside canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    # The whole map and a margin of 4 % on each side are on the screen, with one scale for both axes.
    spans = [max(axis) - min(axis) for axis in (told["x"], told["y"])]
    scale = min(box["width"] / spans[0], box["height"] / spans[1]) / 1.08
    middle = [(max(axis) + min(axis)) / 2 for axis in (told["x"], told["y"])]

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            box["x"] + box["width"] / 2 + (x - middle[0]) * scale,
            box["y"] + box["height"] / 2 - (y - middle[1]) * scale,
        )

    def drag(corners: list[tuple[float, float]], add: bool = False) -> None:
        tab.mouse.move(*at(*corners[0]))
        if add:
            tab.keyboard.down("Shift")
        tab.mouse.down()
        for corner in corners[1:]:
            tab.mouse.move(*at(*corner), steps=3)
        tab.mouse.up()
        tab.keyboard.up("Shift")

    def within(least: float, most: float, low: float, high: float) -> set[str]:
        return {told["id"][n] for n, (x, y) in enumerate(points) if least < x < most and low < y < high}

    def saved() -> set[str]:
        with tab.expect_download() as download:
            tab.click("#chart [name=download]")
        rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8"))))
        assert all(row["source"] in told["sources"] and row["set"] in told["sets"] for row in rows)
        return {row["id"] for row in rows}

    # A box on the left third: images of the first set alone, the most uncertain first.
    tab.select_option("#chart [name=drag]", "box")
    third, top = spans[0] / 3, spans[1] / 2
    drag([(-20, -20), (third, top)])
    left = within(-20, third, -20, top)
    assert len(left) > 20
    assert saved() == left
    listed = "#chart .listed li"
    assert tab.locator(listed).count() == min(len(left), 200)
    shown = tab.eval_on_selector_all(
        listed, "cards => cards.map(card => data.map.score[Number(card.id.split('-')[1])])"
    )
    assert shown == sorted(shown, reverse=True)
    assert tab.locator(f"{listed} img").count() > 0
    # A lasso around the right, which adds to it: a triangle, of which each point's side of its edges tells the members.
    tab.select_option("#chart [name=drag]", "lasso")
    right, middle_of = max(told["x"]) + 20, spans[0] * 0.6
    drag([(middle_of, -20), (right, -20), (right, spans[1] + 20), (middle_of, -20)], add=True)
    slope = (spans[1] + 40) / (right - middle_of)
    triangle = {
        told["id"][n] for n, (x, y) in enumerate(points) if middle_of < x < right and y + 20 < slope * (x - middle_of)
    }
    assert triangle
    edge = {told["id"][n] for n, (x, y) in enumerate(points) if abs(y + 20 - slope * (x - middle_of)) < 4 / scale}
    assert (saved() ^ (left | triangle)) <= edge

    # Colours: the buttons are the groups, which select their members.
    tab.select_option("#chart [name=colour]", "flagged")
    flagged = {told["id"][n] for n, value in enumerate(told["flagged"]) if value}
    tab.click("#chart [name=clear]")
    button = tab.locator("#chart .legend button").nth(1)
    button.focus()
    tab.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert saved() == flagged
    tab.select_option("#chart [name=colour]", "class")
    assert tab.locator("#chart .legend button").count() == len(told["classes"])
    before = canvas.screenshot()
    tab.select_option("#chart [name=colour]", "set")
    wait_until(tab, lambda: canvas.screenshot() != before)

    # The keyboard: from the most uncertain point to its neighbour on the left, then below, which Enter selects.
    tab.click("#chart [name=clear]")
    canvas.focus()
    for key in ("Home", "ArrowLeft", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    place = max(range(len(points)), key=lambda n: told["score"][n])
    for axis in (0, 1):
        (x, y), ahead = points[place], []
        for n, (x2, y2) in enumerate(points):
            along, across = ((x - x2, abs(y - y2)), (y - y2, abs(x - x2)))[axis]
            if along > 0 and along >= across:
                ahead.append((math.hypot(along, across), n))
        place = min(ahead)[1]
    (name,) = saved()
    assert name == told["id"][place]
    assert name in (tab.locator("#chart .point").text_content() or "")
    canvas.focus()
    tab.keyboard.press("Escape")
    assert tab.locator("#chart output").inner_text() == "None selected."
    tab.fill("#chart [name=find]", "run-1/00")
    assert saved() == {name for name in told["id"] if "run-1/00" in name}
    tab.focus("#chart .listed")
    tab.keyboard.press("ArrowDown")
    assert tab.locator(f"{listed}.at").count() == 1
    tab.click("#chart [name=zoom]")
    tab.click("#chart [name=zoom]")


def assert_error_bars(tab: Any) -> None:
    """The diagram's error bars end where the interval of each bin's accuracy does."""
    plot = "document.querySelector('[data-plot=reliability]')"
    told, drawn = tab.evaluate(f"[data.reliability, {plot}.data.find((trace) => trace.error_y)]")
    assert told["images"]
    for place, (images, accuracy) in enumerate(zip(told["images"], told["accuracy"], strict=True)):
        low, high = share_interval(round(images * accuracy), images)
        assert accuracy + drawn["error_y"]["array"][place] == pytest.approx(high)
        assert accuracy - drawn["error_y"]["arrayminus"][place] == pytest.approx(low)


def wait_until(tab: Any, holds: Callable[[], bool]) -> None:
    """Of the driver's own waits, those for a function would have to evaluate a string, which the page forbids."""
    for _ in range(200):
        if holds():
            return
        tab.wait_for_timeout(50)
    raise AssertionError("it did not come to hold within ten seconds")


def plot_widths(tab: Any) -> list[float]:
    drawn = "plots => plots.map(plot => plot.getBoundingClientRect().width)"
    return tab.eval_on_selector_all(".plot svg.main-svg:first-child", drawn)


def scores(tab: Any) -> list[float]:
    """Of the pictures on the screen, in order."""
    return [float(value) for value in tab.eval_on_selector_all(CARD, "cards => cards.map(card => card.dataset.score)")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_screens_and_phones_light_and_dark(
    browser: Any, write_run: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    problems: list[str] = []
    report_file = write_report(write_run, tmp_path, top=50)
    phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    tab = opened(browser, report_file, problems, viewport={"width": width, "height": 844}, color_scheme=scheme, **phone)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
    shot = tmp_path / "page.png"
    tab.screenshot(path=str(shot))
    brightness = np.asarray(Image.open(shot).convert("L"))[:50, :5].mean()
    assert (brightness > 200) == (scheme == "light")
    assert problems == []


@pytest.fixture
def comparison_file(write_run: Any, tmp_path: Path) -> Path:
    """A comparison of two runs whose ids and class names would be markup if they were not escaped."""
    model = {"spec": "tests:network", "network": "f" * 64, "classes": 10, "class_names": (HOSTILE * 3)[:10]}
    labels, first = (np.arange(300) % 10).tolist(), RNG.lognormal(0, 1, 300)
    loaded = []
    for side, name in enumerate("AB"):
        scores = {"regrad": first * RNG.lognormal(0, 0.3 * side, 300), "entropy": RNG.normal(side, 1, 300)}
        output = write_run("known", scores, labels, folder=name, model=model, config={"weights": HOSTILE[side]})
        loaded.append(scored.load_run(name, output))
    report = storage.published(comparison.compare(loaded[0], loaded[1], [], "quantile=0.95", 12))
    for rows in report["moved"].values():
        for row, text in zip(rows, HOSTILE, strict=False):
            row["id"] = text
    pictures = {key: [picture(number) for number in range(len(rows))] for key, rows in report["moved"].items()}
    path = tmp_path / "compare.html"
    path.write_text(comparison_page.render(report, pictures))
    return path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_comparison_in_a_browser(
    browser: Any, comparison_file: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    problems: list[str] = []
    phone = {"has_touch": True, "is_mobile": True} if width < 500 else {}
    size = {"width": width, "height": 844}
    tab = opened(browser, comparison_file, problems, viewport=size, color_scheme=scheme, **phone)
    assert tab.title().startswith("regrad comparison")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator(".sheet img").count() == 12
    assert HOSTILE[1] in (tab.locator(".sheet").first.text_content() or "")
    plane = tab.locator("[data-plot=plane]")
    assert plane.locator("svg .heatmaplayer image").count() == 1
    assert "regrad in A" in (plane.text_content() or "")
    tab.select_option("[name=score]", "entropy")
    wait_until(tab, lambda: "entropy in A" in (plane.text_content() or ""))
    tab.screenshot(path=str(tmp_path / "compare.png"))
    assert problems == []
