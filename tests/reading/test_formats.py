"""What every format promises, tried on each that is registered and on the example of docs/extending.md.

A format registered without a writer here fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrad import table
from regrad.errors import RegradError
from regrad.filter import carry_out as filters
from regrad.filter import rules
from regrad.pages.thumbnails import collect
from regrad.pipeline.check import check
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import describe, prepare
from regrad.pipeline.run import execute, score_here
from regrad.reading import formats
from regrad.reading.formats import Format, fetch_images, fetcher, format_of, kind_of, register
from regrad.reading.inputs import list_sources
from regrad.reading.samples import Sample
from regrad.runs import scored
from tests.data import ROOT
from tests.shards import Row, digits, write_folder, write_parquet, write_tar

COUNT = 40
ROWS = sorted(digits(COUNT))  # in the order of a folder
MODEL = ("--model", "tests.shards:build", "--scores", "entropy", "--samples", "0", "--unit-rows", "16")


def write_lines(path: Path, rows: list[Row]) -> str:
    """What the reader of docs/extending.md reads; the label is not in it."""
    folder = Path(write_folder(path.with_suffix(".images"), rows))
    path.write_text("".join(f"{folder / name}\n" for name, *_ in rows))
    return str(path)


WRITERS: dict[str, tuple[Callable[[Path, list[Row]], str], str]] = {
    "tar": (write_tar, "source.tar"),
    "parquet": (write_parquet, "source.parquet"),
    "folder": (write_folder, "source"),
    "lines": (write_lines, "source.lines"),
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example of the page as a package that is installed: its module, and the entry point that the page shows."""
    page = (ROOT / "docs/extending.md").read_text()
    (code,) = re.findall(r"^```python\n(# my_lines\.py\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (entry,) = re.findall(
        r'^```text\n\[project.entry-points."(regrad.formats)"\]\n(.*?)^```$', page, re.DOTALL | re.MULTILINE
    )
    place = tmp_path_factory.mktemp("installed")
    (place / "my_lines.py").write_text(code)
    (place / "my_lines-1.dist-info").mkdir()
    (place / "my_lines-1.dist-info/METADATA").write_text("Name: my_lines\nVersion: 1\n")
    (place / "my_lines-1.dist-info/entry_points.txt").write_text(f"[{entry[0]}]\n{entry[1].replace(chr(34), '')}")
    sys.modules.pop("my_lines", None)  # the tests of the pages may have imported theirs
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        patch.setattr(formats, "_formats", dict(formats.formats()))
        formats._load.cache_clear()
        assert "lines" in formats.formats()
        yield
    formats._load.cache_clear()
    sys.modules.pop("my_lines")


@pytest.fixture(params=[*formats.formats(), "lines"])
def source(request: pytest.FixtureRequest, lines: None, tmp_path: Path) -> str:
    """A source of each format with the rows ROWS."""
    write, name = WRITERS[request.param]
    return write(tmp_path / name, ROWS)


def opened(source: str) -> Format:
    (listed,) = list_sources([source])
    assert listed.uri == source
    return listed.open()


def test_its_name_tells_its_format(source: str) -> None:
    (listed,) = list_sources([source])
    assert listed.kind == (kind_of(source) or "folder") == format_of(source).kind
    assert formats.stem(source) == "source"


def test_rows_are_the_images_in_order_and_any_range_of_them(source: str) -> None:
    samples = list(opened(source).rows())
    assert [(sample.row, sample.image) for sample in samples] == [
        (row, image) for row, (_, image, _) in enumerate(ROWS)
    ]
    assert len({sample.id for sample in samples}) == COUNT
    for start, stop in ((0, 7), (13, 29), (39, 40), (30, None), (0, 0)):
        assert list(opened(source).rows(start, stop)) == samples[start:stop]


def test_it_is_counted_as_it_is_read(source: str) -> None:
    assert opened(source).length() in (None, COUNT)
    assert opened(source).count()[0] == COUNT
    assert opened(source).count(at_most=7)[0] == 7
    assert not opened(source).is_empty()


def test_rows_are_picked_and_fetched_back(source: str) -> None:
    ids = {sample.row: str(sample.id) for sample in opened(source).rows()}
    wanted = {row: ids[row] for row in (31, 3, 17, 18)}
    assert [sample.row for sample in opened(source).pick(wanted)] == sorted(wanted)
    assert dict(fetch_images(source, wanted)) == {row: ROWS[row][1] for row in wanted}
    assert not list(fetch_images(source, {1000: "none.png"}))
    assert not list(fetch_images(source, {}))


def test_an_image_that_is_a_file_of_its_own_is_named(source: str) -> None:
    files = {format_of(source).image_file(source, str(sample.id)): sample.image for sample in opened(source).rows()}
    assert all(file is None or Path(file).read_bytes() == image for file, image in files.items())
    assert (None in files) != (format_of(source).kind == "folder")


def test_what_was_read_has_the_planned_identity_until_it_changes(source: str) -> None:
    (planned,) = list_sources([source])
    reader = planned.open()
    list(reader.rows())
    assert reader.identity() == planned.identity_of(0, None)
    write, name = WRITERS[planned.kind]
    write(Path(source).parent / name, [*ROWS[:-1], (ROWS[-1][0], ROWS[0][1], 0)] if planned.files else ROWS[:-1])
    reader = planned.open()
    list(reader.rows())
    assert reader.identity() != planned.identity_of(0, None)


def test_a_copy_holds_the_chosen_images_with_their_labels(source: str, tmp_path: Path) -> None:
    reader, wanted = opened(source), [0, 5, 6, 21, 39]
    copied = tmp_path / f"copy{reader.copied_as}"
    with open(copied, "wb") as file:
        assert reader.copy(wanted, file) == len(wanted)
    (listed,) = list_sources([str(copied)])
    kept = [sample for sample in reader.rows() if sample.row in wanted]
    again = list(listed.open().rows())
    assert [(sample.image, sample.label) for sample in again] == [(sample.image, sample.label) for sample in kept]
    assert len({sample.id for sample in again}) == len(wanted)


def score(source: str, output: Path, *more: str) -> scored.Run:
    outcome = execute(prepare(parse([source, *MODEL, "--output", str(output), *more], "score", None)), score_here)
    assert outcome.exit_code == 0
    return scored.load_run("run", str(output))


def test_the_jobs_on_it(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run, a limit, the rest, pictures, copies and the count of everything again."""
    monkeypatch.setattr("regrad.cluster.tasks.each", lambda function, items, *_: map(function, items))
    model = (
        "--model",
        "tests.shards:build",
        "--scores",
        "entropy",
        "--samples",
        "0",
        "--output",
        str(tmp_path / "out"),
    )
    for limit, promised in (((), COUNT), (("--limit", "3"), 3)):
        assert f"images     {promised} to score" in describe(prepare(parse([source, *model, *limit], "", None)))
    limited = score(source, tmp_path / "limited", "--limit", "3")
    assert limited.info["counts"]["rows_scored"] == 3
    loaded = score(source, tmp_path / "out")
    assert loaded.info["counts"]["rows_scored"] == COUNT
    rows = [row for row in table.read(loaded.output).to_pylist() if row["row"] in (0, 20, 39)]
    assert len(rows) == 3
    assert all(thumbnail.uri for thumbnail in collect({"run": rows}, {"run": fetcher(loaded.info)})["run"])
    rule = rules.make_rule(loaded, None, 0.5, None, "entropy", False)
    outcome = filters.carry_out(loaded, rule, str(tmp_path / "kept"), write_shards=True)
    assert outcome.rows == outcome.sorting.kept == COUNT // 2
    again = score(str(tmp_path / "kept/shards"), tmp_path / "again")
    assert again.info["counts"]["rows_scored"] == COUNT // 2
    assert [check(str(tmp_path / output)).problems for output in ("limited", "out", "again")] == [[], [], []]
    assert check(str(tmp_path / "out")).notes == []


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_source_that_is_gone_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegradError, match=f"{name}: the file is gone"):
        list(fetch_images(str(tmp_path / name), {1: "1"}))


def test_the_longest_suffix_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_formats", dict(formats.formats()))

    @register
    class Zipped(Format):
        kind = "zipped"
        suffixes = (".gz",)

        def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
            yield from ()

    assert [kind_of(name) for name in ("a.tar.gz", "a.json.gz", "b.txt")] == ["tar", "zipped", None]
    assert formats.stem("x/a.json.GZ") == "a.json"


def test_reading_needs_no_ray() -> None:
    code = "import sys, regrad.reading.formats, regrad.pipeline.run; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("first", ["tar", "parquet", "folder"])
def test_the_order_does_not_hang_on_what_is_imported_first(first: str) -> None:
    code = (
        f"import regrad.reading.{first}\n"
        "from regrad.reading.formats import formats\n"
        "assert list(formats())[:3] == ['tar', 'parquet', 'folder']"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
