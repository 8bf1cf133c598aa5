"""What both pages share: templates filled so that they need nothing else, and how values are printed."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import plotly.offline
from markupsafe import Markup

from regrad.formatting import DASH, count
from regrad.pages.thumbnails import TOO_LATE, Thumbnail

SHARED = "regrad.pages"  # the template that all pages extend, its parts, the style, and what draws the plots


def fill(room: str, page: str, scripts: Sequence[str] = (), **values: Any) -> str:
    """``page``.html of a ``room`` (a package) with its ``values``, the style and ``page``.js inside, all escaped.

    A template of the room goes before a shared one of the same name.

    Args:
        scripts: files of this package that ``page``.js comes after.
    """

    # Our own files and the library's: nothing in them to escape. The browser runs no script but these two.
    library, library_digest = _library()
    shared = [_read(SHARED, name) for name in ("plots.js", *scripts)]
    own = Markup("".join([*shared, _read(room, f"{page}.js")]))
    hashes = Markup(" ".join(f"'sha256-{digest}'" for digest in (library_digest, _digest(own))))
    style = Markup(stylesheet())
    values |= {"style": style, "script": own, "plotly": library, "hashes": hashes}
    return _environment(room).get_template(f"{page}.html").render(**values)


@functools.cache
def _environment(room: str) -> jinja2.Environment:
    """Where the templates of a room are found; it keeps them, since to compile one takes longer than to fill it."""

    def source(name: str) -> str:
        return _read(room if resources.files(room).joinpath(name).is_file() else SHARED, name)

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": two_decimals,
        "fine": two_figures,
        "number": format_number,
        "unbroken": _unbroken,
        "breakable": _breakable,
        "short": short,
    }
    environment.filters.update(filters)
    return environment


@functools.cache
def _library() -> tuple[Markup, str]:
    """What draws the plots, and its digest."""
    library = Markup(plotly.offline.get_plotlyjs())
    return library, _digest(library)


def stylesheet() -> str:
    """The style that every page has."""
    return _read(SHARED, "page.css")


def _read(room: str, name: str) -> str:
    return resources.files(room).joinpath(name).read_text("utf-8")


def late_pictures(thumbnails: Mapping[str, Sequence[Thumbnail]]) -> str:
    """How many pictures were not fetched in time, in words; empty for none."""
    late = sum(picture.problem == TOO_LATE for pictures in thumbnails.values() for picture in pictures)
    return count(late, "picture") if late else ""


def two_decimals(share: float | None) -> str:
    """A share in percent as tables of the literature print it.

    >>> two_decimals(0.98079), two_decimals(None)
    ('98.08', '–')
    """
    return DASH if share is None else f"{100 * share:.2f}"


def two_figures(share: float | None) -> str:
    """A share in percent with two significant figures: risks may be tiny.

    >>> two_figures(0.0012), two_figures(0.002), two_figures(0.31), two_figures(1.0), two_figures(None)
    ('0.12', '0.20', '31', '100', '–')
    """
    if share is None:
        return DASH
    return "100" if share >= 0.995 else f"{100 * share:#.2g}".rstrip(".")


def format_number(value: float | str | None) -> str:
    """``value`` with four significant digits, without a tail of zeros; words as they are.

    >>> format_number(0.00012344), format_number(1500.0), format_number(2.0), format_number(None), format_number("inf")
    ('0.0001234', '1500', '2', '–', 'inf')
    """
    return DASH if value is None else value if isinstance(value, str) else f"{value:.4g}"


def short(text: object, most: int = 200) -> str:
    """``text`` with its middle left out where it is longer than ``most``: a page repeats names many times.

    >>> short("x" * 5, 3)
    'x…x'
    """
    text = str(text)
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[len(text) - half :]}"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested dictionaries as dotted keys and printable values, in order.

    >>> flatten({"model": {"classes": 10}, "scores": ["regrad", "entropy"], "none": {}})
    [('model.classes', '10'), ('scores', 'regrad, entropy'), ('none', '–')]
    """
    if isinstance(value, dict) and value:
        return [
            pair for key, item in value.items() for pair in flatten(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        return [(prefix, ", ".join(map(str, value)) or DASH)]
    return [(prefix, DASH if value in (None, {}, "") else str(value))]


def _unbroken(sentence: str) -> str:
    """No line break between a number and its sign."""
    return sentence.replace(" %", "\u00a0%").replace(" > ", "\u00a0>\u00a0")


def _breakable(name: str) -> Markup:
    """A score's name, which may be broken after an underscore: names are long and phones narrow."""
    return Markup("_<wbr>").join(name.split("_"))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
