"""The tables as Markdown, a page each, and as one HTML page that holds all of them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from regrad.experiments.measured.results import Result
from regrad.experiments.reproduce.tables import TABLES, Table
from regrad.pages.markup import stylesheet

MISSING = "–"
UNMEASURED = "not measured"
_PLURALS = ("rounds", "pairs", "draws")  # of which runs are counted
Grid = list[list[str]]


def grids(table: Table, results: Sequence[Result]) -> Iterator[tuple[str, Grid]]:
    """For each group of experiments a caption, and rows of cells, the head first: ours and the paper's side by side.

    No rows where there is neither.
    """
    for group in dict.fromkeys(result.group for result in results):
        of_group = [result for result in results if result.group == group]
        names = list(dict.fromkeys(result.experiment for result in of_group))
        cells = {(r.experiment, r.row, r.metric): r for r in of_group}
        columns = [
            (name, paper)
            for name in names
            for paper in (False, True)
            if not paper or any(r.paper is not None for r in of_group if r.experiment == name)
        ]
        measured = {name: any(r.mean is not None for r in of_group if r.experiment == name) for name in names}
        # An experiment without images here is one column, the paper's, and a word.
        columns = [(name, paper) for name, paper in columns if paper or measured[name]]
        if not columns:
            yield caption(group, of_group, names), []
            continue
        head = ["", *(f"{name}, paper" if paper else name for name, paper in columns)]
        rows = [_row(table, row, columns, cells) for row in table.rows]
        more = [_row(table, row, columns, cells) for row in table.more]
        more = [row for row in more if any(cell != MISSING for cell in row[1:])]
        below = [[table.below, *[""] * len(columns)], *more] if more else []
        missing = [name for name in names if not measured[name]]
        yield caption(group, of_group, missing), [head, *rows, *below]


def caption(group: str, results: Sequence[Result], missing: Sequence[str]) -> str:
    """The network; runs, images, machine and day, by experiment where these differ; and what was not measured."""
    measured = [result for result in results if result.mean is not None]
    counted = [result for result in measured if result.runs_of == measured[0].runs_of]  # of others the note speaks
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(result.experiment for result in counted):
        of_name = [result for result in counted if result.experiment == name]
        alike.setdefault(_how(of_name), []).append(name)
    parts = [how if len(alike) == 1 else f"{', '.join(names)}: {how}" for how, names in alike.items()]
    if missing:
        parts.append(f"{', '.join(missing)}: {UNMEASURED} here")
    return f"**{group}**, {'; '.join(parts)}"


def _how(measured: Sequence[Result]) -> str:
    """How the numbers of an experiment came about."""
    kind, runs = measured[0].runs_of, _range(result.runs for result in measured)
    parts = [f"{runs} {kind}{'' if kind in _PLURALS else ' seed' if runs == '1' else ' seeds'}"]
    parts.append(f"{_range(result.images for result in measured)} images of each set")
    day = ", ".join(part for part in (measured[0].device, measured[0].date) if part)
    return ", ".join([*parts, *([f"on {day}"] if day else [])])


def _range(counts: Iterable[int]) -> str:
    """The smallest and the largest, or the one there is."""
    ordered = sorted(counts)
    return " to ".join(dict.fromkeys((str(ordered[0]), str(ordered[-1]))))


def _row(
    table: Table, row: str, columns: Sequence[tuple[str, bool]], cells: Mapping[tuple[str, str, str], Result]
) -> list[str]:
    return [row, *(_cell(table, [cells.get((name, row, m)) for m in table.metrics], paper) for name, paper in columns)]


def _cell(table: Table, results: Sequence[Result | None], paper: bool) -> str:
    """Every metric of a cell, ours with the interval of the first."""
    texts = []
    for result, digits in zip(results, table.metrics.values(), strict=True):
        value = None if result is None else result.paper if paper else result.mean
        deviation = None if result is None else result.paper_deviation if paper else result.deviation
        if value is not None:
            texts.append(_number(value, deviation, digits))
    first = results[0]
    text = " / ".join(texts) or MISSING
    if not paper and first is not None and first.low is not None and first.high is not None:
        digits = next(iter(table.metrics.values()))
        text += f" [{_number(first.low, None, digits)}, {_number(first.high, None, digits)}]"
    return text


def _number(value: float, deviation: float | None, digits: int) -> str:
    text = f"{value:.{digits}f}".replace("-", "−")
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def table_markdown(table: Table, results: Sequence[Result], about: Mapping[str, Any], figure: str | None) -> str:
    """The page of one table for the documentation.

    Args:
        about: what ran.
        figure: a path to its plot, relative to the page.
    """
    lines = [
        f"# {table.title}",
        "",
        f"Generated by `regrad reproduce docs`; what it means is in [{table.told_in}](../{table.told_in}). Ours stands "
        "beside the paper's number wherever the paper has the experiment.",
        "",
        table.note,
        "",
        f"Command: `{about['command']}`; each caption says how much of it has been measured so far, where and when.",
    ]
    if figure is not None:
        lines += ["", f"![{table.title}]({figure})"]
    for title, grid in grids(table, results):
        lines += ["", title + "."]
        if grid:
            lines += ["", _line(grid[0]), _line(["---"] * len(grid[0])), *map(_line, grid[1:])]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(tables: Mapping[str, tuple[list[Result], dict[str, Any]]], figures: Mapping[str, bytes]) -> str:
    """One HTML file that needs nothing else."""
    style = stylesheet()
    body = ["<h1>The paper's tables, measured again</h1>"]
    for name, (results, about) in tables.items():
        table = TABLES[name]
        body += [f"<h2>{html.escape(table.title)}</h2>", f'<p class="about">{html.escape(table.note)}</p>']
        body.append(f"<p><code>{html.escape(about['command'])}</code></p>")
        for title, grid in grids(table, results):
            head, rows = grid[:1], grid[1:]
            body += [f"<h3>{html.escape(title.replace('**', ''))}</h3>", '<div class="scroll" tabindex="0"><table>']
            body += [
                "<thead>",
                *(_html_row(row, "th") for row in head),
                "</thead><tbody>",
                *(_html_row(row, "td") for row in rows),
            ]
            body.append("</tbody></table></div>")
        if name in figures:
            body.append(figures[name].decode().partition("<svg")[2].join(("<svg", "")))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The paper\'s tables, measured again</title>'
        '<meta name="viewport" content="width=device-width"><style>'
        f"{style} td, th:first-child {{ white-space: nowrap }} svg {{ max-width: 100%; height: auto }} "
        "th:first-child { position: sticky; left: 0; background: var(--paper) }"
        f"</style></head><body><main>{''.join(body)}</main></body></html>"
    )


def _html_row(cells: Sequence[str], kind: str) -> str:
    first, *others = (html.escape(cell.strip("*") if cell.startswith("*") else cell) for cell in cells)
    return f'<tr><th scope="row">{first}</th>' + "".join(f"<{kind}>{cell}</{kind}>" for cell in others) + "</tr>"
