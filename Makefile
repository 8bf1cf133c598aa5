# Two commands do everything on a machine with Python 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test pytest test-faults test-system docs audit lint types clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regrad needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)  ## score digits against patches and upside-down digits, and open on a report
	$(BIN)/regrad demo

lint: $(INSTALLED)  ## ruff, formatting included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy
	$(BIN)/mypy

test: lint  ## lint, types and every test; those whose programs are missing are skipped and say so
	$(MAKE) --no-print-directory --jobs 2 types pytest

pytest: $(INSTALLED)
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses 3 --no-loadscope-reorder

test-faults: $(INSTALLED)  ## the long form of the fault injection: some twenty minutes
	$(BIN)/python -m pytest -m long tests/faults

test-system: $(INSTALLED)  ## the tests that need programs beside Python: Chromium, and an S3 store at REGRAD_TEST_S3
	$(BIN)/python -m pytest -m system

docs: $(INSTALLED)  ## the API pages, from the docstrings, in build/api
	$(BIN)/python docs/build_api.py build/api

audit: $(INSTALLED)  ## known vulnerabilities of the pinned dependencies; asks a public database
	$(BIN)/uv tool run pip-audit --requirement constraints.txt --no-deps --disable-pip --strict || \
		{ echo 'audit: a vulnerability is named above, or the database at pypi.org could not be asked' >&2; exit 1; }

clean:  ## forget the environment and everything generated
	rm -rf .venv demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache
