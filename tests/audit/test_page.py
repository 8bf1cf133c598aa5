"""The page of an audit: names that would be markup, a night without images, and a real browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from regrad.audit import page
from regrad.audit.history import History
from regrad.audit.night import BASELINE, NIGHT
from regrad.maps.chart import Chart, draw_map
from regrad.runs.scored import load_run
from regrad.runs.threshold import Threshold
from tests.audit.test_run import Nights, noise
from tests.shards import digits

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = '<script>document.title="owned"</script>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nights")


@pytest.fixture(scope="module")
def audited(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An audit of the third night, and the history; with names that would be markup if they were not escaped."""
    nights = Nights(folder / "in", str(folder / "out"))
    nights.settings += ["--embeddings", "--map-points", "0"]
    nights.arrive("known.parquet", digits(200))
    nights.baseline()
    nights.arrive("0.parquet", digits(60))
    nights.audit("--night", "n0")
    nights.audit("--night", "n1")  # nothing
    nights.arrive("1.parquet", [*digits(40), *noise(30)])
    found = nights.audit("--night", "n2", "--gate", "flagged_share < 0.05", "psi < 100", "quarantined < 1%")[1]
    found = json.loads(json.dumps(found))
    found["class_names"] = [HOSTILE] * 10
    found["rates"]["sources"][0]["source"] = f"s3://bucket/{HOSTILE}.tar"
    found["pictures"][0]["id"] = '"><img onerror=alert(1) src=x>'
    return found, History(str(folder / "out/audit")).rows


@pytest.fixture
def drawn(audited: Any, folder: Path, plain_maps: None) -> Chart:
    """A map of the baseline and of all that has come in."""
    runs = [load_run(name, str(folder / "out" / place)) for name, place in ((BASELINE, "baseline"), (NIGHT, "audit"))]
    chart = draw_map(runs, Threshold("entropy", audited[0]["threshold"]["value"], {}), 200)
    assert chart is not None
    return chart


def test_what_came_from_data_is_text(audited: Any) -> None:
    html = page.render(*audited, None)
    assert HOSTILE not in html
    assert "<img onerror" not in html
    assert "Trend over 3 nights" in html
    assert 'class="wrong">exceeded' in html
    assert html.count("not evaluated") == 0


def test_a_night_without_images_has_a_page(audited: Any) -> None:
    found, rows = audited
    empty = found | {"images": 0, "rates": None, "predictions": None, "histogram": None, "pictures": [], "gates": []}
    empty["metrics"] = dict.fromkeys(found["metrics"]) | {"images": 0, "flagged": 0, "quarantined_rows": 0}
    html = page.render(empty, rows, [])
    assert 'id="trend"' in html
    assert 'id="slices"' not in html


@pytest.mark.system
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize(
    "context",
    [{"viewport": {"width": 1280, "height": 900}}, {"viewport": {"width": 360, "height": 780}, "color_scheme": "dark"}],
)
@pytest.mark.parametrize("first", [False, True])
def test_the_page_in_a_browser(
    audited: Any, drawn: Chart, tmp_path: Path, context: dict[str, Any], first: bool
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install '.[dev]')")
    found, rows = alone(audited) if first else audited
    (tmp_path / "audit.html").write_text(page.render(found | {"map": drawn.numbers}, rows, None, drawn))
    problems: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--headless"])
        tab = browser.new_context(**context).new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        tab.goto((tmp_path / "audit.html").as_uri())
        tab.wait_for_selector("html.drawn", timeout=60_000)
        assert tab.locator(".plot .main-svg").count() >= (3 if first else 6)
        drawn = '[data-plot="figures"] .barlayer .point' if first else '[data-plot="share"] .scatterlayer .point'
        assert tab.locator(drawn).count() >= (5 if first else 2)
        assert tab.evaluate("document.documentElement.scrollWidth") <= context["viewport"]["width"]
        assert tab.title() == "regrad audit of n2"
        assert tab.locator("#chart .legend button").all_text_contents() == ["baseline100", "this night100"]
        browser.close()
    assert problems == []


def alone(audited: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same night as if it were the first."""
    found, rows = audited
    return found, rows[-1:]


def test_a_first_night_is_held_against_baseline_and_gates_in_one_chart(audited: Any) -> None:
    found, rows = alone(audited)
    html = page.render(found, rows, None)
    assert 'data-plot="figures"' in html
    assert not any(f'data-plot="{kind}"' in html for kind in ("share", "drift", "volume", "quarantine"))
    figures = {figure["name"]: figure for figure in page._figures(found)}
    assert [*figures] == ["flagged_share", "quarantined", "psi", "ks", "prediction_psi"]
    share = figures["flagged_share"]
    assert (share["baseline"], share["bound"], share["exceeded"]) == (found["baseline"]["flagged_share"], 0.05, True)
    assert share["said"].endswith("gate < 5.00 %)")
    assert (figures["psi"]["bound"], figures["psi"]["exceeded"], figures["ks"]["bound"]) == (100, False, None)


def test_nights_without_images_make_no_trend(audited: Any) -> None:
    found, rows = audited
    assert [row["flagged_share"] is None for row in rows] == [False, True, False]
    assert 'data-plot="share"' not in page.render(found, rows[1:], None)
    assert 'data-plot="share"' in page.render(found, rows, None)


def test_a_gate_on_another_metric_is_a_figure_too(audited: Any) -> None:
    found = audited[0]
    gates = [{"metric": "images", "operator": ">", "bound": 10.0, "verdict": "held"}]
    figures = {figure["name"]: figure["said"] for figure in page._figures(found | {"gates": gates})}
    assert figures["images"] == "70 (gate > 10)"
