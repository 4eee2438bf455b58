PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup test test-fast lint format demo bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

# A stamp a set of extras: pip runs again only when pyproject.toml has changed.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[test,plot]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[bench]"
	touch $@

setup: $(VENV)/installed  ## make .venv and install the package with what tests and demo need

test: $(VENV)/installed  ## run every test (FLAGS="-k omp -x" is passed to pytest)
	$(BIN)/python -m pytest $(FLAGS)

test-fast: $(VENV)/installed  ## run all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow" $(FLAGS)

lint: $(VENV)/installed  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed  ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/installed  ## learn a dictionary of photographs, encode one, search a penalty, draw a picture
	$(BIN)/python examples/demo.py

bench: $(VENV)/installed-bench  ## measure against other packages (FLAGS names the rows)
	$(BIN)/python benchmarks/run.py $(FLAGS)

clean:  ## remove .venv and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
