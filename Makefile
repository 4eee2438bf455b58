PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Byte code is made for what gets imported, at the first import: making it for all of every package takes longer.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile -q
export PYTHONDONTWRITEBYTECODE :=
FLAGS ?=
# Two processes, each takes a file at a time: a kernel that a file needs is compiled in one of them. Threads of OpenBLAS
# that have nothing to do sleep at once: waiting in a loop, they take the other process's core.
PYTEST := OPENBLAS_THREAD_TIMEOUT=4 $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup test test-fast lint format demo bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

# A stamp for each set of extras: pip runs again only when pyproject.toml has changed.
$(VENV)/installed-demo: pyproject.toml
	@echo "installing into $(VENV) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e ".[plot]"
	touch $@

$(VENV)/installed-test: $(VENV)/installed-demo
	$(INSTALL) -e ".[test,plot]"
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-demo
	$(INSTALL) -e ".[bench]"
	touch $@

setup: $(VENV)/installed-test  ## make .venv and install the package with what its tests need

test: $(VENV)/installed-test  ## run every test (FLAGS="-k omp -x" is passed to pytest)
	$(PYTEST) $(FLAGS)

test-fast: $(VENV)/installed-test  ## run all tests but the slow ones
	$(PYTEST) -m "not slow" $(FLAGS)

lint: $(VENV)/installed-test  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-test  ## repair style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/installed-demo  ## learn a dictionary of photographs, encode one, search a penalty, draw a picture
	$(BIN)/python examples/demo.py $(FLAGS)

bench: $(VENV)/installed-bench  ## measure against other packages (FLAGS names the rows)
	$(BIN)/python benchmarks/run.py $(FLAGS)

clean:  ## remove .venv and all caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
