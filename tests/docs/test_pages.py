"""The commands and code on the pages of docs/, run from top to bottom on digits and a real S3 server; and the links."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

import regrad.commands.score
from regrad import table
from regrad.commands import COMMANDS, module_of
from regrad.experiments.reproduce.tables import TABLES
from regrad.experiments.sweep import __main__ as sweep
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute as run
from regrad.pipeline.run import score_here
from regrad.reading import formats
from regrad.scores import registry
from tests.data import ROOT
from tests.services import Bucket
from tests.shards import digits, write_folder, write_parquet, write_tar

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
MEASURED = sorted((DOCS / "tables").glob("*.md"))
RUN = ("scoring", "models", "choosing-a-score", "throughput", "handover", "interoperability", "extending")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with what the pages speak of, here and in ``s3://bucket``."""
    # Without Ray's workers: their starts would take most of the time, and tests/commands has them.
    monkeypatch.setattr(regrad.commands.score, "score_where_it_pays", score_here)
    monkeypatch.setattr(registry, "SCORES", dict(registry.SCORES))  # the pages' own scores are theirs alone
    monkeypatch.setattr(formats, "_formats", dict(formats.formats()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_package", "my_scores", "my_lines")]:
        monkeypatch.delitem(sys.modules, name)
    write_folder(tmp_path / "images", digits(12))
    for name in ("known", "unknown"):
        write_parquet(tmp_path / f"{name}.parquet", digits(24))
    bucket.put(write_tar(tmp_path / "a.tar", digits(12)), "shards/a.tar")
    (tmp_path / "a.tar").unlink()
    make_model(tmp_path)
    bucket.put("model.safetensors", "model.safetensors")
    return tmp_path


def make_model(folder: Path) -> None:
    """What docs/models.md makes."""
    for language, content in BLOCK.findall((DOCS / "models.md").read_text()):
        if language == "python" and "save_file" in content:
            execute(content, {})
            return
        write(content, folder)


def write(content: str, folder: Path) -> bool:
    """A block whose first line names a file is that file."""
    named = re.match(r"# ([\w./-]+\.(py|yaml))\n", content)
    if named is None:
        return False
    path = folder / named[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return True


def execute(code: str, names: dict[str, Any]) -> None:
    exec(compile(code, "page", "exec"), names)


# A Ray of its own, whose workers import from the page's working directory.
WITH_RAY = """
import regrad.commands.score
from regrad.cluster.sessions import start_local
from regrad.pipeline.run import score_here
regrad.commands.score.score_where_it_pays = score_here
start_local(3)
"""


def program(text: str, folder: Path) -> str:
    """All that a page says, from top to bottom, as one Python program; its files are written."""
    steps = ["from regrad.__main__ import main"]
    for language, content in BLOCK.findall(text):
        if language in ("text", "diff") or write(content, folder):
            continue
        assert language in ("python", "sh")
        if language == "python":
            steps.append(content)
            continue
        for line in content.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line)
            assert program == "regrad"
            steps.append(f"assert main({arguments!r}) == 0, {line!r}")
    assert len(steps) > 1
    return "\n".join(steps)


@pytest.mark.parametrize("page", RUN)
def test_what_a_page_says_works(page: str, place: Path, bucket: Bucket) -> None:
    code = program((DOCS / f"{page}.md").read_text().replace("s3://bucket", bucket.uri), place)
    if page != "interoperability":
        execute(code, {})
        return
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}
    ran = subprocess.run(
        [sys.executable, "-c", WITH_RAY + code], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows_of_the_pipeline_are_those_of_the_job(place)


def rows_of_the_pipeline_are_those_of_the_job(place: Path) -> None:
    """As docs/interoperability.md says of its first pipeline, on `read_images`."""
    model = ["--model", "my_package.my_model:build", "--weights", "model.safetensors", "--scores", "regrad,entropy"]
    run(prepare(parse(["images", *model, "--output", "of-the-job"], "score", None)), score_here)
    wanted = {row["id"]: row for row in table.read("of-the-job").to_pylist()}
    rows = pyarrow.parquet.read_table(place / "scored")
    assert len(rows) == len(wanted) == 12
    for row in rows.to_pylist():
        same = wanted[Path(row["path"]).relative_to("images").as_posix()]
        assert (row["prediction"], row["error"]) == (same["prediction"], "")
        for name in ("regrad", "entropy", "confidence"):
            assert row[name] == pytest.approx(same[name], rel=1e-6)
    kinds = [str(rows.schema.field(name).type) for name in ("prediction", "confidence", "regrad", "error")]
    assert kinds == ["int32", "float", "double", "string"]


@pytest.mark.parametrize("page", [*PAGES, *MEASURED, ROOT / "infra/README.md"], ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings], (
                target
            )


def test_every_page_is_listed() -> None:
    index = (DOCS / "README.md").read_text()
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []
    assert {page.stem for page in MEASURED} == set(TABLES)


def test_pages_name_flags_that_there_are() -> None:
    parsers = [*(module_of(name).parser() for name in COMMANDS), sweep.parser()]
    flags = [action.option_strings for parser in parsers for action in parser._actions]
    known = {flag for strings in flags for flag in strings} | {"--version", "--print-completion"}
    pages = [page for page in PAGES if page.stem in (*RUN, "cluster")]
    named = {(page.name, flag) for page in pages for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())}
    assert {(page, flag) for page, flag in named if flag not in known} == set()


def commands_named(page: Path) -> set[str]:
    text = page.read_text()
    named = re.findall(r"(?:^    |`|-- )regrad ([a-z]\w*)", text, re.MULTILINE)
    named += re.findall(r"^regrad ([a-z]\w*)", "".join(content for _, content in BLOCK.findall(text)), re.MULTILINE)
    return {*named, *re.findall(r"jobs/([a-z]\w*)\.py", text)}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "infra/README.md"], ids=lambda path: path.stem)
def test_pages_name_commands_that_there_are(page: Path) -> None:
    assert commands_named(page) <= set(COMMANDS)


def test_the_readme_names_every_command() -> None:
    assert commands_named(ROOT / "README.md") | {"demo"} == set(COMMANDS)  # which is `make demo` there
