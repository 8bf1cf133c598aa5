"""docs/peers.md: what it says of what was measured."""

from __future__ import annotations

from regrad.benchmarks.peers.page import losses_as_markdown, peers_page, speeds_as_markdown

ROUND = {"seconds": 12.34, "steady": 80.1, "peak_mb": 1234.5, "load": 2.0, "difference": 0.0}
ROWS = [
    {"name": "a", "version": "1.2", "cannot": None, "rounds": [ROUND, ROUND | {"seconds": 14.0, "load": 5.5}]},
    {"name": "b", "version": "2.0", "cannot": None, "rounds": [ROUND | {"difference": 0.0123}]},
    {"name": "c", "version": "", "cannot": "not installed", "rounds": []},
]
COUNTS = {"scored": 9, "told": 0, "lost": 1, "doubled": 0, "ended": [-9, 0], "through": 15, "nothing_to_kill": False}


def test_speeds() -> None:
    table = speeds_as_markdown({"rows": ROWS})
    assert "| a | 1.2 | 13.2 | 80.1 | 1,234 | 0 |" in table
    assert "| b | 2.0 | 12.3 | 80.1 | 1,234 | 1e-02 |" in table
    assert "| c |  | cannot: not installed |  |  |  |" in table


def test_losses() -> None:
    row = ROWS[0] | {"command killed": COUNTS, "worker killed": COUNTS | {"nothing_to_kill": True}}
    table = losses_as_markdown({"rows": [row, ROWS[2]], "images": 10})
    assert "| a | command killed | 9 | 0 | 1 | 0 | 150 | -9, 0 |" in table
    assert "| a | worker killed | it has none |  |  |  |  |  |" in table
    assert "truncated" not in table
    silent = ROWS[0] | {"truncated": COUNTS | {"scored": 10, "lost": 0}}
    assert "| truncated | 10, the broken one too | 0 |" in losses_as_markdown({"rows": [silent], "images": 10})
    assert "| c | cannot: not installed |" in table
    assert {line.count("|") for line in table.splitlines()} == {9}


def test_the_page_says_what_was_scored_and_beside_which_load() -> None:
    machine = {"date": "2027-01-02", "cores": 2, "device": "a processor", "torch": "2"}
    told = {"machine": machine, "speed": {"x": {"work": "x", "images": 10, "rows": ROWS}}, "losses": {}}
    page = peers_page(told)
    assert "2027-01-02, 2 cores (a processor), torch 2." in page
    assert "**10 images, x**, 2 rounds, load average 2.0 to 5.5:" in page
