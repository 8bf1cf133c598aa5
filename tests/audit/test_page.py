"""The page of an audit: names that would be markup, a night without images, and a real browser."""

from __future__ import annotations

import json
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
from tests.browser import needs_chromium, opened
from tests.shards import digits

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
    gates = ["flagged_share < 0.05", "psi < 100", "quarantined < 1%", "embedding_auroc < 0.6"]
    found = nights.audit("--night", "n2", "--gate", *gates)[1]
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
    empty["embedding_drift"] = None
    empty["metrics"] = dict.fromkeys(found["metrics"]) | {"images": 0, "flagged": 0, "quarantined_rows": 0}
    html = page.render(empty, rows, [])
    assert 'id="trend"' in html
    assert 'id="slices"' not in html


@pytest.mark.system
@needs_chromium
@pytest.mark.parametrize(
    "context",
    [{"viewport": {"width": 1280, "height": 900}}, {"viewport": {"width": 360, "height": 780}, "color_scheme": "dark"}],
)
@pytest.mark.parametrize("first", [False, True])
def test_the_page_in_a_browser(
    browser: Any, audited: Any, drawn: Chart, tmp_path: Path, context: dict[str, Any], first: bool
) -> None:
    found, rows = alone(audited) if first else audited
    (tmp_path / "audit.html").write_text(page.render(found | {"map": drawn.numbers}, rows, None, drawn))
    problems: list[str] = []
    tab = opened(browser, tmp_path / "audit.html", problems, **context)
    assert tab.locator(".plot .main-svg").count() >= (3 if first else 6)
    points = '[data-plot="figures"] .barlayer .point' if first else '[data-plot="share"] .scatterlayer .point'
    assert tab.locator(points).count() >= (5 if first else 2)
    assert tab.evaluate("document.documentElement.scrollWidth") <= context["viewport"]["width"]
    assert tab.title() == "regrad audit of n2"
    assert tab.locator("#chart .legend button").all_text_contents() == ["baseline100", "this night100"]
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
    assert [*figures] == ["flagged_share", "quarantined", "psi", "ks", "prediction_psi", "embedding_auroc"]
    share = figures["flagged_share"]
    assert (share["baseline"], share["bound"], share["exceeded"]) == (found["baseline"]["flagged_share"], 0.05, True)
    assert share["said"].endswith("gate < 5.00 %)")
    assert (figures["psi"]["bound"], figures["psi"]["exceeded"], figures["ks"]["bound"]) == (100, False, None)


def test_what_the_network_sees_has_a_section(audited: Any) -> None:
    found, rows = audited
    numbers = found["embedding_drift"]
    # More than a third of the night is noise; the first night and the one of nothing had none, and no gate on it.
    assert numbers["sampled"] == {"baseline": 200, "night": 70}
    assert numbers["drifted"]
    assert numbers["mmd_p"] < 0.005
    assert found["gates"][-1]["verdict"] == "exceeded"
    assert found["gates"][-1]["value"] == numbers["auroc"] == rows[-1]["embedding_auroc"] > 0.6
    assert [row["embedding_auroc"] is None for row in rows] == [False, True, False]
    html = page.render(found, rows, None)
    assert html.count(' id="seen"') == 1
    assert f'<td class="wrong">{numbers["mmd_p"]:.4g}</td>' in html
    assert "70 images of the night against 200" in html
    assert ' id="seen"' not in page.render(found | {"embedding_drift": None}, rows, None)


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
