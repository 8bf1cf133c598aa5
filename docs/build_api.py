"""The API pages from the docstrings: ``make docs``; a warning is an error."""

from __future__ import annotations

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.extract

import regrad
import regrad.scores


def main(output: str, source: bool = True) -> int:
    """Write a page for every module, with its ``source``; a name or an annotation that cannot be resolved ends it."""
    warnings.simplefilter("error", UserWarning)
    for package in (
        regrad,
        regrad.scores,
    ):  # which import some of what they give when it is asked for; pdoc does not ask
        vars(package).update({name: getattr(package, name) for name in package.__all__})
    specs: list[str] = []
    reached: set[str] = set()
    for name in ["regrad", *(module.name for module in pkgutil.walk_packages(regrad.__path__, "regrad."))]:
        if name not in reached:  # a package with __all__ does not lead to its modules
            specs.append(name)
            reached |= set(pdoc.extract.walk_specs([name]))
    pdoc.render.configure(docformat="google", math=True, show_source=source, footer_text=f"regrad {regrad.__version__}")
    pdoc.pdoc(*specs, output_directory=Path(output))
    print(f"{len(reached)} modules: open {Path(output, 'index.html').resolve()}")
    return 0


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--no-source"]  # which takes a third of the time
    sys.exit(main(*given or ["build/api"], source="--no-source" not in sys.argv))
